"""The benchmark of exports: who answers otherwise is not timed, and all are asked the same."""

import json
import sys

import numpy as np
import pytest

from benchmarks import bench_export
from tests.analysis.saved import save


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_vectors_that_differ_are_not_timed(value):
    answers = {
        bench_export.REFERENCE: lambda inputs: np.ones((2, 3)),
        "onnxruntime int8": lambda inputs: np.array([[1, 1, 1], [1, 1, value]]),
    }
    with pytest.raises(SystemExit, match="conformance: onnxruntime int8: a vector has a cosine"):
        bench_export.measure(answers, {}, rounds=1, seconds=1e-6)


@pytest.mark.slow
def test_every_program_has_a_rate(tmp_path, monkeypatch, capsys):
    model = save(tmp_path, "BertModel")
    (tmp_path / "texts.txt").write_text("the dog sees a bird .\nshort\nthe cat hears a red dog .\n")
    words = f"--model {model} --texts {tmp_path}/texts.txt --lengths 5 7 --batches 1 2 --json"
    line = ["bench_export", *words.split(), "--rounds", "2", "--seconds", "0.001"]
    monkeypatch.setattr(sys, "argv", line)
    bench_export.main()
    figures = json.loads(capsys.readouterr().out)
    assert [(one["tokens"], one["texts"]) for one in figures] == [(5, 1), (5, 2), (7, 1), (7, 2)]
    for one in figures:
        assert one["peers"].keys() == bench_export.LEAST_COSINES.keys()
        assert one["peers"][bench_export.REFERENCE][f"times {bench_export.REFERENCE}"] == 1
        assert all(peer["texts a second"] > 0 for peer in one["peers"].values())
    monkeypatch.setattr(sys, "argv", [*line, "--batches", "3"])
    with pytest.raises(bench_export.UserError, match="2 paragraphs have 5 tokens, and --batches"):
        bench_export.main()

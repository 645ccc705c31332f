"""`bertjax evaluate`: masked LMs on raw texts, models without some heads, the confusion matrix."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.heads.importance import gates_without
from bertjax.analysis.heads.masked_scores import score_masked_texts
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.loaded import Model, load
from bertjax.model.bert import BertForMaskedLM
from bertjax.model.probe_points import gate_heads
from bertjax.objectives.masking import Vocabulary
from bertjax.text.rows import open_prepared
from bertjax.training.evaluation import EvaluationConfig, make_evaluation
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.parity.random_models import draw_parameters
from tests.prepared_rows import write_rows

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"  # L=5, N=4, 17 positions
TEXTS = [
    "this is a cat", "they were all of us", "the year is the day of us",
    "of", "in the year they are here",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    return load(TINY)


@pytest.fixture(scope="module")
def encoded(whole):
    return encode_texts(whole.tokenizer, TEXTS, 17)


@pytest.fixture(scope="module")
def found(whole, encoded):
    return score_masked_texts(whole, encoded)


def make_rows(whole, encoded, length=17):
    """The texts as prepared rows, one a row."""
    shape = len(encoded), length
    rows = {
        "token_ids": np.full(shape, whole.tokenizer.pad_id),
        "token_type_ids": np.zeros(shape),
        "sequence_ids": np.zeros(shape),
        "position_ids": np.zeros(shape),
        "example_starts": np.zeros((len(encoded), 1)),
        "next_sentence_labels": np.full((len(encoded), 1), -1),
    }
    for row, text in enumerate(encoded):
        size = len(text.token_ids)
        rows["token_ids"][row, :size] = text.token_ids
        rows["sequence_ids"][row, :size] = 1
        rows["position_ids"][row, :size] = np.arange(size)
    return rows


def test_figures_are_those_of_pretrainings_evaluation(whole, encoded, found, tmp_path):
    rows = make_rows(whole, encoded)
    write_rows(tmp_path / "rows", {"train": rows, "validation": rows}, 99, TINY)
    prepared = open_prepared(tmp_path / "rows")
    evaluate = make_evaluation(
        EvaluationConfig(batch_size=8), whole.module, Vocabulary.of(whole.tokenizer),
        prepared.token_counts, make_mesh(MeshConfig()),
    )  # fmt: skip
    expected, _ = evaluate(whole.params, prepared.validation, 0)
    scores = found.evaluation()["scores"]
    assert scores["masked_tokens"] == expected["masked_tokens"] >= len(TEXTS)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(scores[name], expected[f"mlm_{name}"], rtol=1e-4)
        # The rows are those of train, too, so that the baselines know the same.
        np.testing.assert_allclose(scores[f"unigram_{name}"], expected[f"unigram_{name}"], 1e-4)
    np.testing.assert_allclose(scores["perplexity"], np.exp(scores["loss"]), rtol=1e-6)


def test_next_sentence_head_changes_no_figure(whole, encoded, found):
    config, params, *_ = load_model_directory(TINY, "BertForMaskedLM")
    bare = Model(BertForMaskedLM(config), params, whole.tokenizer)
    without = score_masked_texts(bare, encoded)
    np.testing.assert_allclose(found.losses, without.losses, rtol=1e-5, atol=1e-6)
    assert found.fingerprint == without.fingerprint


def run_json(bertjax_command, *words, **options):
    code, out, err = bertjax_command("evaluate", *words, "--json", **options)
    assert code == 0, err
    return json.loads(out), err


def test_command_scores_a_masked_lm_on_raw_texts(bertjax_command, tmp_path):
    file = tmp_path / "t.txt"
    long = " ".join(["of"] * 40)  # 17 positions: three windows
    file.write_text("\n\n".join([*TEXTS, long]) + "\n")
    output, fewer = tmp_path / "a.json", tmp_path / "b.json"
    words = ("--model", TINY, "--data", file)
    result, err = run_json(bertjax_command, *words, "--output", output)
    assert "5 of 11 lines are empty" in err
    assert "1 of 6 texts are longer than 17 tokens and were cut between words into 3 windows" in err
    assert result["examples"] == 6
    scores, intervals = result["scores"], result["intervals"]
    assert {"loss", "perplexity", "accuracy", "unigram_loss", "unigram_perplexity"} <= scores.keys()
    low, high = intervals["perplexity"]
    assert low <= scores["perplexity"] <= high
    np.testing.assert_allclose(np.exp(intervals["loss"]), [low, high], rtol=1e-9)
    code, out, _ = bertjax_command("evaluate", *words)
    assert code == 0
    for name in ("perplexity", "unigram_perplexity", "unigram_accuracy"):  # the same every time
        assert f"{name} " in out
        assert f"{scores[name]:.4f}" in out
    # Without some heads, and compared with it.
    result, err = run_json(bertjax_command, *words, "--output", fewer, "--without-heads", "0-3,4-1")
    assert "without 2 of 20 attention heads: 0-3, 4-1" in err
    assert result["removed_heads"] == {"0": [3], "4": [1]}
    assert result["scores"]["loss"] != scores["loss"]
    code, out, err = bertjax_command("compare", output, fewer, "--json")
    assert code == 0, err
    assert json.loads(out)["examples"] == 6


def test_model_without_heads_is_the_model_with_closed_gates(whole, encoded, found, bertjax_command):
    stdin = "\n".join(TEXTS).encode()
    words = ("--model", TINY, "--data", "-", "--without-heads", "1-3, 2-0")
    result, _ = run_json(bertjax_command, *words, stdin=stdin)
    gates = gates_without((5, 4), np.array([[1, 3], [2, 0]]))
    closed = staticmethod(functools.partial(whole.module.apply, edit=gate_heads(gates)))
    gated = type(whole.architecture, (), {"apply": closed, "config": whole.config})()
    expected = score_masked_texts(whole.replace(module=gated), encoded).evaluation()
    np.testing.assert_allclose(result["scores"]["loss"], expected["scores"]["loss"], rtol=1e-5)
    change = found.evaluation()["scores"]["loss"] - expected["scores"]["loss"]
    assert abs(change) > 1e-3


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of labels that are hard to draw, and data without the third."""
    labels = ("$10_to_$50", "a very long name of a class" * 3, "none")
    config, params, *_ = load_model_directory(TINY, "BertModel")
    config = dataclasses.replace(config, id2label=labels)
    new = draw_parameters(config, "BertForSequenceClassification")
    folder = tmp_path_factory.mktemp("classifier") / "model"
    merged = {**new, "bert": {**new["bert"], **params["bert"]}}
    save_model_directory(folder, config, merged, TINY, "BertForSequenceClassification")
    data = folder.parent / "data.csv"
    rows = [f'"this is {k}","{labels[k % 2]}"' for k in range(9)]
    data.write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder, data


def test_confusion_matrix_is_drawn_and_printed(bertjax_command, classifier, tmp_path):
    model, data = classifier
    words = ("--model", model, "--data", data, "--resamples", 0)
    code, out, err = bertjax_command("evaluate", *words, "--figures", tmp_path / "figures")
    assert code == 0, err
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        path = tmp_path / "figures" / f"confusion_matrix.{kind}"
        assert path.read_bytes().startswith(magic)
        assert str(path) in err
    assert "predicted label" in out
    result, _ = run_json(bertjax_command, *words, "--without-heads", "0-0")
    assert sum(map(sum, result["scores"]["confusion_matrix"])) == 9
    assert result["scores"]["confusion_matrix"][2] == [0, 0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--without-heads", "5-0"], "there is no head 5-0; heads are named layer-head, from 0-0"),
        (["--without-heads", "0-4"], "there is no head 0-4"),
        (["--without-heads", "0-1,0-1"], "names 0-1 twice; name each head once"),
        (["--without-heads", "3"], "name heads as layer-head with commas between them"),
        (["--label-column", "x"], "--label-column applies to labelled files, and none are read"),
        (["--resamples", "9"], "--resamples is for labelled files"),
        (["--resamples", "0"], "--resamples is for labelled files"),
        (["--figures", "f"], "--figures is for labelled files"),
        (["--interval", "3"], "--interval is for --watch"),
        (["--max-length", "99"], "--max-length 99 must be between 8 and the model's 17"),
    ],
)
def test_mistakes_about_a_masked_lm_are_told(
    bertjax_command, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("this is\n")
    code, _, err = bertjax_command("evaluate", "--model", TINY, "--data", "t.txt", *words)
    assert (code, message in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


@pytest.mark.parametrize(
    "words", [["--resamples", "0"], ["--calibrate"], ["--without-heads", "0-0"]]
)
def test_watching_refuses_what_is_of_a_model(bertjax_command, words):
    code, _, err = bertjax_command("evaluate", "--watch", "run", "--data", "x", *words)
    assert (code, f"{words[0]} is for --model" in err) == (2, True), err


@pytest.mark.parametrize("interval", ["-1", "nan", "0", "inf"])
def test_watching_needs_an_interval_that_passes(bertjax_command, interval):
    code, _, err = bertjax_command(
        "evaluate", "--watch", "run", "--data", "x", f"--interval={interval}"
    )
    rule = "must be above 0" if interval in ("-1", "0") else "must be a finite number"
    assert (code, rule in err) == (2, True)


def test_losses_of_other_vocabularies_are_not_compared(bertjax_command, tmp_path):
    file = {"task": "masked-lm", "data": ["t.txt"], "slice_score": "x", "outcomes": [0.5, 0.7]}
    for name, asked in (("a", "1"), ("b", "2")):
        (tmp_path / f"{name}.json").write_text(json.dumps(file | {"fingerprint": asked}))
    code, _, err = bertjax_command("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert (code, "other vocabularies, whose losses cannot be compared" in err) == (2, True)

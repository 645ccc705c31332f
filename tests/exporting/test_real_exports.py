"""Real checkpoints are exported, in eight bits, too, and answer as they are."""

import json

import pytest

TEXTS = 60


@pytest.mark.slow
def test_real_checkpoint_answers_as_the_model(bertjax_command, shared_data, checkpoint, tmp_path):
    book = (shared_data / "text" / "psychology.txt").read_text(encoding="utf-8").splitlines()
    lines = [line.replace("\t", " ") for line in book if len(line) > 80][:TEXTS]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    line = ("export", "--model", checkpoint, "--output", tmp_path / "out", "--json")
    gate = ("--int8", "--check", tmp_path / "texts.txt", "--most-changed", "0.15")
    code, out, err = bertjax_command(*line, *gate)
    assert code == 0, err
    result = json.loads(out)
    assert max(result["largest_difference"].values()) < 1e-5
    answers = result["int8"]["answers"]
    assert answers["questions"] == TEXTS
    if "sentence_embedding" in answers:
        assert answers["sentence_embedding"]["mean_cosine"] > 0.99
    else:
        assert answers["logits"]["answers"] > 5 * TEXTS

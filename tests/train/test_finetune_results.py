"""What several runs say together."""

import json
import statistics

from bertjax.tasks.labelled import TextExample
from bertjax.training.finetune_results import (
    describe_one_answer,
    examples_per_second,
    summarize_seeds,
)


def test_score_that_is_not_defined_for_every_seed_is_told_as_such(tmp_path):
    tests = ({"loss": 0.5, "pearson": None}, {"loss": 0.7, "pearson": 0.25}, {"loss": 1.5})
    for seed, scores in enumerate(tests):
        (tmp_path / f"seed-{seed}").mkdir()
        results = {"task": "regression", "test": {**scores, "per_label": {}, "total": 3}}
        (tmp_path / f"seed-{seed}" / "eval_results.json").write_text(json.dumps(results))
    lines = []
    summary = summarize_seeds(tmp_path, range(3), lines.append)
    assert summary == json.loads((tmp_path / "eval_results.json").read_text())
    assert summary["validation"] == {}
    assert summary["test"] == {
        "loss": {
            "mean": statistics.fmean([0.5, 0.7, 1.5]),
            "standard_deviation": statistics.stdev([0.5, 0.7, 1.5]),
            "values": [0.5, 0.7, 1.5],
        },
        "pearson": {"mean": 0.25, "standard_deviation": None, "values": [None, 0.25, None]},
    }
    assert lines == ["test loss 0.9000 +- 0.5292", "test pearson 0.2500 (1 of 3 seeds)"]


def test_speed_is_that_of_the_log_or_else_of_the_whole_run(tmp_path):
    assert examples_per_second(tmp_path, 15.5, steps=4, seconds=8.0) == 7.75
    lines = [
        {"step": step, "split": "train", "timing": {"seconds_a_step": seconds}}
        for step, seconds in ((3, 2.0), (4, 4.0))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert examples_per_second(tmp_path, 15.5, steps=4, seconds=99.0) == 15.5 * 4 / 10


def test_model_that_says_one_thing_is_told_of():
    examples = [TextExample("f:1", "x", None, label) for label in ("a", "b", "a")]
    same = [{"label": "a"}] * 3
    [said] = describe_one_answer("test", examples, same)
    assert "says 'a' to all 3 test examples, which is right for 2 of them" in said
    assert "--budget.steps" in said
    assert describe_one_answer("test", examples, [*same[:2], {"label": "b"}]) == []
    assert describe_one_answer("test", examples[:1], same[:1]) == []
    assert describe_one_answer("test", examples, [{"value": 1.0}] * 3) == []

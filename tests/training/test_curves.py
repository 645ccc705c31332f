"""The picture of a pretraining run, and how often it and evaluations come."""

import json
from pathlib import Path

import pytest

from bertjax.objectives.replaced_tokens import GeneratorAndDiscriminator
from bertjax.training import curves as curves_module
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.curves import CurvesDrawer, draw_pretraining_curves
from bertjax.training.evaluation import DueEvaluations, EvaluationConfig, cost_in_steps


def lines_of_a_run(examples=7.0):
    for step in (10, 20, 30):
        yield {"step": step, "split": "train", "mlm_loss": 6 - step / 9, "learning_rate": 0.1}
        yield {
            "step": step, "split": "validation", "mlm_loss": 6.1 - step / 9, "unigram_loss": 5.8,
            "mlm_accuracy": step / 99, "unigram_accuracy": 0.05,
            "nsp_accuracy": 0.5 + step / 99 if examples else None, "examples": examples,
        }  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    panels = []
    monkeypatch.setattr(
        curves_module, "draw_panels", lambda path, given: panels.extend(given) or []
    )
    return panels


def test_curves_have_losses_accuracies_rate_and_baselines(drawn):
    draw_pretraining_curves(Path("curves.png"), list(lines_of_a_run()))
    loss, accuracy, next_sentence, rate = drawn
    assert [series.name for series in loss.series] == ["training", "validation"]
    assert loss.series[0].values == [6 - step / 9 for step in (10, 20, 30)]
    assert loss.baselines == {"unigram": 5.8}
    assert accuracy.series[0].values == [step / 99 for step in (10, 20, 30)]
    assert accuracy.baselines == {"unigram": 0.05}
    assert next_sentence.baselines == {"chance": 0.5}
    assert rate.series[0].values == [0.1] * 3


def test_curves_without_pairs_have_no_next_sentences_and_the_loss_by_its_name(drawn):
    lines = [line | {"loss": 5.0} for line in lines_of_a_run(examples=0.0)]
    for line in lines:
        if line["split"] == "train":
            del line["mlm_loss"]
    draw_pretraining_curves(Path("curves.png"), lines)
    assert [panel.label for panel in drawn] == [
        "masked-LM loss",
        "masked accuracy",
        "learning rate",
    ]
    assert drawn[0].series[0].values == [5.0] * 3


def test_curves_of_replaced_tokens_begin_with_the_discriminator(drawn):
    lines = [line | {"replaced_loss": 0.4} for line in lines_of_a_run(examples=0.0)]
    for line in lines[1::2]:
        line |= {"by_frequency_loss": 0.5, "share_loss": 0.39}
        line |= {"replaced_accuracy": 0.2, "original_accuracy": 0.9}
    draw_pretraining_curves(Path("curves.png"), lines)
    assert [panel.label for panel in drawn] == [
        "replaced-token loss",
        "found",
        "masked-LM loss",
        "masked accuracy",
        "learning rate",
    ]
    loss, found = drawn[:2]
    assert [(series.name, series.values[0]) for series in loss.series] == [
        ("training", 0.4),
        ("validation", 0.4),
        ("validation, by frequency", 0.5),
        ("the share alone", 0.39),
    ]
    assert [series.values[0] for series in found.series] == [0.2, 0.9]


def test_picture_is_renewed_while_the_run_goes_on_as_often_as_it_costs_little(
    tmp_path, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(curves_module.time, "monotonic", lambda: now[0])

    def draw(path, lines):
        now[0] += 0.5
        path.write_text(str(len(lines)))
        return []

    monkeypatch.setattr(curves_module, "draw_pretraining_curves", draw)
    metrics = tmp_path / "metrics.jsonl"
    drawer = CurvesDrawer(tmp_path)
    shown = []
    for wait in (0, 10, 20, 10, 0.1):
        now[0] += wait
        with metrics.open("a") as file:
            file.write(json.dumps({"step": 1}) + "\n")
        drawer.draw(at_once=wait == 0.1)
        shown.append((tmp_path / "curves.png").read_text())
    # Half a second at most every 25 seconds; at the end in any case.
    assert shown == ["1", "1", "3", "3", "5"]


def due_steps(clock, config, seconds_a_step, steps, cost=0.0):
    is_due = DueEvaluations(config, clock, cost)
    times = [step * seconds_a_step for step in range(steps + 1)]
    return [step for step in range(1, steps + 1) if is_due(step, times[step - 1], times[step])]


@pytest.mark.parametrize(
    ("budget", "every", "seconds_a_step", "expected"),
    [
        # By the clock: after 15 seconds, then each 30, however slow the steps are.
        ({"minutes": 4.0}, None, 5.0, [3, 9, 15, 21, 27, 33, 39, 45]),
        ({"minutes": 4.0}, None, 40.0, [1, 2, 3, 4, 5, 6]),
        ({"minutes": 60.0}, None, 15.0, [1, 13, 25, 37]),
        # As told, or by steps.
        ({"minutes": 4.0}, 20, 5.0, [20, 40]),
        ({"steps": 2000}, None, 5.0, []),
        ({"steps": 2000}, 7, 5.0, [7, 14, 21, 28, 35, 42]),
    ],
)
def test_evaluations_come_when_they_are_due(budget, every, seconds_a_step, expected):
    clock = Clock(BudgetConfig(**budget), 100, 8)
    steps = 48 if seconds_a_step < 20 else 6
    assert due_steps(clock, EvaluationConfig(every), seconds_a_step, steps) == expected


def test_evaluations_that_take_long_are_as_far_apart_as_keeps_them_at_a_twentieth():
    """What came too early comes as soon as it may, and once."""
    clock = Clock(BudgetConfig(minutes=10.0), 100, 8)
    config = EvaluationConfig()
    assert due_steps(clock, config, 5.0, 60, cost=1.0) == [3, 23, 43]
    assert due_steps(clock, config, 5.0, 36, cost=0.3) == [3, 9, 15, 21, 27, 33]
    assert due_steps(clock, EvaluationConfig(every=2), 5.0, 6, cost=9.0) == [2, 4, 6]


def test_cost_of_an_evaluation_is_a_third_of_the_steps_on_its_tokens():
    both = GeneratorAndDiscriminator(None, None)
    assert cost_in_steps(512 * 128, 8 * 128, None) == pytest.approx(64 / 3)
    assert cost_in_steps(512 * 128, 8 * 128, both) == pytest.approx(128 / 3)


def test_evaluations_by_steps_are_each_500_unless_told():
    clock = Clock(BudgetConfig(epochs=3.0), 100, 8)
    assert due_steps(clock, EvaluationConfig(), 1.0, 1600) == [500, 1000, 1500]

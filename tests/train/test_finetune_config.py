"""What a fine-tuning run makes of what it was not told: budget, batch, evaluations, log."""

import pytest

from bertjax.training.budget import BudgetConfig
from bertjax.training.finetune_config import FEW_STEPS, LEAST_STEPS, FinetuneConfig, ScoringConfig


def steps_of(config, units):
    settled = config.settle(units)
    per_epoch = -(-units // settled.batch_size)
    if settled.budget.steps:
        return settled, settled.budget.steps, per_epoch
    return settled, round(settled.budget.epochs * per_epoch), per_epoch


@pytest.mark.parametrize("units", [1, 2, 24, 63, 64, 80, 320, 999, 1000, 1600, 3200, 100_000])
def test_default_budget_is_never_too_short(units):
    settled, steps, per_epoch = steps_of(FinetuneConfig(run="r"), units)
    assert steps >= LEAST_STEPS > FEW_STEPS
    assert settled.describe_shortage(steps) is None
    assert steps / per_epoch >= 3
    assert settled.batch_size == (8 if units < 64 else 16 if units < 1000 else 32)
    if units >= 1600:
        assert settled.budget == BudgetConfig(epochs=3.0)
    evaluations = steps / (settled.scoring.every_epochs * per_epoch)
    assert 3 <= evaluations <= 10
    assert steps / settled.log_every >= 20
    assert settled.log_every <= 20
    assert settled.settle(units) == settled


def test_what_is_given_stays():
    config = FinetuneConfig(
        run="r", budget=BudgetConfig(epochs=1.0), batch_size=7, log_every=3,
        scoring=ScoringConfig(every_epochs=0.5),
    )  # fmt: skip
    assert config.settle(24) == config
    minutes = FinetuneConfig(run="r", budget=BudgetConfig(minutes=2.0)).settle(24)
    assert minutes.budget == BudgetConfig(minutes=2.0)
    assert minutes.scoring.every_epochs * 3 >= 20  # steps, of which each evaluation costs several
    assert minutes.log_every == 20


def test_batch_of_some_microbatches_can_be_shared_out():
    assert FinetuneConfig(run="r", accumulation=3).settle(24).batch_size == 9


def test_log_of_thirty_steps_has_a_line_for_each():
    assert FinetuneConfig(run="r", budget=BudgetConfig(steps=30)).settle(400).log_every == 1

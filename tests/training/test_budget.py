"""How long a run lasts, in steps, epochs or minutes."""

import pytest

import bertjax.training.budget as budget
from bertjax.program.errors import UserError
from bertjax.training.budget import BudgetConfig, Clock


@pytest.fixture
def time(monkeypatch):
    """A clock to set: `time.now = seconds`."""

    class Time:
        now = 1000.0

        @staticmethod
        def monotonic():
            return Time.now

    monkeypatch.setattr(budget, "time", Time)
    return Time


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (BudgetConfig(steps=30), 30),
        (BudgetConfig(epochs=3.0), 59),  # of 97 rows by 5, the last batch spanning into the next
        (BudgetConfig(epochs=0.5), 10),
        (BudgetConfig(epochs=0.001), 1),
    ],
)
def test_steps_and_epochs_end_after_their_steps(config, steps, time):
    clock = Clock(config, rows=97, batch_size=5)
    clock.start()
    assert not clock.in_seconds
    assert clock.total == clock.most_steps == steps
    assert [clock.now(step) for step in (0, 1, steps + 7)] == [0, 1, steps]
    time.now += 1e9
    assert not clock.is_over(steps - 1)
    assert clock.is_over(steps)


def test_minutes_end_with_the_wall_clock(time):
    clock = Clock(BudgetConfig(minutes=2.0), rows=97, batch_size=5)
    assert clock.in_seconds
    assert clock.total == 120
    time.now += 50  # compilation, before the start
    clock.start()
    assert clock.now(0) == 0
    time.now += 119
    assert clock.now(10**6) == 119
    assert not clock.is_over(10**6)
    time.now += 2
    assert clock.now(3) == 120
    assert clock.is_over(3)
    assert clock.most_steps > 10**11


def test_minutes_count_over_all_sittings(time):
    clock = Clock(BudgetConfig(minutes=2.0), rows=97, batch_size=5)
    clock.start(seconds_before=100.0)
    time.now += 15
    assert clock.seconds == 115
    assert not clock.is_over(0)
    time.now += 5
    assert clock.is_over(0)


def test_time_left_is_what_the_steps_left_take(time):
    clock = Clock(BudgetConfig(steps=30), rows=97, batch_size=5)
    assert clock.seconds_left(10, 2.0) == 40
    clock = Clock(BudgetConfig(minutes=2.0), rows=97, batch_size=5)
    clock.start()
    time.now += 30
    assert clock.seconds_left(10, 2.0) == 90


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "given: none"),
        ({"steps": 3, "minutes": 1.0}, r"given: budget.steps=3, budget.minutes=1.0"),
    ],
)
def test_exactly_one_is_to_be_given(given, said):
    with pytest.raises(UserError, match=rf"exactly one of budget.steps.*{said}"):
        BudgetConfig(**given).require_one()


def test_one_is_enough():
    BudgetConfig(epochs=1.0).require_one()


@pytest.mark.parametrize("given", [{"steps": 0}, {"epochs": -1.0}, {"minutes": float("nan")}])
def test_nothing_is_no_budget(given):
    (name,) = given
    with pytest.raises(UserError, match=rf"budget.{name}={given[name]} must be above 0"):
        BudgetConfig(**given)


def test_shared_clock_shows_what_it_is_told(time):
    clock = Clock(BudgetConfig(minutes=1.0), rows=97, batch_size=5)
    clock.shared = True
    clock.start(10.0)
    time.now += 30
    assert (clock.seconds, clock.measured) == (10.0, 40.0)
    clock.agree(60.0)
    assert clock.now(step=0) == 60.0
    assert clock.is_over(step=0)

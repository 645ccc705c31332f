"""What a run asks of the machine, before it begins."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from bertjax.training import demand
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.demand import describe_demand


@pytest.fixture
def take_step():
    """8 MB stay, one of the two results is new memory of 4 MB."""
    step = jax.jit(lambda state, batch: (state + 1, jnp.sin(batch)), donate_argnums=0)
    return step.lower(jnp.ones((1000, 1000)), jnp.ones((1000, 1000))).compile()


def tell(take_step, monkeypatch, there=None, **budget):
    monkeypatch.setattr(demand, "_memory_of_a_device", lambda: there)
    return describe_demand(take_step, 750.0, Clock(BudgetConfig(**budget), 99, 3)).splitlines()


def test_memory_is_what_the_compiler_counts(take_step, monkeypatch):
    memory, _ = tell(take_step, monkeypatch, steps=5)
    assert memory == (
        "memory on each device: 0.012 GB, 0.008 GB of it for weights, optimizer and batch"
    )
    memory, _ = tell(take_step, monkeypatch, there=20_000_000, steps=5)
    assert memory.endswith("optimizer and batch; there are 0.02 GB")


def test_step_that_does_not_fit_says_what_to_change(take_step, monkeypatch):
    memory, _ = tell(take_step, monkeypatch, there=11_000_000, steps=5)
    assert "That does not fit: there are 0.011 GB; lower batch_size, raise accumulation" in memory


def test_time_is_that_of_all_matrix_products(take_step, monkeypatch):
    _, time = tell(take_step, monkeypatch, steps=1_000_000)
    assert time.endswith("for its matrix products alone; 8,680 d 13 h for 1,000,000 steps")
    _, time = tell(take_step, monkeypatch, minutes=60.0)
    assert time.endswith("; at most 4 steps in 60 minutes")


def test_cpu_devices_share_the_memory_of_the_machine(monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8000}
    monkeypatch.setattr(demand.os, "sysconf", pages.__getitem__)
    assert demand._memory_of_a_device() == 4096 * 1000  # eight devices
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 5})
    monkeypatch.setattr(demand.jax, "local_devices", lambda: [device])
    assert demand._memory_of_a_device() == 5

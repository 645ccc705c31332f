"""A training step on a mesh, and what of it must be as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.training.sharding import place_rows
from bertjax.training.state import new_state
from bertjax.training.steps import lower_step, make_train_step


def take_step(model, objective, rows, seed, mesh):
    """Takes one step of plain gradient descent from a new state; returns report and gradients."""
    step = make_train_step(objective, optax.scale(-1.0), lambda clock: clock, seed)
    state = new_state(model, optax.scale(-1.0), mesh, jax.random.key(3), objective.terms)
    before, batch = jax.device_get(state), place_rows(rows, mesh)
    compiled = lower_step(step, state, batch, mesh).compile()
    after, report = compiled(state, batch, jnp.float32(1))
    gradients = jax.tree.map(lambda old, new: old - new, before, jax.device_get(after))
    return report, gradients.params


def assert_equal_steps(found, expected):
    """Asserts that loss and gradients on eight devices are those on one."""
    (report, gradients), (on_one, expected_gradients) = found, expected
    assert len(report.loss.sharding.device_set) == 8
    assert float(report.loss) == pytest.approx(float(on_one.loss), rel=1e-5)
    norm = float(on_one.gradient_norm)
    assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-5)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients),
        jax.tree.leaves(expected_gradients),
        strict=True,
    ):
        bound = 1e-5 * float(np.abs(other).max()) + 1e-6
        np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=str(path))

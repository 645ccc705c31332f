"""The step of replaced-token detection on a mesh and in parts: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.families.electra import ElectraConfig
from bertjax.model.bert import BertForMaskedLM, BertForReplacedTokenDetection
from bertjax.objectives.replaced_tokens import (
    GeneratorAndDiscriminator,
    ReplacedTokenObjective,
    ReplacedTokensConfig,
)
from bertjax.training.sharding import place_rows
from bertjax.training.state import new_state
from bertjax.training.steps import lower_step, make_train_step


@pytest.fixture(scope="module")
def models():
    """N=8, H=4, F=40, V=98, E=24; the generator has four heads. Two divide every axis."""
    config = ElectraConfig(
        98, 32, 2, 8, 40, max_position_embeddings=16, embedding_size=24, hidden_dropout_prob=0.1
    )
    generator = BertForMaskedLM(config.shape_generator(0.5))
    return GeneratorAndDiscriminator(generator, BertForReplacedTokenDetection(config))


@pytest.mark.whole
def test_eight_devices_and_two_parts_give_what_one_device_gives_at_once(
    models, half, vocabulary, seed, rows, one_device, eight_devices
):
    """Loss and gradients, dropout on; eight rows, so that each device has one of each part."""
    objective = ReplacedTokenObjective(models, ReplacedTokensConfig(), half, vocabulary, seed)
    batch = jax.tree.map(lambda x: np.concatenate([x, x]), rows)._replace(
        row_numbers=np.arange(8, dtype=np.uint32)
    )

    def take(mesh, microbatches):
        plain = optax.scale(-1.0)
        step = make_train_step(
            objective, plain, lambda clock: clock, seed, microbatches=microbatches
        )
        state = new_state(models, plain, mesh, jax.random.key(3), objective.terms)
        before, placed = jax.device_get(state), place_rows(batch, mesh)
        after, report = lower_step(step, state, placed, mesh).compile()(
            state, placed, jnp.float32(1)
        )
        after = jax.device_get(after)
        return report, jax.tree.map(lambda old, new: old - new, before.params, after.params), after

    report, gradients, state = take(one_device, 1)
    of_parts, gradients_of_parts, state_of_parts = take(eight_devices, 2)
    assert len(of_parts.loss.sharding.device_set) == 8
    assert float(of_parts.loss) == pytest.approx(float(report.loss), rel=1e-5)
    assert float(report.loss) == pytest.approx(np.log(98) + 50 * np.log(2), rel=0.1)
    for name, total in state.window.totals.items():
        assert state_of_parts.window.totals[name].count == total.count
        assert state_of_parts.window.totals[name].sum == pytest.approx(total.sum, rel=1e-5)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients_of_parts),
        jax.tree.leaves(gradients),
        strict=True,
    ):
        bound = 1e-5 * float(np.abs(other).max()) + 2e-6
        np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=str(path))

"""Frozen parts stay, lower layers move less."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.program.errors import UserError
from bertjax.training.transfer import TransferConfig, freeze, learning_rate_scales, scale_updates


def scales_of(params, **fields):
    return learning_rate_scales(params, TransferConfig(**fields))


def test_rate_falls_from_layer_to_layer(params):
    scales = scales_of(params, layer_decay=0.5)
    layers = scales["bert"]["encoder"]["layers"]["intermediate"]["kernel"]
    assert layers.shape == (2, 1, 1)
    assert layers.reshape(-1).tolist() == [0.25, 0.5]
    assert scales["bert"]["embeddings"]["word_embeddings"] == 0.125
    assert scales["mlm_head"]["dense"]["kernel"] == scales["bert"]["pooler"]["dense"]["bias"] == 1


def test_frozen_layers_take_the_embeddings_with_them(params):
    scales = scales_of(params, freeze_layers=1)
    assert scales["bert"]["embeddings"]["word_embeddings"] == 0
    layers = scales["bert"]["encoder"]["layers"]["output"]["bias"]
    assert layers.reshape(-1).tolist() == [0, 1]
    only_embeddings = scales_of(params, freeze_embeddings=True)
    assert only_embeddings["bert"]["embeddings"]["position_embeddings"] == 0
    assert only_embeddings["bert"]["encoder"]["layers"]["output"]["bias"].min() == 1


def test_frozen_parameters_have_no_gradient_and_no_update(params):
    scales = scales_of(params, freeze_layers=1)

    def square(params):
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(freeze(params, scales)))

    # Weight decay alone would move them, too.
    optimizer = optax.chain(optax.adamw(1.0, weight_decay=0.1), scale_updates(scales))

    @jax.jit
    def differentiate(params):
        gradients = jax.grad(square)(params)
        return gradients, optimizer.update(gradients, optimizer.init(params), params)[0]

    gradients, updates = differentiate(params)
    kernel = gradients["bert"]["encoder"]["layers"]["intermediate"]["kernel"]
    assert float(jnp.abs(kernel[0]).max()) == 0 < float(jnp.abs(kernel[1]).min())
    assert float(jnp.abs(gradients["bert"]["embeddings"]["word_embeddings"]).max()) == 0

    moved = updates["bert"]["encoder"]["layers"]["intermediate"]["kernel"]
    assert float(jnp.abs(moved[0]).max()) == 0 < float(jnp.abs(moved[1]).min())


def test_wrong_fields_are_named(params):
    with pytest.raises(UserError, match=r"transfer.layer_decay=0"):
        TransferConfig(layer_decay=0.0)
    with pytest.raises(UserError, match=r"transfer.freeze_layers=-1"):
        TransferConfig(freeze_layers=-1)
    with pytest.raises(UserError, match=r"freeze_layers=3 is more than the 2 layers"):
        scales_of(params, freeze_layers=3)


def test_nothing_asked_changes_nothing(params):
    scales = scales_of(params)
    assert all(np.all(scale == 1) for scale in jax.tree.leaves(scales))

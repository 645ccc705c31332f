"""Parameters that leave no bias at 0 and no scale at 1, so that a mistake in any of them shows."""

import dataclasses
from typing import Any

import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.families.registry import FAMILIES
from bertjax.interop.tensor_names import Parameters, our_shape, put, rows_of


def make_random_model(
    architecture: str = "BertForPreTraining", **fields: Any
) -> tuple[BertConfig, Parameters]:
    """Returns the config and the parameters of a model of three layers with four heads of 6."""
    make = FAMILIES[ARCHITECTURES[architecture].family].config
    config = make(
        vocab_size=99,
        **({} if make().embedding_size == make().hidden_size else {"embedding_size": 16}),
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=17,
        pad_token_id=0,
    )
    config = dataclasses.replace(config, **fields)
    return config, draw_parameters(config, architecture)


def draw_parameters(
    config: BertConfig, architecture: str, seed: int = 6, spread: float = 0.2
) -> Parameters:
    """Parameters of a class, normally distributed, float32; those of BertModel under "bert"."""
    random, params = np.random.default_rng(seed), {}
    for row in rows_of(config, ARCHITECTURES[architecture].parts):
        for path in row.paths:
            values = random.normal(path.endswith("/scale"), spread, our_shape(row, config))
            values[: row.first_layer] = path.endswith("/scale")  # of layers that have none
            put(params, path, values.astype(np.float32))
    return params

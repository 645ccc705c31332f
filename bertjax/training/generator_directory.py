"""A discriminator's directory with its generator's in it: started from, written, and read again."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
from jax.sharding import Mesh

from bertjax.architectures import MASKED_LM, REPLACED_TOKENS, kind_of_module
from bertjax.config import BertConfig
from bertjax.families.registry import CONFIG_NAME, load_config
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.loaded import load
from bertjax.objectives.replaced_tokens import (
    GeneratorAndDiscriminator,
    generator_of,
    without_tables,
)
from bertjax.program.errors import UserError
from bertjax.training.pretrain_config import PretrainConfig, shape_new_generator

# In the directory of its discriminator, so that the two are moved and continued together; the
# discriminator is the model of that directory for every program.
GENERATOR_NAME = "generator"
# What the generator and the discriminator have the same, because they share the embeddings.
_SHARED = (
    "vocab_size", "embedding_size", "max_position_embeddings", "type_vocab_size", "pad_token_id",
    "attention_window",
)  # fmt: skip


def shape_generator(config: PretrainConfig, bert_config: BertConfig) -> BertConfig | None:
    """Returns the config of the generator that a run trains; None where it trains none.

    Args:
        config: of the run.
        bert_config: of its model.

    Raises:
        UserError: the generator beside `model.init` does not fit the discriminator, or the
            options.
    """
    if config.objective != REPLACED_TOKENS:
        return None
    there = _find_generator(config)
    if there is None:
        return shape_new_generator(config.replaced_tokens, bert_config)
    shape = load_config(there)
    for name in _SHARED:
        own, theirs = (getattr(one, name, None) for one in (shape, bert_config))
        if own != theirs:
            raise UserError(
                f"{there}: the generator beside model.init={config.model.init} has"
                f" {name}={own}, and the discriminator {theirs}: they cannot share their"
                " embeddings; move it away, and a new one is trained"
            )
    asked = config.replaced_tokens.generator_size
    if asked is not None and bert_config.shape_generator(asked).hidden_size != shape.hidden_size:
        raise UserError(
            f"replaced_tokens.generator_size={asked} does not fit the generator in {there}, which"
            f" is {shape.hidden_size} wide, beside {bert_config.hidden_size}; leave it out, or move"
            " the generator away"
        )
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    chosen = config.model.differing_fields(type(shape))
    return dataclasses.replace(shape, **{name: chosen[name] for name in rates if name in chosen})


def start_generator(config: PretrainConfig, params: Any) -> tuple[Any, list[str]]:
    """Returns the parameters that a run starts with, and what is to be said of the generator's.

    Args:
        config: of the run.
        params: of its model; None: they are drawn.

    Returns:
        With replaced tokens those of both models; without the generator's where they are drawn.
    """
    if config.objective != REPLACED_TOKENS or params is None:
        return params, []
    both = {"discriminator": params}
    there = _find_generator(config)
    if there is None:
        note = f"there is no generator in {find_model(config.model.init) / GENERATOR_NAME}"
        return both, [f"{note}: a new one is drawn, and must be trained"]
    loaded = load_model_directory(there, MASKED_LM)
    return both | {"generator": without_tables(loaded.params)}, [
        *loaded.notes,
        f"{there}: the generator is trained on, with the discriminator's embeddings",
    ]


def _find_generator(config: PretrainConfig) -> Path | None:
    if config.model.init is None:
        return None
    folder = find_model(config.model.init) / GENERATOR_NAME
    return folder if (folder / CONFIG_NAME).is_file() else None


def save_pretrained(
    path: Path, model: nn.Module | GeneratorAndDiscriminator, params: Any, tokenizer_path: Path
) -> None:
    """Writes the model directory of what is pretrained; a generator is in `generator/` there."""
    if not isinstance(model, GeneratorAndDiscriminator):
        save_model_directory(path, model.config, params, tokenizer_path, kind_of_module(model))
        return
    own = params["discriminator"]
    save_model_directory(path, model.config, own, tokenizer_path, REPLACED_TOKENS)
    save_model_directory(
        path / GENERATOR_NAME,
        model.generator.config,
        generator_of(params),
        tokenizer_path,
        MASKED_LM,
    )


def load_pretrained(
    path: Path, model: nn.Module | GeneratorAndDiscriminator, mesh: Mesh
) -> dict[str, Any]:
    """Reads the parameters that `save_pretrained` has written, onto the mesh."""
    params = load(path, mesh=mesh).params
    if not isinstance(model, GeneratorAndDiscriminator):
        return params
    generator = load(path / GENERATOR_NAME, mesh=mesh).params
    return {"discriminator": params, "generator": without_tables(generator)}

"""A tiny model's shape of every family, with pairwise different sizes."""

from typing import Any

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.families.registry import FAMILIES

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
LONGEST = 16


def tiny_config(family: str = "bert", **fields: Any) -> BertConfig:
    """Returns the config of a family for texts of `LONGEST` tokens, with any field overridden."""
    make = FAMILIES[family].config
    sizes = {**SIZES, "max_position_embeddings": LONGEST + make().first_position}
    if make().pad_token_id >= sizes["vocab_size"]:
        sizes["pad_token_id"] = 0
    if make().embedding_size != make().hidden_size:
        sizes["embedding_size"] = 24
    return make(**{**sizes, **fields})


def tiny_config_of(architecture: str, **fields: Any) -> BertConfig:
    """Returns `tiny_config` of a class' family."""
    return tiny_config(ARCHITECTURES[architecture].family, **fields)


# Those of BERT itself, of which tests/parity/golden has answers.
BERT_CLASSES = [name for name, one in ARCHITECTURES.items() if one.family == "bert"]

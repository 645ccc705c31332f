"""The families by their `model_type`, and how a config.json becomes the shape of one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bertjax.config import WITH_WINDOW, BertConfig
from bertjax.families import albert, bert, distilbert, electra, modernbert, roberta
from bertjax.families.tensors import Row
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

# Where a model directory has the shape of its model.
CONFIG_NAME = "config.json"


class Family(NamedTuple):
    """A family of encoders.

    Attributes:
        config: the class of its configs.
        prefix: what the names of its classes begin with.
        body: what the names of its body's tensors begin with, in a class with a head.
        tensor_rows: returns the table of its tensors for a config, all parts.
        tied: copies that some checkpoints carry of a tensor in the table, which must be equal to
            it.
    """

    config: type[BertConfig]
    prefix: str
    body: str
    tensor_rows: Callable[[BertConfig], list[Row]]
    tied: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its `model_type`."""
        return self.config.MODEL_TYPE


def _family(module: ModuleType, config: type[BertConfig], prefix: str = "") -> Family:
    return Family(config, prefix or module.PREFIX, module.BODY, module.tensor_rows, module.TIED)


# A slip of the pen is closer; deberta, eurobert and ibert are families of their own.
_ALIKE = 0.9

FAMILIES = {
    family.name: family
    for family in (
        _family(bert, BertConfig),
        _family(roberta, roberta.RobertaConfig, "Roberta"),
        _family(roberta, roberta.XlmRobertaConfig, "XLMRoberta"),
        _family(roberta, roberta.CamembertConfig, "Camembert"),
        _family(albert, albert.AlbertConfig),
        _family(distilbert, distilbert.DistilBertConfig),
        _family(electra, electra.ElectraConfig),
        _family(modernbert, modernbert.ModernBertConfig),
    )
}


def family_of(config: BertConfig) -> Family:
    """Returns the family of a config."""
    return FAMILIES[config.MODEL_TYPE]


def read_config(values: Mapping[str, Any]) -> BertConfig:
    """Reads the object of a `config.json`, of the family that its `model_type` names.

    Without a `model_type`, as in files of before there were others, it is BERT's.

    Raises:
        UserError: no such family, or something that it does not compute.
    """
    model_type = values.get("model_type", BertConfig.MODEL_TYPE)
    family = FAMILIES.get(str(model_type).removesuffix(WITH_WINDOW))
    if family is None:
        known = ", ".join(FAMILIES)
        raise UserError(
            f"model_type={model_type!r} is not a family that bertjax computes; these are: {known}"
            f"{nearest(str(model_type), list(FAMILIES), _ALIKE)}"
        )
    return family.config.from_dict(values)


def load_config(path: Path | str) -> BertConfig:
    """Reads a `config.json`, or the one in a model directory.

    Raises:
        UserError: there is none, or it is damaged, or as `read_config`.
    """
    path = Path(path)
    path = path / CONFIG_NAME if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; a model directory holds {CONFIG_NAME} and model.safetensors"
            f"{_say_what_it_is(path.parent)}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object")
    try:
        return read_config(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except TypeError as error:  # a word where a number belongs
        raise UserError(f"{path}: a field has a value of the wrong type ({error})") from None


# Files of weights, whether they are read as they are or not.
_WEIGHTS = ("*.safetensors", "*.msgpack", "*.bin", "onnx/*.onnx", "stablehlo/*.jax_export")


def _say_what_it_is(directory: Path) -> str:
    """Says what a directory given in place of a model is, where that is clear."""
    if (directory / "model" / "config.json").is_file():
        return f"; this is a run, and its model is in {directory / 'model'}"
    if (directory / "checkpoints").is_dir():
        return "; this is a run, and its model is written at its first evaluation"
    if (directory / "data_card.json").is_file():
        return "; this is a prepared directory, from which `bertjax pretrain` makes a model"
    if any(place for pattern in _WEIGHTS for place in directory.glob(pattern)):
        return f"; this has weights: copy the {CONFIG_NAME} of their model there"
    if (directory / "tokenizer.json").is_file():
        return "; this is a tokenizer, not a model"
    return ""

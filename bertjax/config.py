"""`BertConfig`: the shape of a BERT, field for field the `config.json` of Hugging Face."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

HIDDEN_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")

# layers, hidden size, heads; the intermediate size is 4 times the hidden size.
# Source: Turc et al. 2019, table 1 (tiny, mini, small, medium); Devlin et al. 2019, section 3
# (base, large).
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}

# What comes before a classifier's linear layer.
CLASSIFIER_NORMS = ("none", "layer", "batch")
# What a classifier's label numbers mean to its loss. Source: `transformers`.
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

# Fields of a config.json whose other values this model does not support: (field, accepted value).
_ONLY_VALUES = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape and constants of a BERT.

    Every field has Hugging Face's name and default (those of bert-base-uncased), so that a
    `config.json` is read and written as it is. `id2label` holds the labels in the order of their
    numbers (an object in the file). Four fields are ours: `classifier_norm` (none, layer or batch)
    is what comes before a classifier's linear layer, `answerable` says whether every question has
    an answer, `attention_head_size` is the width of a head where heads were removed from the
    tensors (`bertjax prune --shrink`), so that it is not hidden_size / num_attention_heads, and
    `attention_window` is how many tokens to either side a token sees (None = all). A model with a
    window is saved with another `model_type`, so that no other library takes it for a full BERT.

    Source: Devlin et al. 2019; `transformers.BertConfig`.

    Raises:
        UserError: a field is out of range, or two fields contradict each other.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    id2label: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: str | None = None
    classifier_norm: str = "none"
    answerable: bool = True
    attention_head_size: int | None = None
    attention_window: int | None = None

    def check_ids(
        self,
        token_ids: np.ndarray,
        token_type_ids: np.ndarray,
        position_ids: np.ndarray,
    ) -> None:
        """Checks that the model has an embedding for each of these ids.

        A device does not check: for an id beyond a table it reads another row, or nothing. So
        everything that gives inputs to a model calls this first.

        Raises:
            UserError: an id is beyond its table.
        """
        for ids, what, field, way_out in (
            (token_ids, "token", "vocab_size", "the tokenizer or the rows belong to another model"),
            (
                token_type_ids, "token type", "type_vocab_size",
                "the second text of a pair has type 1: give single texts, or use a model with"
                " two types",
            ),
            (
                position_ids, "position", "max_position_embeddings",
                "shorten the texts, or lower the maximum length",
            ),
        ):  # fmt: skip
            size = getattr(self, field)
            least, most = int(np.min(ids, initial=0)), int(np.max(ids, initial=0))
            if least < 0 or most >= size:
                raise UserError(
                    f"{what} id {least if least < 0 else most}: the model has embeddings for 0 to"
                    f" {size - 1} ({field}={size}); {way_out}"
                )

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"{name}={value!r} must be a whole number of at least 1")
        for name in ("attention_head_size", "attention_window"):
            value = getattr(self, name)
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and (not is_number or value < 1):
                raise UserError(f"{name}={value!r} must be a whole number of at least 1")
        if self.attention_head_size is None and self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size={self.hidden_size} must be a multiple of"
                f" num_attention_heads={self.num_attention_heads}"
            )
        if self.hidden_act not in HIDDEN_ACTIVATIONS:
            raise UserError(
                f"hidden_act={self.hidden_act!r} is not one of {', '.join(HIDDEN_ACTIVATIONS)}"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name}={value!r} must be in [0, 1)")
        for name in ("initializer_range", "layer_norm_eps"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)!r} must be above 0")
        for name, choices in (
            ("problem_type", (None, *PROBLEM_TYPES)),
            ("classifier_norm", CLASSIFIER_NORMS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name}={getattr(self, name)!r} is not one of"
                    f" {', '.join(choice for choice in choices if choice)}"
                )
        if not self.id2label or len(set(self.id2label)) < len(self.id2label):
            raise UserError(f"id2label={list(self.id2label)} must be distinct labels")
        if self.problem_type == "single_label_classification" and self.num_labels < 2:
            raise UserError(
                "problem_type='single_label_classification' needs at least two labels, id2label is"
                f" {list(self.id2label)}; a model with one output is a regression"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise UserError(
                f"pad_token_id={self.pad_token_id} must be an id below vocab_size={self.vocab_size}"
            )
        if not self.tie_word_embeddings:
            raise UserError(
                "tie_word_embeddings=False is not supported: the masked-LM decoder is the token"
                " embedding (Devlin et al.)"
            )

    @property
    def head_size(self) -> int:
        """H, the width of an attention head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def num_labels(self) -> int:
        """C, of a sequence or token classifier."""
        return len(self.id2label)

    @property
    def label_meaning(self) -> str:
        """`problem_type`, or without it what `transformers` assumes for integer labels."""
        inferred = "regression" if self.num_labels == 1 else "single_label_classification"
        return self.problem_type or inferred

    @property
    def classifier_dropout_rate(self) -> float:
        """Dropout before a classifier: `classifier_dropout`, or `hidden_dropout_prob` without."""
        rate = self.classifier_dropout
        return self.hidden_dropout_prob if rate is None else rate

    @classmethod
    def of_size(cls, size: str, **fields: Any) -> "BertConfig":
        """Returns the config of a published size (a key of `SIZES`), with any field overridden."""
        if size not in SIZES:
            raise UserError(f"model size {size!r} is not one of {', '.join(SIZES)}")
        layers, width, heads = SIZES[size]
        shape = {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }
        return cls(**(shape | fields))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Reads the object of a `config.json`; fields for other parts of transformers are ignored.

        Raises:
            UserError: the file asks for something other than BERT as published (a decoder,
                relative positions), or a value is out of range.
        """
        model_type = _model_type(values.get("attention_window"))
        for name, only in ({"model_type": model_type} | _ONLY_VALUES).items():
            if name in values and values[name] != only:
                raise UserError(
                    f"{name}={values[name]!r} is not supported: bertjax computes"
                    f" {name}={only!r} only"
                )
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in values.items() if name in names}
        fields.pop("id2label", None)
        if values.get("id2label") is not None or values.get("num_labels") is not None:
            fields["id2label"] = _read_labels(values)
        return cls(**fields)

    @classmethod
    def load(cls, path: Path | str) -> "BertConfig":
        """Reads a `config.json`, or the one in a model directory."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; a model directory holds config.json and model.safetensors"
                f"{_say_what_it_is(path.parent)}"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}: not a JSON object")
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of a `config.json` that transformers reads."""
        fields = dataclasses.asdict(self)
        fields["id2label"] = {str(number): name for number, name in enumerate(self.id2label)}
        fields["label2id"] = {name: number for number, name in enumerate(self.id2label)}
        return {"model_type": _model_type(self.attention_window), **fields}


def _model_type(window: int | None) -> str:
    return "bert" if window is None else "bert-with-attention-window"


def _read_labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the labels in the order of their numbers, from `id2label` or `num_labels`."""
    labels = values.get("id2label")
    if labels is None:
        number = values["num_labels"]
        if not isinstance(number, int) or number < 1:
            raise UserError(f"num_labels={number!r} must be a whole number of at least 1")
        return tuple(f"LABEL_{label}" for label in range(number))
    if not isinstance(labels, Mapping):
        raise UserError(f"id2label={labels!r} must map numbers to labels")
    by_number = {str(number): label for number, label in labels.items()}
    numbers = [str(number) for number in range(len(labels))]
    if sorted(by_number) != sorted(numbers):
        raise UserError(
            f"id2label={dict(labels)!r} must have the keys 0 ... {len(labels) - 1},"
            " each with a label"
        )
    return tuple(_read_label(number, by_number[number]) for number in numbers)


def _read_label(number: str, label: Any) -> str:
    """Returns a label's name; a number or boolean, as some tools write, is named as data names it:
    1 for 1.0, true.
    """
    if isinstance(label, str):
        return label
    if isinstance(label, int | float):
        whole = isinstance(label, float) and label.is_integer()
        return to_json(int(label) if whole else label)
    raise UserError(f"id2label: the label of {number} is {label!r}; it must be text or a number")


def _say_what_it_is(directory: Path) -> str:
    """Says what a directory given in place of a model is, where that is clear."""
    if (directory / "model" / "config.json").is_file():
        return f"; this is a run, and its model is in {directory / 'model'}"
    if (directory / "checkpoints").is_dir():
        return "; this is a run, and its model is written at its first evaluation"
    if (directory / "data_card.json").is_file():
        return "; this is a prepared directory, from which `bertjax pretrain` makes a model"
    if (directory / "tokenizer.json").is_file():
        return "; this is a tokenizer, not a model"
    return ""

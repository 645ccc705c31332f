"""`BertConfig`: the shape of a BERT, field for field the `config.json` of Hugging Face."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import with_article

if TYPE_CHECKING:
    import numpy as np

HIDDEN_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")

# Layers, hidden size, heads; the intermediate size is 4 times the hidden size.
# Source: Turc et al. 2019, table 1 (tiny, mini, small, medium); Devlin et al. 2019, section 3
# (base, large).
_SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}

# What a family's name in config.json ends with where tokens see a window only: no other library
# is to take it for the family itself.
WITH_WINDOW = "-with-attention-window"
# What comes before a classifier's linear layer.
CLASSIFIER_NORMS = ("none", "layer", "batch")
# Parts that classify, by the labels of the config; `classifier_norm` is theirs.
CLASSIFIERS = ("sequence_head", "token_head", "choice_head")
# What a classifier's label numbers mean to its loss. Source: `transformers`.
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

# Kinds of model class, by what it answers: `BertConfig.PARTS` says which of them a family has.
Kind = Literal[
    "body",
    "pretraining",
    "masked-lm",
    "next-sentence",
    "sentence-order",
    "replaced-tokens",
    "sequence",
    "tokens",
    "spans",
    "choice",
]


class HeadTransform(NamedTuple):
    """A dense layer between the first token's hidden state and a classifier's linear layer.

    Attributes:
        activation: of the layer, as `hidden_act`.
        drops_before: there is dropout before the layer too, not only behind it.
    """

    activation: str
    drops_before: bool = True


def check_length(length: int, most: int, least: int = 8) -> int:
    """Returns a longest sequence that was asked for, in tokens.

    Args:
        length: above.
        most: positions of the model.
        least: that a sequence has to have room for.

    Raises:
        UserError: the model has no positions for it.
    """
    if not least <= length <= most:
        raise UserError(
            f"--max-length {length} must be between {least} and the model's {most} positions"
        )
    return int(length)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape and constants of a BERT; a subclass is another family (`bertjax.families`).

    Every field has Hugging Face's name and default (those of bert-base-uncased), so that a
    `config.json` is read and written as it is. `id2label` holds the labels in the order of their
    numbers (an object in the file). Four fields are ours: `classifier_norm` (none, layer or batch)
    is what comes before a classifier's linear layer, `answerable` says whether every question has
    an answer, `attention_head_size` is the width of a head where heads were removed from the
    tensors (`bertjax prune --shrink`), so that it is not hidden_size / num_attention_heads, and
    `attention_window` is how many tokens to either side a token sees (None = all). A model with a
    window is saved with another `model_type`, so that no other library takes it for a full BERT.

    What is not a number of the file but differs between families is a capital letter's class
    attribute, or a property, on which `bertjax.model` decides where the difference is.

    Attributes:
        vocab_size: V, tokens of the vocabulary.
        hidden_size: D, numbers of a hidden state.
        num_hidden_layers: L.
        num_attention_heads: N, heads of a layer.
        intermediate_size: F, numbers inside the feed-forward network.
        hidden_act: its activation, one of `HIDDEN_ACTIVATIONS`.
        hidden_dropout_prob: of embeddings and of what is added to the hidden states, 0 to 1.
        attention_probs_dropout_prob: of the attention probabilities, 0 to 1.
        classifier_dropout: before a classifier, 0 to 1; None = as `hidden_dropout_prob`.
        max_position_embeddings: M, rows of the table of positions.
        type_vocab_size: G, kinds of token types.
        initializer_range: standard deviation of new weights.
        layer_norm_eps: added to the variance in a LayerNorm.
        pad_token_id: the id of the padding.
        tie_word_embeddings: whether the masked-LM head's decoder is the table of the tokens.
        id2label: the labels of a classifier, C of them.
        problem_type: of a classifier; None = regression with one label, else one label of several.
        classifier_norm: none, layer or batch.
        answerable: whether every question has an answer.
        attention_head_size: H; None = hidden_size / num_attention_heads.
        attention_window: tokens to either side; None = all.

    Source: Devlin et al. 2019; `transformers.BertConfig`.

    Raises:
        UserError: a field is out of range, or two fields contradict each other.
    """

    MODEL_TYPE: ClassVar[str] = "bert"
    # What stands on the body of each class, by the names of its parameters.
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": ("pooler",),
        "pretraining": ("pooler", "mlm_head", "nsp_head"),
        "masked-lm": ("mlm_head",),
        "next-sentence": ("pooler", "nsp_head"),
        "sequence": ("pooler", "sequence_head"),
        "tokens": ("token_head",),
        "spans": ("span_head",),
        "choice": ("pooler", "choice_head"),
    }
    # What the name of a class of a kind ends with, where it is not as in other families.
    SUFFIXES: ClassVar[Mapping[Kind, str]] = {}
    # Fields that the file calls otherwise, and fields that it has not: they keep their default.
    THEIR_NAMES: ClassVar[Mapping[str, str]] = {}
    NOT_IN_FILE: ClassVar[tuple[str, ...]] = ()
    # Fields of the file whose other values are not supported.
    ONLY_VALUES: ClassVar[Mapping[str, Any]] = {
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
    }
    # Fields that are rates of dropout; `classifier_dropout` may be None.
    DROPOUT_RATES: ClassVar[tuple[str, ...]] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
    )
    # Tokens of the second text of a pair have a type of their own.
    SEGMENTS_ARE_TYPES: ClassVar[bool] = True
    # Positions that are not given count the tokens that are not padding; otherwise all places.
    POSITIONS_SKIP_PADDING: ClassVar[bool] = False
    # There is dropout between attention's projection and the residual.
    DROPS_ATTENTION_OUTPUT: ClassVar[bool] = True
    # All layers have the same parameters, whose axis L is 1 long.
    SHARES_LAYERS: ClassVar[bool] = False
    # There is a table of positions.
    LEARNED_POSITIONS: ClassVar[bool] = True
    # A layer is a `model.pre_norm.PreNormLayer`, and the last one's output is normalized, too.
    NORMALIZES_FIRST: ClassVar[bool] = False
    # Which layers have a bias; fields where a family's file says so.
    attention_bias: ClassVar[bool] = True
    norm_bias: ClassVar[bool] = True
    decoder_bias: ClassVar[bool] = True
    # Published shapes, by name.
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        size: {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }
        for size, (layers, width, heads) in _SIZES.items()
    }

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
        token_ids: "np.ndarray",
        token_type_ids: "np.ndarray",
        position_ids: "np.ndarray",
    ) -> None:
        """Checks that the model has an embedding for each of these ids.

        A device does not check: for an id beyond a table it reads another row, or nothing. So
        everything that gives inputs to a model calls this first.

        Args:
            token_ids: of any number of tokens.
            token_type_ids: of the same.
            position_ids: of the same.

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
            if field == "type_vocab_size" and not self.SEGMENTS_ARE_TYPES:
                continue
            size, rule = getattr(self, field), f"{field}={getattr(self, field)}"
            if field == "max_position_embeddings":
                size, rule = self.max_length, self.length_limit
            least, most = int(ids.min(initial=0)), int(ids.max(initial=0))
            if least < 0 or most >= size:
                raise UserError(
                    f"{what} id {least if least < 0 else most}: the model has embeddings for 0 to"
                    f" {size - 1} ({rule}); {way_out}"
                )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.NOT_IN_FILE and value != field.default:
                raise UserError(
                    f"{field.name}={value!r} is not supported: in"
                    f" {with_article(self.MODEL_TYPE)} it is always {field.default!r}"
                )
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
            if name in self.NOT_IN_FILE:
                continue
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
        for name in self.DROPOUT_RATES:
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

    def check_decoder(self) -> None:
        """Checks what a masked-LM head needs; other classes have no decoder that could be tied.

        Raises:
            UserError: the decoder is not to be the token embedding.
        """
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
    def pretraining(self) -> Kind:
        """The kind of class that is pretrained: with a next-sentence head where there is one."""
        return "pretraining" if "pretraining" in self.PARTS else "masked-lm"

    @property
    def embedding_size(self) -> int:
        """E, the width of the embeddings' tables; another than `hidden_size` is projected to it."""
        return self.hidden_size

    @property
    def projects_embeddings(self) -> bool:
        """Whether a linear layer makes hidden states of the embeddings."""
        return self.embedding_size != self.hidden_size

    @property
    def distinct_layers(self) -> int:
        """How many layers have parameters of their own: the axis L of the parameters."""
        return 1 if self.SHARES_LAYERS else self.num_hidden_layers

    @property
    def first_position(self) -> int:
        """The row of the table of positions that a text's first token has."""
        return 0

    @property
    def max_length(self) -> int:
        """The longest text in tokens, its frame included."""
        return self.max_position_embeddings - self.first_position

    @property
    def length_limit(self) -> str:
        """What the file says of the longest text: `max_position_embeddings=512`, for messages."""
        limit = f"max_position_embeddings={self.max_position_embeddings}"
        return limit + f", of which {self.max_length} are usable" * bool(self.first_position)

    @property
    def takes_pairs(self) -> bool:
        """Whether there is a type for the second text of a pair, where types tell it."""
        return not self.SEGMENTS_ARE_TYPES or self.type_vocab_size > 1

    @property
    def mlm_activation(self) -> str:
        """The activation within the masked-LM head."""
        return self.hidden_act

    @property
    def window(self) -> int | None:
        """How many tokens to either side a token sees, in `local_layers`; None = every token."""
        return self.attention_window

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """Of each layer, whether it has the window."""
        return (self.window is not None,) * self.num_hidden_layers

    @property
    def rotary_bases(self) -> tuple[float, float] | None:
        """Of the rotary positions of global layers and of local ones; None = there are none."""
        return None

    @property
    def pools_mean(self) -> bool:
        """Whether a classifier of examples reads the mean of all tokens, where no pooler is."""
        return False

    @property
    def initializer_cutoff(self) -> float:
        """Where the normal distribution of new weights is cut, in standard deviations."""
        return 2.0

    @property
    def output_initializer_range(self) -> float:
        """Of new weights whose product is added to the hidden states."""
        return self.initializer_range

    @property
    def classifier_initializer_range(self) -> float:
        """Of a new classifier's weights."""
        return self.initializer_range

    @property
    def sinusoidal_positions(self) -> bool:
        """Whether a new model's table of positions is waves, not drawn."""
        return False

    def dropout_field(self, part: str) -> str | None:
        """Returns the field that says the dropout before the linear layer of a part; None: none.

        Where `classifier_dropout` is None, `hidden_dropout_prob` has it.

        Args:
            part: of `PARTS`.
        """
        return "classifier_dropout" if part in CLASSIFIERS else None

    def head_dropout(self, part: str) -> float:
        """Returns the dropout before the linear layer of a part of `PARTS`.

        Args:
            part: its name.
        """
        field = self.dropout_field(part)
        rate = 0.0 if field is None else getattr(self, field)
        return self.hidden_dropout_prob if rate is None else rate

    def with_head(self, part: str, **fields: Any) -> "BertConfig":
        """Returns the config with other fields, `classifier_dropout` being the dropout of a part.

        Args:
            part: of `PARTS`.
            fields: their new values, by their names.

        Raises:
            UserError: the part has no dropout of its own, or no normalisation; or a value is out of
                range.
        """
        if (rate := fields.pop("classifier_dropout", None)) is not None:
            field = self.dropout_field(part)
            if field in (None, "hidden_dropout_prob"):
                way_out = f"set {field}" if field else "leave it out"
                raise UserError(
                    f"classifier_dropout={rate} has no effect:"
                    f" {with_article(self.MODEL_TYPE)} has no dropout of its own before the"
                    f" linear layer of its {part}; {way_out}"
                )
            fields[field] = rate
        norm = fields.get("classifier_norm", "none")
        if norm != "none" and part not in CLASSIFIERS:
            raise UserError(
                f"classifier_norm={norm} has no effect: it is of {', '.join(CLASSIFIERS)}, and the"
                f" model is fitted with {with_article(part)}; leave it out"
            )
        return dataclasses.replace(self, **fields)

    def head_transform(self, part: str) -> HeadTransform | None:
        """Returns the dense layer before the linear layer of a part; None: there is none.

        Args:
            part: of `PARTS`.
        """
        return None

    @classmethod
    def of_size(cls, size: str, **fields: Any) -> "BertConfig":
        """Returns the config of a published size (a key of `SIZES`), with any field overridden.

        Args:
            size: for instance tiny or base.
            fields: their values, by their names.

        Raises:
            UserError: there is no such size, or a value is out of range.
        """
        if size not in cls.SIZES:
            raise UserError(f"model size {size!r} is not one of {', '.join(cls.SIZES)}")
        return cls(**{**cls.SIZES[size], **fields})

    def with_layers(self, number: int) -> "BertConfig":
        """Returns the config of the lowest so many layers.

        Args:
            number: of layers.
        """
        return dataclasses.replace(self, num_hidden_layers=number)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Reads the object of a `config.json`; fields for other parts of transformers are ignored.

        Args:
            values: the fields of the file.

        Raises:
            UserError: the file asks for something other than BERT as published (a decoder,
                relative positions), or a value is out of range.
        """
        model_type = _model_type(cls.MODEL_TYPE, values.get("attention_window"))
        for name, only in ({"model_type": model_type} | cls.ONLY_VALUES).items():
            if name in values and values[name] != only:
                raise UserError(
                    f"{name}={values[name]!r} is not supported: bertjax computes"
                    f" {name}={only!r} only"
                )
        names = {field: cls.THEIR_NAMES.get(field, field) for field in cls._fields_of_file()}
        fields = {ours: values[theirs] for ours, theirs in names.items() if theirs in values}
        fields.pop("id2label", None)
        if values.get("id2label") is not None or values.get("num_labels") is not None:
            fields["id2label"] = _read_labels(values)
        return cls(**fields)

    @classmethod
    def _fields_of_file(cls) -> list[str]:
        names = [field.name for field in dataclasses.fields(cls)]
        return [name for name in names if name not in cls.NOT_IN_FILE]

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of a `config.json` that transformers reads."""
        fields = {
            self.THEIR_NAMES.get(name, name): getattr(self, name) for name in self._fields_of_file()
        }
        fields["id2label"] = {str(number): name for number, name in enumerate(self.id2label)}
        fields["label2id"] = {name: number for number, name in enumerate(self.id2label)}
        return {"model_type": _model_type(self.MODEL_TYPE, self.attention_window), **fields}


def _model_type(model_type: str, window: int | None) -> str:
    return model_type if window is None else model_type + WITH_WINDOW


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

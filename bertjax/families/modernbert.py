"""ModernBERT, Ettin's and mmBERT's encoders: rotary positions, local layers, gated feed-forward.

Source: Warner et al. 2024; Weller et al. 2025 (Ettin); Marone et al. 2025 (mmBERT); `transformers`
modeling_modernbert.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from bertjax.config import HIDDEN_ACTIVATIONS, BertConfig, Kind
from bertjax.families.tensors import LAYERS_PATH, Row, classifier, dense, layer_norm
from bertjax.program.errors import UserError

PREFIX, BODY = "ModernBert", "model"
TIED = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}

GLOBAL, LOCAL = "full_attention", "sliding_attention"
POOLINGS = ("cls", "mean")


def _shape(layers: int, width: int, inner: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        **others,
    }


# Ettin and mmBERT: one base of all layers; mmBERT: Gemma 2's vocabulary.
_ETTIN = {"local_rope_theta": 160_000.0}
_MMBERT = _ETTIN | {"vocab_size": 256_000, "pad_token_id": 0}


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(BertConfig):
    """The shape of a ModernBERT; defaults are those of ModernBERT-base.

    Every `global_attn_every_n_layers`-th layer is global, from the first on; tokens of the others
    see `local_attention` // 2 tokens to either side. A model whose global layers are others has
    them in `layer_types`, a word for each layer.

    Files name the two kinds of layers and the bases of their rotary positions in two ways, with
    `layer_types` and `rope_parameters` or as the fields are called here. Both are read, and
    written.
    """

    MODEL_TYPE: ClassVar[str] = "modernbert"
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": (),
        "masked-lm": ("prediction_head", "mlm_head"),
        "sequence": ("prediction_head", "sequence_head"),
        "tokens": ("prediction_head", "token_head"),
        "spans": ("prediction_head", "span_head"),
        "choice": ("prediction_head", "choice_head"),
    }
    THEIR_NAMES: ClassVar[Mapping[str, str]] = {
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "embedding_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
    }
    NOT_IN_FILE: ClassVar[tuple[str, ...]] = ("type_vocab_size", "attention_window")
    ONLY_VALUES: ClassVar[Mapping[str, Any]] = {}
    DROPOUT_RATES: ClassVar[tuple[str, ...]] = (*BertConfig.DROPOUT_RATES, "mlp_dropout")
    SEGMENTS_ARE_TYPES: ClassVar[bool] = False
    LEARNED_POSITIONS: ClassVar[bool] = False
    NORMALIZES_FIRST: ClassVar[bool] = True
    # Source: Warner et al. 2024, table 4; Weller et al. 2025, table 1; Marone et al. 2025.
    # Before base, the sizes of Turc et al. 2019 with base's share of inner features, 3/2.
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": _shape(2, 128, 192, 2),
        "mini": _shape(4, 256, 384, 4),
        "small": _shape(4, 512, 768, 8),
        "medium": _shape(8, 512, 768, 8),
        "base": _shape(22, 768, 1152, 12),
        "large": _shape(28, 1024, 2624, 16),
        "ettin-17m": _shape(7, 256, 384, 4, **_ETTIN),
        "ettin-32m": _shape(10, 384, 576, 6, **_ETTIN),
        "ettin-68m": _shape(19, 512, 768, 8, **_ETTIN),
        "ettin-150m": _shape(22, 768, 1152, 12, **_ETTIN),
        "ettin-400m": _shape(28, 1024, 2624, 16, **_ETTIN),
        "ettin-1b": _shape(28, 1792, 3840, 28, **_ETTIN),
        "mmbert-small": _shape(22, 384, 1152, 6, **_MMBERT),
        "mmbert-base": _shape(22, 768, 1152, 12, **_MMBERT),
    }

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float | None = 0.0
    max_position_embeddings: int = 8192
    type_vocab_size: int = 0
    initializer_cutoff_factor: float | None = 2.0
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 50283
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    cls_token_id: int | None = None
    sep_token_id: int | None = None
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    decoder_bias: bool = True
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    layer_types: tuple[str, ...] | None = None
    global_rope_theta: float = 160_000.0
    local_rope_theta: float | None = 10_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("global_attn_every_n_layers", "local_attention"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"{name}={value!r} must be a whole number of at least 1")
        if self.local_attention < 2:
            raise UserError(
                f"local_attention={self.local_attention} must be at least 2: a token sees half as"
                " many to either side"
            )
        for name in ("global_rope_theta", "local_rope_theta", "initializer_cutoff_factor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name}={value!r} must be above 0")
        for name, choices in (
            ("classifier_pooling", POOLINGS),
            ("classifier_activation", HIDDEN_ACTIVATIONS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}"
                )
        if self.head_size % 2:
            raise UserError(
                f"hidden_size={self.hidden_size} and num_attention_heads="
                f"{self.num_attention_heads} make heads of {self.head_size}; rotary positions turn"
                " pairs of numbers, so that it must be even"
            )
        if self.layer_types is not None:
            self._check_layer_types(self.layer_types)

    def _check_layer_types(self, layer_types: tuple[str, ...]) -> None:
        unknown = sorted({str(kind) for kind in layer_types} - {GLOBAL, LOCAL})
        if unknown:
            raise UserError(
                f"layer_types has {', '.join(unknown)}; bertjax computes {GLOBAL} and {LOCAL}"
            )
        if len(layer_types) != self.num_hidden_layers:
            raise UserError(
                f"layer_types names {len(layer_types)} layers, and num_hidden_layers="
                f"{self.num_hidden_layers}"
            )

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """Source: `transformers.ModernBertConfig`."""
        if self.layer_types is not None:
            return tuple(kind == LOCAL for kind in self.layer_types)
        return _every(self.global_attn_every_n_layers, self.num_hidden_layers)

    @property
    def window(self) -> int | None:
        """Source: `ModernBertConfig.sliding_window`; `sliding_window_bidirectional_overlay`."""
        return self.local_attention // 2 if any(self.local_layers) else None

    @property
    def rotary_bases(self) -> tuple[float, float]:
        """Without one of their own, local layers turn as the global ones."""
        local = self.local_rope_theta
        return self.global_rope_theta, self.global_rope_theta if local is None else local

    @property
    def pools_mean(self) -> bool:
        """Source: `ModernBertForSequenceClassification`."""
        return self.classifier_pooling == "mean"

    @property
    def initializer_cutoff(self) -> float:
        """Source: `ModernBertPreTrainedModel._init_weights`, as the two that follow."""
        return 3.0 if self.initializer_cutoff_factor is None else self.initializer_cutoff_factor

    @property
    def output_initializer_range(self) -> float:
        """So many layers are added up."""
        return self.initializer_range / (2 * self.num_hidden_layers) ** 0.5

    @property
    def classifier_initializer_range(self) -> float:
        """The logits of a new classifier are of the size of its inputs."""
        return self.hidden_size**-0.5

    def dropout_field(self, part: str) -> str | None:
        """Source: `ModernBertForQuestionAnswering`, too."""
        return "classifier_dropout" if part == "span_head" else super().dropout_field(part)

    def with_layers(self, number: int) -> "ModernBertConfig":
        """The kinds of the lowest layers stay as they are."""
        kinds = None if self.layer_types is None else self.layer_types[:number]
        return dataclasses.replace(self, num_hidden_layers=number, layer_types=kinds)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModernBertConfig":
        """Reads a `config.json`, with the kinds of layers and their bases in either spelling.

        Raises:
            UserError: as `BertConfig.from_dict`, or the two spellings contradict each other.
        """
        values = {**values, **_read_bases(values)}
        if values.get("local_rope_theta", 0.0) is None:
            values["local_rope_theta"] = values.get("global_rope_theta", cls.global_rope_theta)
        kinds = values.pop("layer_types", None)
        config = super().from_dict(values)
        if kinds is None:
            return config
        if not isinstance(kinds, list | tuple):
            raise UserError(f"layer_types={kinds!r} must be a list, a word for each layer")
        config._check_layer_types(kinds)
        return config._of_kinds(tuple(kinds), said="global_attn_every_n_layers" in values)

    def _of_kinds(self, kinds: tuple[str, ...], *, said: bool) -> "ModernBertConfig":
        """Returns the config with these kinds of layers; `said`: the file has a step, too."""
        local = tuple(kind == LOCAL for kind in kinds)
        if local == self.local_layers:
            return self
        if said:
            at = [layer for layer, own in enumerate(self.local_layers) if own != local[layer]]
            raise UserError(
                "layer_types and global_attn_every_n_layers="
                f"{self.global_attn_every_n_layers} contradict each other, at layer {at[0]} first;"
                " delete the one that is wrong"
            )
        steps = range(1, len(kinds) + 1)
        step = next((step for step in steps if _every(step, len(kinds)) == local), None)
        if step is None:
            return dataclasses.replace(self, layer_types=kinds)
        return dataclasses.replace(self, global_attn_every_n_layers=step)

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of a `config.json`, in both spellings."""
        values = super().to_dict()
        bases = zip((GLOBAL, LOCAL), self.rotary_bases, strict=True)
        values["layer_types"] = [LOCAL if local else GLOBAL for local in self.local_layers]
        values["rope_parameters"] = {
            kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases
        }
        values["local_rope_theta"] = self.rotary_bases[1]
        if self.layer_types is not None:  # no step says it
            del values["global_attn_every_n_layers"]
        return values


_ONE_TYPE = "bertjax computes rotary positions of rope_type='default' only"


def _every(step: int, layers: int) -> tuple[bool, ...]:
    return tuple(layer % step != 0 for layer in range(layers))


def _read_bases(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Reads the bases in the newer spelling, as fields of the older one.

    Args:
        values: of the file, which may have both.
    """
    given = values.get("rope_parameters") or {}
    if values.get("rope_scaling") is not None:
        raise UserError(f"rope_scaling={values['rope_scaling']!r} is not supported: {_ONE_TYPE}")
    if not isinstance(given, Mapping):
        raise UserError(f"rope_parameters={given!r} must map {GLOBAL} and {LOCAL} to objects")
    bases: dict[str, float | None] = {}
    for kind, name in ((GLOBAL, "global_rope_theta"), (LOCAL, "local_rope_theta")):
        own = given.get(kind) or {}
        if not isinstance(own, Mapping):
            raise UserError(f"rope_parameters.{kind}={own!r} must be an object")
        if own.get("rope_type", "default") != "default" or own.keys() - {"rope_type", "rope_theta"}:
            raise UserError(f"rope_parameters.{kind}={dict(own)} is not supported: {_ONE_TYPE}")
        if "rope_theta" not in own:
            continue
        bases[name] = base = own["rope_theta"]
        if values.get(name, base) not in (base, None):
            raise UserError(
                f"rope_parameters.{kind}.rope_theta={base} and {name}={values[name]} contradict"
                " each other; delete the one that is wrong"
            )
    return bases


def tensor_rows(config: ModernBertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    layer, norm_bias = f"{BODY}.layers.{{layer}}", config.norm_bias
    attention, mlp = f"{LAYERS_PATH}/attention", LAYERS_PATH

    def norm(theirs: str, ours: str, first_layer: int = 0) -> list[Row]:
        rows = layer_norm(theirs, ours, bias=norm_bias)
        return [dataclasses.replace(row, first_layer=first_layer) for row in rows]

    def side_by_side(theirs: str, ours: list[str], outputs: str, *, bias: bool) -> list[Row]:
        rows = dense(theirs, "", "D", outputs, bias=bias)
        return [
            dataclasses.replace(row, ours="|".join(f"{path}{row.ours}" for path in ours))
            for row in rows
        ]

    return [
        Row(
            f"{BODY}.embeddings.tok_embeddings.weight",
            "bert/embeddings/word_embeddings",
            "V D",
            "VD",
        ),
        *norm(f"{BODY}.embeddings.norm", "bert/embeddings/layer_norm"),
        # The first layer's input is normalized already, by the embeddings.
        *norm(f"{layer}.attn_norm", f"{LAYERS_PATH}/attention_layer_norm", first_layer=1),
        *side_by_side(
            f"{layer}.attn.Wqkv",
            [f"{attention}/{name}" for name in ("query", "key", "value")],
            "NH",
            bias=config.attention_bias,
        ),
        *dense(f"{layer}.attn.Wo", f"{attention}/output", "NH", "D", bias=config.attention_bias),
        *norm(f"{layer}.mlp_norm", f"{LAYERS_PATH}/output_layer_norm"),
        *side_by_side(
            f"{layer}.mlp.Wi", [f"{mlp}/intermediate", f"{mlp}/gate"], "F", bias=config.mlp_bias
        ),
        *dense(f"{layer}.mlp.Wo", f"{mlp}/output", "F", "D", bias=config.mlp_bias),
        *norm(f"{BODY}.final_norm", "bert/encoder/final_layer_norm"),
        *dense("head.dense", "prediction_head/dense", "D", "d", bias=config.classifier_bias),
        *norm("head.norm", "prediction_head/layer_norm"),
        *[Row("decoder.bias", "mlm_head/bias", "V", "V")] * config.decoder_bias,
        *classifier("classifier", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("classifier", "span_head/dense", "D", "2"),
        *classifier("classifier", "choice_head", "1"),
    ]

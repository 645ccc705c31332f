"""ELECTRA: BERT without a pooler, tables narrower than the hidden states, and a discriminator.

Source: Clark et al. 2020; `transformers` modeling_electra.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from bertjax.config import HIDDEN_ACTIVATIONS, BertConfig, HeadTransform, Kind
from bertjax.families.tensors import (
    Row,
    bert_embeddings,
    bert_layers,
    classifier,
    dense,
    layer_norm,
)
from bertjax.program.errors import UserError

PREFIX, BODY = "Electra", "electra"
TIED = {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"}


@dataclasses.dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """The shape of an ELECTRA, generator or discriminator; defaults are those of electra-small.

    The tables are `embedding_size` wide, and a linear layer makes hidden states of their sum where
    that is not `hidden_size`. `summary_activation` and `summary_last_dropout` belong to the head of
    multiple choice.
    """

    MODEL_TYPE: ClassVar[str] = "electra"
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": (),
        "masked-lm": ("mlm_head",),
        "replaced-tokens": ("replaced_head",),
        "sequence": ("sequence_head",),
        "tokens": ("token_head",),
        "spans": ("span_head",),
        "choice": ("choice_head",),
    }
    SUFFIXES: ClassVar[Mapping[Kind, str]] = {"replaced-tokens": "ForPreTraining"}
    ONLY_VALUES: ClassVar[Mapping[str, Any]] = {
        **BertConfig.ONLY_VALUES,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_first_dropout": 0,
    }
    DROPOUT_RATES: ClassVar[tuple[str, ...]] = (*BertConfig.DROPOUT_RATES, "summary_last_dropout")
    # Source: Clark et al. 2020, table 6 (small, base, large); the others are BERT's.
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **BertConfig.SIZES,
        "small": {**BertConfig.SIZES["mini"], "num_hidden_layers": 12},
        "base": {**BertConfig.SIZES["base"], "embedding_size": 768},
        "large": {**BertConfig.SIZES["large"], "embedding_size": 1024},
    }

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    summary_activation: str = "gelu"
    summary_last_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.summary_activation not in (*HIDDEN_ACTIVATIONS, "tanh"):
            raise UserError(
                f"summary_activation={self.summary_activation!r} is not one of"
                f" {', '.join(HIDDEN_ACTIVATIONS)}, tanh"
            )

    def shape_generator(self, size: float) -> "ElectraConfig":
        """Returns the config of a generator for this discriminator.

        Args:
            size: its share of width, heads and feed-forward part, in whole heads.

        Source: Clark et al. 2020, table 6; google-research/electra `get_generator_config`.
        """
        heads = max(1, round(self.num_attention_heads * size))
        return dataclasses.replace(
            self,
            hidden_size=heads * self.head_size,
            num_attention_heads=heads,
            intermediate_size=max(
                1, round(self.intermediate_size * heads / self.num_attention_heads)
            ),
        )

    @property
    def mlm_activation(self) -> str:
        """Source: `ElectraGeneratorPredictions`, whatever `hidden_act` is."""
        return "gelu"

    def dropout_field(self, part: str) -> str | None:
        """Source: `ElectraSequenceSummary`."""
        return "summary_last_dropout" if part == "choice_head" else super().dropout_field(part)

    def head_transform(self, part: str) -> HeadTransform | None:
        """Source: `ElectraClassificationHead` and the heads beside it."""
        return {
            "replaced_head": HeadTransform(self.hidden_act, drops_before=False),
            "sequence_head": HeadTransform("gelu"),
            "choice_head": HeadTransform(self.summary_activation, drops_before=False),
        }.get(part)


def tensor_rows(config: BertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    projection = dense("electra.embeddings_project", "bert/embeddings/projection", "E", "D")
    return [
        *bert_embeddings(BODY, "E"),
        *(projection if config.projects_embeddings else []),
        *bert_layers(BODY),
        *dense("generator_predictions.dense", "mlm_head/dense", "D", "E"),
        *layer_norm("generator_predictions.LayerNorm", "mlm_head/layer_norm", "E"),
        Row("generator_lm_head.bias", "mlm_head/bias", "V", "V"),
        *dense("discriminator_predictions.dense", "replaced_head/transform", "D", "d"),
        *dense("discriminator_predictions.dense_prediction", "replaced_head/dense", "D", "1"),
        *dense("classifier.dense", "sequence_head/transform", "D", "d"),
        *classifier("classifier.out_proj", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("qa_outputs", "span_head/dense", "D", "2"),
        *dense("sequence_summary.summary", "choice_head/transform", "D", "d"),
        *classifier("classifier", "choice_head", "1"),
    ]

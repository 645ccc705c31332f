"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT's block, positions from 2 on, no next sentence.

Source: Liu et al. 2019; Conneau et al. 2020; Martin et al. 2020; `transformers`
modeling_roberta.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from bertjax.config import BertConfig, HeadTransform, Kind
from bertjax.families.tensors import (
    Row,
    bert_embeddings,
    bert_layers,
    classifier,
    dense,
    layer_norm,
)

BODY = "roberta"  # the tensors of all three are called so
TIED = {
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """The shape of a RoBERTa; defaults are those of roberta-base.

    The table of positions begins with rows for the padding, so that a model of 514 rows reads texts
    of 512 tokens: fairseq counts positions from `pad_token_id` + 1. The second text of a pair has
    no type of its own.
    """

    MODEL_TYPE: ClassVar[str] = "roberta"
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": ("pooler",),
        "masked-lm": ("mlm_head",),
        "sequence": ("sequence_head",),
        "tokens": ("token_head",),
        "spans": ("span_head",),
        "choice": ("pooler", "choice_head"),
    }
    SEGMENTS_ARE_TYPES: ClassVar[bool] = False
    POSITIONS_SKIP_PADDING: ClassVar[bool] = True  # fairseq `make_positions`

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2

    @property
    def first_position(self) -> int:
        """Source: fairseq `make_positions`."""
        return self.pad_token_id + 1

    @property
    def mlm_activation(self) -> str:
        """Source: `RobertaLMHead`, whatever `hidden_act` is."""
        return "gelu"

    def dropout_field(self, part: str) -> str | None:
        """Source: `RobertaForMultipleChoice`, whose dropout is the body's."""
        return "hidden_dropout_prob" if part == "choice_head" else super().dropout_field(part)

    def head_transform(self, part: str) -> HeadTransform | None:
        """Source: `RobertaClassificationHead`."""
        return HeadTransform("tanh") if part == "sequence_head" else None


@dataclasses.dataclass(frozen=True)
class XlmRobertaConfig(RobertaConfig):
    """The shape of an XLM-RoBERTa: RoBERTa's, with a vocabulary of 100 languages."""

    MODEL_TYPE: ClassVar[str] = "xlm-roberta"

    vocab_size: int = 250002


@dataclasses.dataclass(frozen=True)
class CamembertConfig(RobertaConfig):
    """The shape of a CamemBERT: RoBERTa's, with a French vocabulary."""

    MODEL_TYPE: ClassVar[str] = "camembert"

    vocab_size: int = 32005


def tensor_rows(config: BertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    return [
        *bert_embeddings(BODY),
        *bert_layers(BODY),
        *dense("roberta.pooler.dense", "bert/pooler/dense", "D", "d"),
        *dense("lm_head.dense", "mlm_head/dense", "D", "d"),
        *layer_norm("lm_head.layer_norm", "mlm_head/layer_norm"),
        Row("lm_head.bias", "mlm_head/bias", "V", "V"),
        *dense("classifier.dense", "sequence_head/transform", "D", "d"),
        *classifier("classifier.out_proj", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("qa_outputs", "span_head/dense", "D", "2"),
        *classifier("classifier", "choice_head", "1"),
    ]

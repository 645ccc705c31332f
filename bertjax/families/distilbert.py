"""DistilBERT: BERT without token types and pooler, and names of its own.

Source: Sanh et al. 2019; `transformers` modeling_distilbert.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from bertjax.config import BertConfig, HeadTransform, Kind
from bertjax.families.tensors import LAYERS_PATH, Row, classifier, dense, layer_norm

PREFIX, BODY = "DistilBert", "distilbert"
TIED = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}


@dataclasses.dataclass(frozen=True)
class DistilBertConfig(BertConfig):
    """The shape of a DistilBERT; defaults are those of distilbert-base-uncased.

    Three fields are the family's own: `seq_classif_dropout` and `qa_dropout` are the dropout of
    heads, and with `sinusoidal_pos_embds` a new model's table of positions is waves, which training
    then changes.
    """

    MODEL_TYPE: ClassVar[str] = "distilbert"
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": (),
        "masked-lm": ("mlm_head",),
        "sequence": ("sequence_head",),
        "tokens": ("token_head",),
        "spans": ("span_head",),
        "choice": ("choice_head",),
    }
    THEIR_NAMES: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    NOT_IN_FILE: ClassVar[tuple[str, ...]] = (
        "type_vocab_size",
        "layer_norm_eps",
        "classifier_dropout",
    )
    DROPOUT_RATES: ClassVar[tuple[str, ...]] = (
        *BertConfig.DROPOUT_RATES,
        "seq_classif_dropout",
        "qa_dropout",
    )
    SEGMENTS_ARE_TYPES: ClassVar[bool] = False
    DROPS_ATTENTION_OUTPUT: ClassVar[bool] = False

    num_hidden_layers: int = 6
    type_vocab_size: int = 0
    sinusoidal_pos_embds: bool = False
    seq_classif_dropout: float = 0.2
    qa_dropout: float = 0.1

    @property
    def sinusoidal_positions(self) -> bool:
        """Source: `DistilBertPreTrainedModel._init_weights`."""
        return self.sinusoidal_pos_embds

    def dropout_field(self, part: str) -> str | None:
        """Source: `DistilBertForSequenceClassification` and the classes beside it."""
        return {
            "sequence_head": "seq_classif_dropout",
            "choice_head": "seq_classif_dropout",
            "token_head": "hidden_dropout_prob",
            "span_head": "qa_dropout",
        }.get(part)

    def head_transform(self, part: str) -> HeadTransform | None:
        """Source: as `dropout_field`."""
        if part in ("sequence_head", "choice_head"):
            return HeadTransform("relu", drops_before=False)
        return None


def tensor_rows(config: BertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    embeddings, layer = f"{BODY}.embeddings", f"{BODY}.transformer.layer.{{layer}}"
    ours = "bert/embeddings"
    return [
        Row(f"{embeddings}.word_embeddings.weight", f"{ours}/word_embeddings", "V D", "VD"),
        Row(f"{embeddings}.position_embeddings.weight", f"{ours}/position_embeddings", "M D", "MD"),
        *layer_norm(f"{embeddings}.LayerNorm", f"{ours}/layer_norm"),
        *dense(f"{layer}.attention.q_lin", f"{LAYERS_PATH}/attention/query", "D", "NH"),
        *dense(f"{layer}.attention.k_lin", f"{LAYERS_PATH}/attention/key", "D", "NH"),
        *dense(f"{layer}.attention.v_lin", f"{LAYERS_PATH}/attention/value", "D", "NH"),
        *dense(f"{layer}.attention.out_lin", f"{LAYERS_PATH}/attention/output", "NH", "D"),
        *layer_norm(f"{layer}.sa_layer_norm", f"{LAYERS_PATH}/attention_layer_norm"),
        *dense(f"{layer}.ffn.lin1", f"{LAYERS_PATH}/intermediate", "D", "F"),
        *dense(f"{layer}.ffn.lin2", f"{LAYERS_PATH}/output", "F", "D"),
        *layer_norm(f"{layer}.output_layer_norm", f"{LAYERS_PATH}/output_layer_norm"),
        *dense("vocab_transform", "mlm_head/dense", "D", "d"),
        *layer_norm("vocab_layer_norm", "mlm_head/layer_norm"),
        Row("vocab_projector.bias", "mlm_head/bias", "V", "V"),
        *dense("pre_classifier", "sequence_head/transform", "D", "d"),
        *classifier("classifier", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("qa_outputs", "span_head/dense", "D", "2"),
        *dense("pre_classifier", "choice_head/transform", "D", "d"),
        *classifier("classifier", "choice_head", "1"),
    ]

"""ALBERT: one layer's parameters for all layers, narrow tables, and the order of sentences.

Source: Lan et al. 2020; `transformers` modeling_albert.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from bertjax.config import BertConfig, Kind
from bertjax.families.tensors import (
    LAYERS_PATH,
    Row,
    bert_embeddings,
    classifier,
    dense,
    layer_norm,
)

PREFIX, BODY = "Albert", "albert"
TIED = {
    "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
}


@dataclasses.dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """The shape of an ALBERT; defaults are those of albert-base-v2.

    Every published one has a single group of a single layer, which is all that is computed. The
    linear layer from `embedding_size` to `hidden_size` is there even if they are equal. The second
    head of pretraining tells whether two texts are in their order or swapped.
    """

    MODEL_TYPE: ClassVar[str] = "albert"
    PARTS: ClassVar[Mapping[Kind, tuple[str, ...]]] = {
        "body": ("pooler",),
        "sentence-order": ("pooler", "mlm_head", "order_head"),
        "masked-lm": ("mlm_head",),
        "sequence": ("pooler", "sequence_head"),
        "tokens": ("token_head",),
        "spans": ("span_head",),
        "choice": ("pooler", "choice_head"),
    }
    SUFFIXES: ClassVar[Mapping[Kind, str]] = {"sentence-order": "ForPreTraining"}
    THEIR_NAMES: ClassVar[Mapping[str, str]] = {"classifier_dropout": "classifier_dropout_prob"}
    ONLY_VALUES: ClassVar[Mapping[str, Any]] = {
        **BertConfig.ONLY_VALUES,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    }
    SHARES_LAYERS: ClassVar[bool] = True

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float | None = 0.1
    bos_token_id: int | None = 2
    eos_token_id: int | None = 3

    @property
    def projects_embeddings(self) -> bool:
        """Source: `AlbertTransformer`."""
        return True

    def dropout_field(self, part: str) -> str | None:
        """Source: `AlbertSOPHead`."""
        return "classifier_dropout" if part == "order_head" else super().dropout_field(part)


def tensor_rows(config: BertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    encoder = f"{BODY}.encoder"
    # The number is that of a group; what of a group is shared is its only layer.
    layer = f"{encoder}.albert_layer_groups.{{layer}}.albert_layers.0"
    return [
        *bert_embeddings(BODY, "E"),
        *dense(f"{encoder}.embedding_hidden_mapping_in", "bert/embeddings/projection", "E", "D"),
        *dense(f"{layer}.attention.query", f"{LAYERS_PATH}/attention/query", "D", "NH"),
        *dense(f"{layer}.attention.key", f"{LAYERS_PATH}/attention/key", "D", "NH"),
        *dense(f"{layer}.attention.value", f"{LAYERS_PATH}/attention/value", "D", "NH"),
        *dense(f"{layer}.attention.dense", f"{LAYERS_PATH}/attention/output", "NH", "D"),
        *layer_norm(f"{layer}.attention.LayerNorm", f"{LAYERS_PATH}/attention_layer_norm"),
        *dense(f"{layer}.ffn", f"{LAYERS_PATH}/intermediate", "D", "F"),
        *dense(f"{layer}.ffn_output", f"{LAYERS_PATH}/output", "F", "D"),
        *layer_norm(f"{layer}.full_layer_layer_norm", f"{LAYERS_PATH}/output_layer_norm"),
        *dense("albert.pooler", "bert/pooler/dense", "D", "d"),
        *dense("predictions.dense", "mlm_head/dense", "D", "E"),
        *layer_norm("predictions.LayerNorm", "mlm_head/layer_norm", "E"),
        Row("predictions.bias", "mlm_head/bias", "V", "V"),
        *dense("sop_classifier.classifier", "order_head/dense", "D", "2"),
        *classifier("classifier", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("qa_outputs", "span_head/dense", "D", "2"),
        *classifier("classifier", "choice_head", "1"),
    ]

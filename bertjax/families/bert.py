"""BERT itself: the names of its tensors.

Source: Devlin et al. 2019; `transformers` modeling_bert.py.
"""

from bertjax.config import BertConfig
from bertjax.families.tensors import (
    Row,
    bert_embeddings,
    bert_layers,
    classifier,
    dense,
    layer_norm,
)

PREFIX, BODY = "Bert", "bert"
# Copies that some checkpoints carry of a tensor in the table; they must be equal to it.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def tensor_rows(config: BertConfig) -> list[Row]:
    """Returns the table of tensors, of every part."""
    return [
        *bert_embeddings(BODY),
        *bert_layers(BODY),
        *dense("bert.pooler.dense", "bert/pooler/dense", "D", "d"),
        *dense("cls.predictions.transform.dense", "mlm_head/dense", "D", "d"),
        *layer_norm("cls.predictions.transform.LayerNorm", "mlm_head/layer_norm"),
        Row("cls.predictions.bias", "mlm_head/bias", "V", "V"),
        *dense("cls.seq_relationship", "nsp_head/dense", "D", "2"),
        *classifier("classifier", "sequence_head", "C"),
        *classifier("classifier", "token_head", "C"),
        *dense("qa_outputs", "span_head/dense", "D", "2"),
        *classifier("classifier", "choice_head", "1"),
    ]

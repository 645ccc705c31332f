"""A classifier that is wired by hand: one head, which looks for a colour, decides the class."""

import numpy as np

from bertjax.config import BertConfig
from bertjax.loaded import Model
from bertjax.model.bert import BertForSequenceClassification
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.parity.random_models import draw_parameters

WORDS = ("red", "blue", *"abcdefghijk")
# Where the head is, of L=3 layers of N=4 heads.
LAYER, HEAD = 1, 2
CONFIG = BertConfig(
    vocab_size=len(BERT_TOKENS) + len(WORDS),
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=37,
    max_position_embeddings=13,
    id2label=("blue", "red"),
    problem_type="single_label_classification",
)
MODEL = BertForSequenceClassification(CONFIG)


def make_wired_model() -> Model:
    """Class 1 where the text says red, class 0 where it says blue; else neither.

    Dimension 0 of a token's embedding says that it is red, dimension 1 that it is blue. The head
    looks for either, and brings the difference to dimension 2 of [CLS], which the classifier reads.
    All other heads do next to nothing.
    """
    tokenizer = Tokenizer(build_wordpiece([*BERT_TOKENS, *WORDS], True, None))
    params = draw_parameters(CONFIG, type(MODEL).__name__, spread=0.02)
    embeddings, layers = params["bert"]["embeddings"], params["bert"]["encoder"]["layers"]
    words = embeddings["word_embeddings"]
    words[:] = np.random.default_rng(0).normal(size=words.shape)
    words[:, :3] = 0
    words[len(BERT_TOKENS), 0] = words[len(BERT_TOKENS) + 1, 1] = 4
    attention = layers["attention"]
    query, key, value, output = (
        attention[name]["kernel"][LAYER] for name in ("query", "key", "value", "output")
    )
    for kernel in (query, key, value):
        kernel[:, HEAD] = 0
    output[HEAD] = 0
    attention["query"]["bias"][LAYER, HEAD, 0] = 5
    key[:2, HEAD, 0] = 1
    value[:2, HEAD, 0] = 1, -1
    output[HEAD, 0, 2] = 0.3
    params["bert"]["pooler"]["dense"]["kernel"][2, 0] = 1
    params["sequence_head"]["dense"]["kernel"][0] = -3, 3
    return Model(MODEL, params, tokenizer)

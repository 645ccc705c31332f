"""A tiny body with attention that is not flat, and texts for it."""

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.architectures import BODY, classes_of
from bertjax.families.registry import FAMILIES
from bertjax.loaded import Model
from bertjax.model.bert import BertModel
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.parity.random_models import draw_parameters

WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "big", "saw", "un")
VOCABULARY = (*BERT_TOKENS, *WORDS, "##s", "##ly", ".", ",", "-")


def make_tokenizer():
    return Tokenizer(build_wordpiece(VOCABULARY, lowercase=True, strip_accents=None))


def make_body(positions=48, family="bert", **fields):
    """N=4, H=8, F=37, L=2; heads that attend to few tokens, differently from row to row."""
    config = FAMILIES[family].config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=positions,
        pad_token_id=0,
        **fields,
    )
    model = BertModel(config, pooling=False)
    params = draw_parameters(config, classes_of(config)[BODY].name, spread=0.02)["bert"]
    params.pop("pooler", None)
    attention = params["encoder"]["layers"]["attention"]
    for name in ("query", "key"):
        attention[name]["kernel"] *= 10
    return Model(model, jax.tree.map(jnp.asarray, params), make_tokenizer())


def make_texts(body, lengths, seed=0):
    """Texts of so many words, some of two tokens, some with punctuation; the last is a pair."""
    rng = np.random.default_rng(seed)
    choices = (*WORDS, "cats", "unly", ".", ",")
    texts = [" ".join(rng.choice(choices, length)) for length in lengths]
    texts[-1] = (texts[-1], "the dog saw the cat .")
    return encode_texts(body.tokenizer, texts, body.config.max_position_embeddings)

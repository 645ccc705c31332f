"""Directories of tiny models with random weights, of any class."""

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.parity.random_models import draw_parameters

WORDS = ["the", "dog", "cat", "sees", "hears", "a", "bird", "red", "old", ".", "good", "bad"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def save(folder, architecture, **fields):
    config = BertConfig(
        vocab_size=len(TOKENS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=29, max_position_embeddings=12, **fields,
    )  # fmt: skip
    params = draw_parameters(config, architecture)
    Tokenizer(build_wordpiece(TOKENS, True, None)).save(folder / "tokenizer")
    save_model_directory(folder / "model", config, params, folder / "tokenizer", architecture)
    return folder / "model"

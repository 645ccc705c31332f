"""Tiny models of any class with random weights, in directories and in memory."""

import functools
import tempfile
from pathlib import Path

import numpy as np

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import load
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.analysis.saved import TOKENS, draw_params

LETTERS = [f"{before}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for before in ("", "##")]
VOCABULARY = [*TOKENS, ",", "?", *(letter for letter in LETTERS if letter not in TOKENS)]

LABELS = {
    "BertForSequenceClassification": ("sad", "so so", "happy"),
    "BertForTokenClassification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}


def save_tiny(folder, architecture, **fields):
    """A directory of a tiny model: D=24, L=2, N=3, 32 positions, labels where its class has any."""
    if architecture in LABELS:
        fields.setdefault("id2label", LABELS[architecture])
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=29, max_position_embeddings=32, **fields,
    )  # fmt: skip
    params = draw_params(architecture, config)
    rng = np.random.default_rng(2)
    params = _spread(params, rng)
    Tokenizer(build_wordpiece(VOCABULARY, True, None)).save(folder / "tokenizer")
    save_model_directory(folder / "model", config, params, folder / "tokenizer", architecture)
    return folder / "model"


def _spread(params, rng):
    """The parameters, with biases that are not zero and heads that tell texts apart."""
    if isinstance(params, dict):
        return {name: _spread(value, rng) for name, value in params.items()}
    return np.asarray(params) + 0.1 * rng.normal(size=params.shape).astype(np.float32)


@functools.cache
def tiny_model(architecture):
    """A tiny model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return load(save_tiny(Path(folder), architecture))

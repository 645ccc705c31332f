"""Tiny models of any class with random weights, in directories and in memory."""

import functools
import json
import tempfile
from pathlib import Path

from bertjax.architectures import ARCHITECTURES
from bertjax.exporting.export import choose_vectors, write_beside, write_onnx
from bertjax.families.registry import FAMILIES
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import load
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.analysis.saved import TOKENS
from tests.parity.random_models import draw_parameters

LETTERS = [f"{before}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for before in ("", "##")]
TEMPLATE = ["this", "example", "is"]
VOCABULARY = [*TOKENS, *TEMPLATE, ",", "?", *(letter for letter in LETTERS if letter not in TOKENS)]

LABELS = {
    "BertForSequenceClassification": ("sad", "so so", "happy"),
    "BertForTokenClassification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
MULTI_LABEL = {
    "id2label": ("art", "war", "sport"),
    "problem_type": "multi_label_classification",
}
# A server's models by their names: class, and what its config has beside. As few numbers of labels
# as tell the heads apart: each is another program to compile.
HEADS = {
    "vectors": ("BertModel", {}),
    "masks": ("BertForPreTraining", {}),
    "classes": ("BertForSequenceClassification", {}),
    "topics": ("BertForSequenceClassification", MULTI_LABEL),
    "stars": (
        "BertForSequenceClassification", {"id2label": ("stars",), "problem_type": "regression"},
    ),
    "relevance": ("BertForSequenceClassification", {"id2label": ("relevant",)}),
    "entailment": (
        "BertForSequenceClassification", {"id2label": ("contradiction", "neutral", "entailment")},
    ),
    "entities": ("BertForTokenClassification", {}),
    "speech": (
        "BertForTokenClassification", {"id2label": ("NOUN", "VERB", "DET", "ADJ", "PUNCT")},
    ),
    "answers": ("BertForQuestionAnswering", {}),
    "next": ("BertForNextSentencePrediction", {}),
    "choices": ("BertForMultipleChoice", {}),
}  # fmt: skip


def save_tiny(folder, architecture, **fields):
    """A directory of a tiny model: D=24, L=2, N=3, 32 positions, labels where its class has any."""
    if architecture in LABELS:
        fields.setdefault("id2label", LABELS[architecture])
    config = FAMILIES[ARCHITECTURES[architecture].family].config(
        vocab_size=len(VOCABULARY), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=29, **{"max_position_embeddings": 32, **fields},
    )  # fmt: skip
    params = draw_parameters(config, architecture, spread=0.1)
    Tokenizer(build_wordpiece(VOCABULARY, True, None)).save(folder / "tokenizer")
    save_model_directory(folder / "model", config, params, folder / "tokenizer", architecture)
    return folder / "model"


@functools.cache
def tiny_model(architecture):
    """A tiny model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return load(save_tiny(Path(folder), architecture))


def load_heads(folder, **fields):
    """The models of `HEADS`; `fields` of all their configs."""
    models = {}
    for name, (architecture, own) in HEADS.items():
        (folder / name).mkdir()
        directory = save_tiny(folder / name, architecture, **own, **fields)
        if name == "vectors":
            make_sentence_model(directory)
        models[name] = load(directory)
    return models


def export_quickly(model, folder):
    """The directory that `bertjax export` writes of a model, which nobody compares with it."""
    steps = choose_vectors(model)
    (folder / "onnx").mkdir(parents=True)
    write_beside(model, steps, folder)
    write_onnx(model, steps, folder)
    return folder


def make_sentence_model(directory):
    """What makes a directory one of sentence-transformers: the mean, scaled; and prompts."""
    (directory / "1_Pooling").mkdir()
    files = {
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "modules.json": [
            {"path": path, "type": f"sentence_transformers.models.{kind}"}
            for path, kind in (
                ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"),
            )
        ],
        "config_sentence_transformers.json": {"prompts": {"query": "the old ", "document": ""}},
    }  # fmt: skip
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))

"""`bertjax embed`: each text's vector is that of the text alone, however texts are packed."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from bertjax.interop.huggingface import load_model_directory
from bertjax.model.bert import BertModel
from bertjax.text.tokenizer import Tokenizer, build_wordpiece, load_tokenizer

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
TEXTS = ["this is it", "they are", "the the the the the", "of"]


@pytest.fixture(scope="module")
def hidden():
    """The hidden states of each text alone, [t, D]."""
    config, params, *_ = load_model_directory(TINY, "BertModel")
    variables = {"params": jax.tree.map(jnp.asarray, params["bert"])}
    tokenizer = load_tokenizer(TINY)
    apply = jax.jit(BertModel(config).apply)
    found = []
    for ids in tokenizer.encode_batch(TEXTS):
        framed = np.array([[tokenizer.cls_id, *ids, tokenizer.sep_id]])
        found.append(np.asarray(apply(variables, framed).hidden[0]))
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone(bertjax_command, tmp_path, hidden, pooling):
    stdin = "\n".join(TEXTS).encode()
    arguments = ("embed", "--model", TINY, "--pooling", pooling, "--output")
    code, _, err = bertjax_command(*arguments, tmp_path / "x.npy", stdin=stdin)
    assert (code, "4 vectors of 24 numbers" in err) == (0, True)
    expected = [each.mean(axis=0) if pooling == "mean" else each[0] for each in hidden]
    vectors = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-4)

    code, *_ = bertjax_command(*arguments, tmp_path / "x.parquet", "--normalize", stdin=stdin)
    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    assert table["text"] == TEXTS
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(table["embedding"], vectors / lengths, atol=1e-5)


def test_bfloat16_products_give_nearly_the_same_vectors(bertjax_command, tmp_path, hidden):
    stdin = "\n".join(TEXTS).encode()
    arguments = ("embed", "--model", TINY, "--dtype", "bfloat16", "--output", tmp_path / "x.npy")
    assert bertjax_command(*arguments, stdin=stdin)[0] == 0
    vectors, expected = np.load(tmp_path / "x.npy"), np.stack([each.mean(0) for each in hidden])
    assert vectors.dtype == np.float32
    far = np.linalg.norm(vectors - expected) / np.linalg.norm(expected)
    assert 1e-5 < far < 0.03  # narrow products, and no more than that


@pytest.mark.parametrize("name", ["-", "f.txt", "f.jsonl", "f.csv"])
def test_empty_text_keeps_its_row(bertjax_command, tmp_path, name):
    texts = ["they are", "", "of", "  "]
    lines = "\n".join(texts) + "\n"
    if name == "f.jsonl":
        lines = "".join(json.dumps({"text": text or None}) + "\n" for text in texts)
    if name == "f.csv":
        lines = "text,n\n" + "".join(f"{text},1\n" for text in texts)
    (tmp_path / name).write_text(lines)
    code, _, err = bertjax_command(
        "embed", "--model", TINY, "--output", tmp_path / "x.npy", "--input",
        "-" if name == "-" else tmp_path / name, stdin=lines.encode(),
    )  # fmt: skip
    assert (code, "2 of 4 texts are empty" in err) == (0, True)
    vectors = np.load(tmp_path / "x.npy")
    assert len(vectors) == 4
    np.testing.assert_allclose(vectors[1], vectors[3], atol=1e-5)
    config, params, *_ = load_model_directory(TINY, "BertModel")
    variables = {"params": jax.tree.map(jnp.asarray, params["bert"])}
    tokenizer = load_tokenizer(TINY)
    framed = np.array([[tokenizer.cls_id, tokenizer.sep_id]])
    hidden = np.asarray(jax.jit(BertModel(config).apply)(variables, framed).hidden[0])
    np.testing.assert_allclose(vectors[1], hidden.mean(axis=0), atol=1e-4)


def test_nothing_but_empty_lines_is_refused(bertjax_command, tmp_path):
    arguments = ("embed", "--model", TINY, "--output", tmp_path / "x.npy")
    assert "standard input: no text" in bertjax_command(*arguments, stdin=b"\n \n")[2]


def test_tokenizer_of_another_model_is_refused(bertjax_command, tmp_path):
    shutil.copytree(TINY, tmp_path / "model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(99))]
    Tokenizer(build_wordpiece(words, True, None)).save(tmp_path / "model")
    code, _, err = bertjax_command(
        "embed", "--model", tmp_path / "model", "--output", tmp_path / "x.npy", stdin=b"w98"
    )
    assert (code, (tmp_path / "x.npy").exists()) == (2, False)
    assert "its tokenizer has 104 tokens, more than the model's vocab_size=99" in err

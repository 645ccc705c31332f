"""`bertjax embed`: each text's vector is that of the text alone, however texts are packed."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from bertjax.interop.huggingface import load_model_directory
from bertjax.model.bert import BertModel
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece

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


# ------------------------------------------------------- directories of sentence-transformers

TYPES = "sentence_transformers.models."
# The definitions of sentence_transformers, for the hidden states [t, D] of one text.
POOLED = {
    "cls": lambda h: h[0],
    "max": lambda h: h.max(axis=0),
    "mean": lambda h: h.mean(axis=0),
    "mean_sqrt_len_tokens": lambda h: h.sum(axis=0) / np.sqrt(len(h)),
    "weightedmean": lambda h: np.average(h, axis=0, weights=np.arange(1, len(h) + 1)),
    "lasttoken": lambda h: h[-1],
}


def make_directory(folder, modules=("Transformer", "Pooling"), **files):
    """A directory of these modules; `files` are their configs, by module or by file."""
    body = folder / files.pop("body", "")
    shutil.copytree(TINY, body)
    listed = []
    for number, kind in enumerate(modules):
        path = f"{number}_{kind}" if number else str(body.relative_to(folder))
        name = kind if "." in kind else TYPES + kind
        listed.append({"idx": number, "name": str(number), "path": path, "type": name})
        config = files.pop(kind, None)
        if number:
            (folder / path).mkdir()
        if config is not None:
            (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def embed(bertjax_command, folder, *options, texts=TEXTS, output=None):
    output = output or folder.parent / "x.npy"
    code, _, err = bertjax_command(
        "embed", "--model", folder, "--output", output, *options, stdin="\n".join(texts).encode()
    )
    assert code == 0, err
    return np.load(output), err


def scaled(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


OLD = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens",
       "lasttoken"]  # fmt: skip


def test_every_pooling_of_the_directory_is_heeded(bertjax_command, tmp_path, hidden):
    states = [np.asarray(each) for each in hidden]
    expected = {mode: np.stack([make(each) for each in states]) for mode, make in POOLED.items()}
    old = {f"pooling_mode_{name}": True for name in OLD}
    folder = make_directory(tmp_path / "old", Pooling={"word_embedding_dimension": 24, **old})
    vectors, err = embed(bertjax_command, folder)
    assert "and weightedmean and lasttoken of the tokens; texts of up to 17 tokens" in err
    for found, mode in zip(np.split(vectors, 6, axis=1), POOLED, strict=True):
        np.testing.assert_allclose(found, expected[mode], atol=1e-5, err_msg=mode)
    modules = ("Transformer", "Pooling", "Dropout", "Normalize")
    new = {"embedding_dimension": 24, "pooling_mode": "max", "include_prompt": False}
    folder = make_directory(tmp_path / "new", modules, Pooling=new, body="0_BERT")
    vectors, err = embed(bertjax_command, folder)
    np.testing.assert_allclose(vectors, scaled(expected["max"]), atol=1e-5)
    assert "max of the tokens, scaled to length 1" in err


def test_several_poolings_stand_side_by_side_in_their_order(bertjax_command, tmp_path, hidden):
    states = [np.asarray(each) for each in hidden]

    def expected(*modes):
        return np.stack([np.concatenate([POOLED[mode](h) for mode in modes]) for h in states])

    old = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    folder = make_directory(tmp_path / "old", Pooling=old)
    vectors, _ = embed(bertjax_command, folder)
    np.testing.assert_allclose(vectors, expected("cls", "mean"), atol=1e-5)
    vectors, err = embed(bertjax_command, folder, "--pooling", "max", "cls", "--normalize")
    np.testing.assert_allclose(vectors, scaled(expected("max", "cls")), atol=1e-5)
    assert "--pooling max cls, where the directory says cls mean" in err
    assert "--normalize, where the directory leaves vectors as they are" in err


def test_options_win_over_the_directory_and_it_is_told(bertjax_command, tmp_path, hidden):
    modules = ("Transformer", "Pooling", "Normalize")
    folder = make_directory(
        tmp_path / "m", modules, Pooling={"pooling_mode": "mean"},
        sentence_bert_config={"max_seq_length": 4, "do_lower_case": False},
    )  # fmt: skip
    vectors, err = embed(bertjax_command, folder, "--no-normalize", "--max-length", "9")
    np.testing.assert_allclose(vectors, [np.asarray(h).mean(axis=0) for h in hidden], atol=1e-5)
    assert "--no-normalize, where the directory scales vectors to length 1" in err
    assert "--max-length 9, where the directory says 4" in err
    short, err = embed(bertjax_command, folder)
    assert "3 of 4 texts are longer than 4 tokens and were cut" in err
    assert not np.allclose(short[2], scaled(vectors[2]), atol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["activation.Tanh", "linear.Identity"])
def test_dense_module_is_computed(bertjax_command, tmp_path, hidden, activation, bias):
    from safetensors.numpy import save_file

    config = {
        "in_features": 24, "out_features": 7, "bias": bias,
        "activation_function": f"torch.nn.modules.{activation}",
    }  # fmt: skip
    modules = ("Transformer", "Pooling", "Dense", "Normalize")
    folder = make_directory(tmp_path / "m", modules, Pooling={}, Dense=config)
    random = np.random.default_rng(0)
    tensors = {"linear.weight": random.normal(size=(7, 24)).astype(np.float32)}
    if bias:
        tensors["linear.bias"] = random.normal(size=7).astype(np.float32)
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    means = np.stack([np.asarray(each).mean(axis=0) for each in hidden])
    values = means @ tensors["linear.weight"].T + tensors.get("linear.bias", 0)
    expected = np.tanh(values) if "Tanh" in activation else values
    vectors, err = embed(bertjax_command, folder)
    np.testing.assert_allclose(vectors, scaled(expected), atol=1e-5)
    assert "a linear layer to 7 numbers" in err
    code, _, err = bertjax_command(
        "embed", "--model", folder, "--output", tmp_path / "y.npy", "--pooling", "mean", "max",
        stdin=b"of",
    )  # fmt: skip
    assert (code, "a Dense module takes 24 numbers" in err) == (2, True)


def test_capitals_and_the_default_prompt_are_as_the_directory_says(bertjax_command, tmp_path):
    folder = make_directory(
        tmp_path / "cased", Pooling={}, sentence_bert_config={"do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "they ", "passage": "of "}, "default_prompt_name": "passage"
        },
    )  # fmt: skip
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    vectors, _ = embed(bertjax_command, folder, texts=["THIS IS IT", "they"])
    expected, _ = embed(
        bertjax_command, TINY, texts=["of this is it", "of they"], output=tmp_path / "y.npy"
    )
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    prompts = {"prompts": {"query": "they "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    vectors, err = embed(bertjax_command, folder, texts=["this is it"])
    expected, _ = embed(bertjax_command, TINY, texts=["this is it"], output=tmp_path / "y.npy")
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert "its prompts query ('they ') are put before no text" in err


def test_pooling_without_modules_is_heeded_and_told(bertjax_command, tmp_path, hidden):
    folder = make_directory(tmp_path / "m", Pooling={"pooling_mode": "cls"})
    (folder / "modules.json").unlink()
    vectors, err = embed(bertjax_command, folder)
    np.testing.assert_allclose(vectors, [each[0] for each in hidden], atol=1e-5)
    assert "has 1_Pooling, and no modules.json" in err


@pytest.mark.parametrize(
    ("modules", "files", "message"),
    [
        (("Transformer", "Pooling", "LayerNorm"), {"Pooling": {}}, "module LayerNorm .* is none"),
        (("Transformer", "WordWeights", "Pooling"), {}, "Transformer, WordWeights, Pooling; bert"),
        (("Transformer",), {}, "its modules are Transformer; bertjax computes"),
        (("Transformer", "modeling_x.Pooling"), {}, "modeling_x.Pooling is code of its own"),
        (("Transformer", "Pooling"), {}, "1_Pooling/config.json: no such file"),
        (("Transformer", "Pooling"), {"Pooling": {"pooling_mode": ["mean", "attention"]}},
         "asks for attention; bertjax pools by cls, max"),
        (("Transformer", "Pooling"), {"Pooling": {"pooling_mode_best_tokens": True}},
         "asks for pooling_mode_best_tokens"),
        (("Transformer", "Pooling", "Dense"),
         {"Pooling": {}, "Dense": {"activation_function": "torch.nn.modules.activation.Mish"}},
         "activation_function=torch.nn.modules.activation.Mish is none"),
        (("Transformer", "Pooling", "Dense"), {"Pooling": {}, "Dense": {"use_residual": True}},
         "use_residual=true; bertjax does false only"),
        (("Transformer", "Pooling", "Normalize"),
         {"Pooling": {}, "Normalize": {"module_input_name": "token_embeddings"}},
         'module_input_name="token_embeddings"'),
        (("Transformer", "Pooling"), {"Pooling": {}, "sentence_bert_config": {"query_length": 9}},
         "query_length=9 is not done by bertjax"),
        (("Transformer", "Pooling"),
         {"Pooling": {}, "sentence_bert_config": {"max_seq_length": "long"}}, 'length="long"'),
        (("Transformer", "Pooling"),
         {"Pooling": {"include_prompt": False}, "config_sentence_transformers":
          {"prompts": {"q": "a "}, "default_prompt_name": "q"}}, "include_prompt=false"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(
    bertjax_command, tmp_path, modules, files, message
):
    folder = make_directory(tmp_path / "m", modules, **files)
    code, _, err = bertjax_command(
        "embed", "--model", folder, "--output", tmp_path / "x.npy", stdin=b"of"
    )
    assert (code, (tmp_path / "x.npy").exists()) == (2, False)
    assert re.search(message, " ".join(err.split())), err


@pytest.mark.parametrize("path", ["../outside", "/etc"])
def test_module_outside_the_directory_is_refused(bertjax_command, tmp_path, path):
    folder = make_directory(tmp_path / "m", Pooling={})
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    arguments = ("embed", "--model", folder, "--output", tmp_path / "x.npy")
    _, _, err = bertjax_command(*arguments, stdin=b"of")
    assert "is outside the directory" in " ".join(err.split())

"""`bertjax export`: what is in the directory, what is refused, and that nothing is left then."""

import importlib.util
import json
import logging
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bertjax
from bertjax.exporting import export as exporting
from bertjax.exporting import int8, limits
from bertjax.exporting.quality import encode_questions
from bertjax.inference.onnx_session import OnnxSession
from bertjax.interop.sentence_transformers import Dense, SentenceModel, read_sentence_model
from bertjax.text.tokenizer import load_tokenizer
from tests.analysis.saved import save

LINES = "the dog sees a bird .\na cat\nthe old red dog hears the cat .\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models by name, and texts.txt and labelled.tsv."""
    folder = tmp_path_factory.mktemp("models")
    for name, architecture, fields in (
        ("body", "BertModel", {}),
        ("words", "BertForMaskedLM", {}),
        ("labels", "BertForSequenceClassification", {"id2label": ("bad", "good")}),
    ):
        (folder / f"made_{name}").mkdir()
        shutil.move(save(folder / f"made_{name}", architecture, **fields), folder / name)
    (folder / "texts.txt").write_text(LINES)
    # What the model says is right, so that it can only lose.
    nouns, verbs = ("dog", "cat", "bird"), ("sees", "hears")
    texts = [f"the {one} {verb} a {other}" for one in nouns for verb in verbs for other in nouns]
    said = bertjax.load(folder / "labels").predict(texts)
    rows = [("text", "label"), *((text, one.label) for text, one in zip(texts, said, strict=True))]
    (folder / "labelled.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    return folder


def test_directory_is_whole_and_its_vectors_are_those_of_embed(bertjax_command, models, tmp_path):
    output = tmp_path / "out"
    vectors = ("--pooling", "max", "cls", "--normalize", "--max-length", "9")
    code, out, err = bertjax_command(
        *("export", "--model", models / "body", "--output", output, "--json", *vectors)
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["outputs"] == {
        "last_hidden_state": ["batch_size", "sequence_length", 24],
        "pooler_output": ["batch_size", 24],
        "sentence_embedding": ["batch_size", 48],
    }
    assert max(result["largest_difference"].values()) < limits.TOLERANCE
    sizes = {name: (output / name).stat().st_size for name in result["files"]}
    assert result["files"] == sizes
    assert {"config.json", "tokenizer.json", "modules.json", "onnx/model.onnx"} <= sizes.keys()
    steps = read_sentence_model(output)
    # The order of its files is another than was asked for, so it is said there.
    assert (steps.pooling, steps.scales, steps.max_length) == (("max", "cls"), True, 9)

    model = bertjax.load(models / "body")
    texts = LINES.splitlines()
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 9 tokens and were cut"):
        expected = model.embed(texts, pooling=["max", "cls"], normalize=True, max_length=9)
    tokenizer, session = load_tokenizer(output), OnnxSession(output / "onnx" / "model.onnx")
    for text, vector in zip(texts, expected, strict=True):
        [ids] = tokenizer.encode_batch([text])
        ids = np.array([[tokenizer.cls_id, *ids[:7], tokenizer.sep_id]])
        inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        np.testing.assert_allclose(session(inputs)["sentence_embedding"], [vector], atol=1e-5)


def test_body_of_a_masked_lm_is_exported_for_vectors(models, tmp_path):
    model = bertjax.load(models / "words", "BertModel")
    result = model.export(tmp_path / "out", check=["a cat", "the dog sees a bird"])
    assert result["outputs"].keys() == {"last_hidden_state", "sentence_embedding"}  # no pooler
    assert result["int8"]["answers"]["questions"] == 2
    model = bertjax.load(models / "words")
    with pytest.raises(bertjax.UserError, match="pooling is of vectors, and BertForMaskedLM gives"):
        model.export(tmp_path / "other", pooling="cls")
    with pytest.raises(bertjax.UserError, match="int8 applies to format onnx, not to stablehlo"):
        model.export(tmp_path / "other", "stablehlo", check=["a cat"])


def test_directory_is_replaced_only_where_asked(bertjax_command, models, tmp_path):
    line = ("export", "--model", models / "words", "--output", tmp_path / "out")
    assert bertjax_command(*line)[0] == 0
    code, _, err = bertjax_command(*line)
    assert (code, "pass --overwrite true to replace it" in err) == (2, True)
    assert bertjax_command(*line, "--overwrite", "true")[0] == 0


def test_model_directory_is_no_exported_one_and_stays(bertjax_command, models, tmp_path):
    shutil.copytree(models / "labels", tmp_path / "out")
    line = ("export", "--model", models / "words", "--output", tmp_path / "out")
    code, _, err = bertjax_command(*line, "--overwrite", "true")
    assert (code, "is not replaced: it holds model.safetensors" in err) == (2, True)
    assert bertjax.load(tmp_path / "out").architecture == "BertForSequenceClassification"


def test_exported_directory_with_a_linear_layer_is_replaced(models, tmp_path):
    model, random = bertjax.load(models / "body"), np.random.default_rng(0)
    arrays = random.normal(size=(7, 24)), random.normal(size=7)
    dense = Dense(*(values.astype(np.float32) for values in arrays), "Tanh")
    steps = SentenceModel(None, after=(dense,), max_length=9)
    for overwrite in (False, True):
        exporting.export(model, tmp_path / "out", steps=steps, overwrite=overwrite)
    [read] = read_sentence_model(tmp_path / "out").after
    np.testing.assert_array_equal(read.weight, dense.weight)


def test_weights_above_what_a_file_holds_are_beside_it(
    bertjax_command, models, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "MOST_INSIDE", 1000)
    line = ("export", "--model", models / "words", "--output", tmp_path / "out")
    gate = ("--int8", "--check", models / "texts.txt", "--most-changed", "1")
    code, out, err = bertjax_command(*line, *gate, "--json")
    assert (code, err) == (0, "")
    sizes = json.loads(out)["files"]
    assert sizes["onnx/model.onnx_data"] > 10_000
    assert sizes["onnx/model_quantized.onnx.data"] > 2_000
    for name in ("model.onnx", "model_quantized.onnx"):
        OnnxSession(tmp_path / "out" / "onnx" / name)


# ------------------------------------------------------------------ answers that moved


def spoil(path):
    """Makes the weights of the first product others than they were."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if "layers.0.attention.value.kernel" in tensor.name and tensor.dims:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[::-1].copy(), tensor.name))
    onnx.save(model, path)


def test_export_that_differs_is_not_kept(bertjax_command, models, tmp_path, monkeypatch):
    import onnx_ir

    write = onnx_ir.save

    def write_spoiled(model, path, **options):
        write(model, path, **options)
        spoil(path)

    monkeypatch.setattr(onnx_ir, "save", write_spoiled)
    line = ("export", "--model", models / "words", "--output", tmp_path / "out", "--json")
    code, out, err = bertjax_command(*line)
    result = json.loads(out)
    assert code == 1
    assert result["largest_difference"]["logits"] > limits.TOLERANCE
    assert "error: logits differs from the model's by" in err
    assert [*tmp_path.iterdir()] == []


GATES = {
    "words": ("--check", "texts.txt"),
    "labels": ("--data", "labelled.tsv"),
    "body": ("--check", "texts.txt"),
}
REFUSALS = {
    "words": "of the answers (logits) are others than the model's, and --most-changed is 0.05",
    "labels": "and --most-lost is 0.01 of 1",
    "body": "the vector of a text has a cosine of",
}


@pytest.mark.parametrize("name", GATES)
def test_int8_is_kept_where_it_answers_alike(bertjax_command, models, tmp_path, name):
    option, file = GATES[name]
    line = ("export", "--model", models / name, "--output", tmp_path / "out", "--json")
    code, out, err = bertjax_command(*line, "--int8", option, models / file)
    assert (code, err) == (0, "")
    measured = json.loads(out)["int8"]
    if name == "labels":
        assert measured["scores"] == {
            "examples": 18, "score": "accuracy", "model": 1.0, "export": 1.0
        }  # fmt: skip
    elif name == "body":
        assert 0.99 < measured["answers"]["sentence_embedding"]["least_cosine"] < 1
    else:
        moved = measured["answers"]["logits"]
        assert (moved["answers"], moved["changed"]) == (3, 0)
        assert 0 < moved["mean_difference"] < moved["largest_difference"] < 0.1
    operators = [node.op_type for node in quantized(tmp_path / "out").graph.node]
    # Six a layer, and what stands on them; products of activations with each other stay.
    assert operators.count("MatMulInteger") == 12 + {"words": 2, "labels": 2, "body": 1}[name]
    assert operators.count("MatMul") == 4
    assert logging.root.manager.disable == 0


def test_masked_lm_is_asked_about_masked_words(models):
    model, text = bertjax.load(models / "words"), "the dog sees a bird . the cat hears"
    asked = encode_questions(model, [("text 1", text)], SentenceModel(None))
    [places], [[sequence]] = asked.places, asked.questions
    [ids] = model.tokenizer.encode_batch([text])
    assert len(places) == 1  # 15 % of nine words
    assert sequence.token_ids[places] == model.tokenizer.mask_id
    expected = np.array([model.tokenizer.cls_id, *ids, model.tokenizer.sep_id])
    expected[places] = model.tokenizer.mask_id
    np.testing.assert_array_equal(sequence.token_ids, expected)
    assert 0 < places[0] < len(ids) + 1
    with pytest.raises(bertjax.UserError, match="text 1: there is no token to mask"):
        encode_questions(model, [("text 1", "")], SentenceModel(None))


def quantized(folder):
    return onnx.load(folder / "onnx" / "model_quantized.onnx")


def test_weights_take_seven_bits_with_a_scale_for_each_output(bertjax_command, models, tmp_path):
    line = ("export", "--model", models / "words", "--output", tmp_path / "out")
    gate = ("--int8", "--check", models / "texts.txt", "--most-changed", "1")
    assert bertjax_command(*line, *gate)[0] == 0
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in quantized(tmp_path / "out").graph.initializer
    }
    kernels = [name for name in arrays if name.endswith("kernel_quantized")]
    assert len(kernels) == 13
    for name in kernels:
        assert arrays[name].dtype == np.int8
        assert 60 <= np.abs(arrays[name].astype(int)).max() <= 64
        scales = arrays[name.replace("_quantized", "_scale")]
        assert scales.shape == arrays[name].shape[1:]


@pytest.mark.parametrize("name", GATES)
def test_gate_refuses_a_spoiled_model(bertjax_command, models, tmp_path, monkeypatch, name):
    def quantize_and_spoil(source, output, *, outside):
        quantize(source, output, outside=outside)
        model = onnx.load(output)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("kernel_quantized"):
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
        onnx.save(model, output)

    quantize = int8.quantize
    monkeypatch.setattr(exporting, "quantize", quantize_and_spoil)
    option, file = GATES[name]
    line = ("export", "--model", models / name, "--output", tmp_path / "out", "--json")
    code, out, err = bertjax_command(*line, "--int8", option, models / file)
    assert code == 1
    assert REFUSALS[name] in err
    assert err.endswith(f"{tmp_path / 'out'} was not written\n")
    assert json.loads(out)["failures"] == [
        line.removeprefix("error: ") for line in err.splitlines() if line.startswith("error: ")
    ]
    assert [*tmp_path.iterdir()] == []


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("words", ["--int8"], "name texts with --check FILE or labelled examples with --data FILE"),
        ("words", ["--check", "texts.txt"], "--check applies with --int8; give both"),
        ("words", ["--most-lost", "0.1"], "--most-lost applies with --data"),
        ("words", ["--labels", "a"], "--labels applies to labelled files"),
        ("words", ["--delimiter", ";"], "--delimiter applies to files of --check or --data"),
        ("words", ["--data-format", "csv"], "--data-format applies to files of --check or --data"),
        ("words", ["--encoding", "latin-1"], "--encoding applies to files of --check or --data"),
        ("words", ["--pooling", "cls"], "BertForMaskedLM gives none; leave it out"),
        ("words", ["--int8", "--data", "texts.txt"], "BertForMaskedLM"),
        (
            "words",
            ["--int8", "--check", "texts.txt", "--format", "stablehlo"],
            "--int8 applies to --format onnx",
        ),
        ("labels", ["--architecture", "BertForMaskedLM"], "has no mlm_head"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(
    bertjax_command, models, tmp_path, monkeypatch, name, words, message
):
    monkeypatch.chdir(models)
    line = ("export", "--model", name, "--output", tmp_path / "out", *words)
    code, out, err = bertjax_command(*line)
    assert (code, out, message in err) == (2, "", True), err
    assert [*tmp_path.iterdir()] == []


def test_library_that_is_missing_is_named(bertjax_command, models, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx_ir" else find(name)
    )
    line = ("export", "--model", models / "words", "--output", tmp_path / "out")
    code, _, err = bertjax_command(*line)
    assert (code, "needs onnx_ir, which is not installed; pip install 'bertjax[onnx]'" in err) == (
        2,
        True,
    )

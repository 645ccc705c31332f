"""`--engine onnxruntime` predicts and embeds as the model that was exported."""

import json
import shutil

import numpy as np
import onnx
import pytest

import bertjax
from bertjax.exporting.export import export
from bertjax.exporting.quality import Gate
from bertjax.inference.exported import load_exported
from bertjax.interop.signature import ONNX_NAME
from bertjax.program.errors import UserError
from tests.analysis.saved import save

TEXTS = ["the dog sees a bird .", "a cat", "the old red dog hears the cat ."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models `labels` and `body`, and what was exported of them, `labels-onnx` and `body-onnx`."""
    folder = tmp_path_factory.mktemp("exported")
    for name, architecture, fields in (
        ("labels", "BertForSequenceClassification", {"id2label": ("bad", "good")}),
        ("body", "BertModel", {}),
    ):
        (folder / f"made_{name}").mkdir()
        shutil.move(save(folder / f"made_{name}", architecture, **fields), folder / name)
        bertjax.load(folder / name).export(folder / f"{name}-onnx")
    shutil.copytree(folder / "labels-onnx", folder / "labels-stablehlo")
    shutil.rmtree(folder / "labels-stablehlo" / "onnx")
    (folder / "labels-stablehlo" / "stablehlo").mkdir()
    (folder / "labels-stablehlo" / "stablehlo" / "model.jax_export").touch()
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return load_exported(folder / "labels-onnx")


def test_predictions_are_those_of_the_model(bertjax_command, folder):
    options = ("--engine", "onnxruntime")
    code, out, err = bertjax_command("predict", "--model", folder / "labels", *TEXTS)
    assert (code, err) == (0, "")
    expected = [json.loads(line) for line in out.splitlines()]
    code, out, err = bertjax_command("predict", "--model", folder / "labels-onnx", *options, *TEXTS)
    assert (code, err) == (0, f"{folder}/labels-onnx/onnx/model.onnx: run by onnxruntime\n")
    actual = [json.loads(line) for line in out.splitlines()]
    assert [one["label"] for one in actual] == [one["label"] for one in expected]
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_vectors_are_those_of_the_model(bertjax_command, folder, tmp_path):
    line = ("embed", "--model", folder / "body-onnx", "--output", tmp_path / "v.npy", *TEXTS)
    code, _, err = bertjax_command(*line, "--engine", "onnxruntime", "--pooling", "max")
    assert (code, "body-onnx/onnx/model.onnx: run by onnxruntime" in err) == (0, True)
    expected = bertjax.load(folder / "body").embed(TEXTS, pooling="max")
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["labels", "body"])
def test_answers_in_eight_bits_depend_on_no_other_text(folder, tmp_path, name):
    gate = Gate([(text, text) for text in TEXTS], most_changed=1, least_cosine=-1)
    export(bertjax.load(folder / name), tmp_path / "out", gate=gate)
    model = load_exported(tmp_path / "out")
    assert model.module.session.is_quantized
    answer = model.embed if name == "body" else model.predict
    many = TEXTS * 16  # so that some share a batch
    alone = [answer([text])[0] for text in TEXTS] * 16
    for ours, theirs in zip(answer(many), alone, strict=True):
        assert np.array_equal(ours, theirs) if name == "body" else ours == theirs


def flatten(value):
    """The words of an answer, and its numbers."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if not isinstance(value, list):
        return [value]
    return [part for item in value for part in flatten(item)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "fields", "texts"),
    [
        ("BertForTokenClassification", {"id2label": ("O", "B-X", "I-X")}, TEXTS),
        ("BertForQuestionAnswering", {}, [f"a cat\t{text} the dog" for text in TEXTS]),
        ("BertForMultipleChoice", {}, ["a\tdog\tcat", "the dog\tsees a cat\thears\tthe bird"]),
        ("BertForSequenceClassification", {"id2label": ("value",)}, TEXTS),
        (
            "BertForSequenceClassification",
            {"id2label": ("a", "b"), "problem_type": "multi_label_classification"},
            [*TEXTS, "a cat\ta dog"],
        ),
    ],
)
def test_every_task_predicts_as_the_model(bertjax_command, tmp_path, architecture, fields, texts):
    model = save(tmp_path, architecture, **fields)
    bertjax.load(model).export(tmp_path / "onnx")
    ours, theirs = (
        bertjax_command("predict", "--model", *line, *texts)
        for line in ([tmp_path / "onnx", "--engine", "onnxruntime"], [model])
    )
    assert (ours[0], theirs[0]) == (0, 0), ours[2]
    for one, other in zip(ours[1].splitlines(), theirs[1].splitlines(), strict=True):
        for left, right in zip(flatten(json.loads(one)), flatten(json.loads(other)), strict=True):
            assert left == (pytest.approx(right, abs=1e-4) if isinstance(right, float) else right)


@pytest.mark.parametrize(
    ("command", "model", "words", "message"),
    [
        ("predict", "labels-onnx", [], "`evaluate`, `gate` and `drift` run with --engine onnx"),
        ("predict", "labels", ["onnxruntime"], "/labels --output DIR`, and name that directory"),
        ("predict", "labels-stablehlo", [], "name the model that it was exported from"),
        ("predict", "labels-stablehlo", ["onnxruntime"], "with `bertjax export --model MODEL --"),
        (
            "predict",
            "labels-onnx",
            ["onnxruntime", "--dtype", "float32"],
            "--dtype float32 has no effect with --engine onnxruntime",
        ),
        ("embed", "labels-onnx", ["onnxruntime"], "and this needs a BertModel; export the model"),
    ],
)
def test_engine_that_does_not_fit_is_refused(
    bertjax_command, folder, tmp_path, command, model, words, message
):
    options = ["--engine", *words] if words else []
    output = ["--output", tmp_path / "v.npy"] if command == "embed" else []
    line = (command, "--model", folder / model, *options, *output, *TEXTS)
    code, _, err = bertjax_command(*line)
    assert (code, message in err) == (2, True), err


def test_directory_that_names_no_class_is_refused(folder, tmp_path):
    shutil.copytree(folder / "labels-onnx", tmp_path / "exported")
    config = tmp_path / "exported" / "config.json"
    config.write_text(config.read_text().replace("BertForSequenceClassification", "Bert"))
    with pytest.raises(UserError, match="names no class of the family; export the model again"):
        load_exported(tmp_path / "exported")


def rewritten(folder, tmp_path, change):
    """Returns a copy of `labels-onnx` whose graph or config.json was changed."""
    copy = shutil.copytree(folder / "labels-onnx", tmp_path / "exported")
    change(copy)
    return copy


def edit_graph(change):
    def edit(copy):
        model = onnx.load(copy / "onnx" / "model.onnx")
        change(model.graph)
        onnx.save(model, copy / "onnx" / "model.onnx")

    return edit


def edit_config(**fields):
    def edit(copy):
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, **fields}))

    return edit


def rename(old, new):
    """Gives a value of the graph another name."""

    def change(graph):
        for value in (*graph.input, *graph.output):
            value.name = new if value.name == old else value.name
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    return change


def fix_mask(graph):
    """Makes the mask a constant, as of an export that knows of no padding."""
    [mask] = [value for value in graph.input if value.name == "attention_mask"]
    graph.input.remove(mask)
    ones = onnx.helper.make_tensor("attention_mask", onnx.TensorProto.INT64, [1, 1], [1])
    graph.initializer.append(ones)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_graph(rename("input_ids", "ids")), "it asks for ids; it takes no input_ids"),
        (edit_graph(fix_mask), "it takes no attention_mask"),
        (edit_graph(rename("logits", "scores")), "it gives no logits"),
        (
            edit_config(id2label={"0": "a", "1": "b", "2": "c"}),
            r"its logits is \[batch_size, 2\], not \[batch_size, 3\]",
        ),
        (
            edit_config(architectures=["BertForTokenClassification"]),
            r"its logits is \[batch_size, 2\], not \[batch_size, sequence_length, 2\]",
        ),
        (
            edit_config(architectures=["BertForQuestionAnswering"]),
            "it gives no start_logits; it gives no end_logits",
        ),
        (
            edit_config(architectures=["BertForMultipleChoice"]),
            r"its input_ids is \[batch_size, sequence_length\], not \[batch_size, num_choices",
        ),
    ],
)
def test_file_of_another_model_is_refused(folder, tmp_path, change, message):
    copy = rewritten(folder, tmp_path, change)
    with pytest.raises(
        UserError, match=rf"model\.onnx: not a Bert\w+ as config.json describes it: {message}"
    ):
        load_exported(copy)


def test_axes_may_have_other_names(folder, tmp_path):
    """As in other programs' exports."""

    def rename_axes(graph):
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "rows"

    model = load_exported(rewritten(folder, tmp_path, edit_graph(rename_axes)))
    assert model.module.session.outputs == {"logits": ("rows", 2)}
    expected = load_exported(folder / "labels-onnx").predict(TEXTS[:1])
    assert model.predict(TEXTS[:1]) == expected


def test_text_that_the_file_cannot_be_run_on_is_refused(folder, tmp_path, capfd):
    longest = bertjax.load(folder / "labels").config.max_position_embeddings
    change = edit_config(max_position_embeddings=2 * longest)
    model = load_exported(rewritten(folder, tmp_path, change))
    with pytest.raises(UserError, match=r"onnxruntime cannot run it .*\. Export the model again"):
        model.predict(["dog " * 2 * longest])
    assert "onnxruntime" not in capfd.readouterr().err


def test_damaged_file_is_refused_with_the_way_out(folder, tmp_path):
    def cut(copy):
        file = copy / ONNX_NAME
        file.write_bytes(file.read_bytes()[:1000])

    with pytest.raises(UserError, match=r"onnxruntime cannot read it .*\. Export the model again"):
        load_exported(rewritten(folder, tmp_path, cut))


def spoil_words(numbers):
    """Makes rows of the table of words NaN."""

    def change(graph):
        [table] = [one for one in graph.initializer if "word_embeddings" in one.name]
        words = onnx.numpy_helper.to_array(table).copy()
        words[numbers] = np.nan
        table.CopyFrom(onnx.numpy_helper.from_array(words, table.name))

    return edit_graph(change)


def test_answers_that_are_no_numbers_are_refused(folder, tmp_path):
    dog = bertjax.load(folder / "labels").tokenizer.find_token("dog")
    model = load_exported(rewritten(folder, tmp_path / "dog", spoil_words(dog)))
    assert model.predict(["a cat"])[0].label in ("bad", "good")
    with pytest.raises(UserError, match="answers with NaN or infinity: it is damaged, or the"):
        model.predict(["a cat", "the dog"])
    with pytest.raises(UserError, match="answers with NaN or infinity"):
        load_exported(rewritten(folder, tmp_path / "all", spoil_words(slice(None))))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("verify", ()),
        ("trace", ("a cat",)),
        ("heads", (TEXTS,)),
        ("compare_layers", (TEXTS,)),
        ("explain", ("a cat",)),
        ("what_if", ("a cat", "cat")),
        ("analyze", (TEXTS, "report")),
        ("prune", ("0-1",)),
        ("study_pruning", ("0-1",)),
        ("save", ("saved",)),
        ("export", ("again",)),
    ],
)
def test_methods_that_need_the_inside_are_refused(
    exported, tmp_path, monkeypatch, method, arguments
):
    monkeypatch.chdir(tmp_path)
    message = rf"labels-onnx: was exported, and {method} needs .*; load the model that was exported"
    with pytest.raises(UserError, match=message):
        getattr(exported, method)(*arguments)
    assert [*tmp_path.iterdir()] == []


def test_exported_model_shows_how_large_its_class_is(exported, monkeypatch):
    monkeypatch.setitem(vars(exported.module), "parameters", 4_386_178)
    assert "4.4 M parameters" in repr(exported)

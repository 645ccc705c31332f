"""`--engine onnxruntime` of the commands that score, gate, watch and serve an exported model."""

import importlib.util
import json
import shutil

import pytest

from bertjax.inference.exported import load_exported
from bertjax.interop.signature import ONNX_NAME
from bertjax.loaded import load
from bertjax.serving.sampling import fingerprint_model
from tests.analysis.saved import save
from tests.commands.option_files import write_files
from tests.drift.logged import make_lines, write_log
from tests.serving.served_models import export_quickly

ENGINE = ("--engine", "onnxruntime")
GATE = ("--data", "table.csv", "--resamples", "100", "--speed-texts", "1", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models `labels`, `mlm` and `whole`, what was exported of them, `labels-onnx`, ..., files."""
    folder = tmp_path_factory.mktemp("engines")
    for name, architecture, fields in (
        ("labels", "BertForSequenceClassification", {"id2label": ("bad", "good")}),
        ("mlm", "BertForMaskedLM", {}),
        ("whole", "BertForPreTraining", {}),
    ):
        (folder / f"made_{name}").mkdir()
        shutil.move(save(folder / f"made_{name}", architecture, **fields), folder / name)
        export_quickly(load(folder / name), folder / f"{name}-onnx")
    write_files(folder)
    return folder


@pytest.fixture
def run(folder, monkeypatch, bertjax_command):
    monkeypatch.chdir(folder)
    return bertjax_command


@pytest.mark.parametrize(
    ("model", "data"), [("labels", "table.csv"), ("mlm", "text.txt"), ("whole", "text.txt")]
)
def test_scores_are_those_of_the_model(run, model, data):
    expected, actual = (
        run("evaluate", "--model", *words, "--data", data, "--json")
        for words in ([model], [f"{model}-onnx", *ENGINE])
    )
    assert (expected[0], actual[0]) == (0, 0), actual[2]
    theirs, ours = json.loads(expected[1]), json.loads(actual[1])
    assert ours["scores"].keys() == theirs["scores"].keys()
    for name, value in theirs["scores"].items():
        expected = pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
        assert ours["scores"][name] == expected, name
    assert f"{model}-onnx/{ONNX_NAME}: run by onnxruntime" in actual[2]


def test_gate_runs_each_side_by_its_engine(run, folder):
    line = ("gate", "--model", "labels-onnx", *ENGINE, "--against", "labels", *GATE)
    code, out, err = run(*line, "--dtype", "float32")
    assert code == 0, err
    result = json.loads(out)
    sides = [(result[side]["engine"], result[side]["dtype"]) for side in ("new", "old")]
    assert sides == [("onnxruntime", "float32"), ("jax", "float32")]
    figures = result["quantities"]
    for name in ("parameters", "accuracy", "flips", "brier"):
        assert figures[name]["new"] == pytest.approx(figures[name]["old"], abs=1e-5), name
    assert figures["bytes"]["new"] == (folder / "labels-onnx" / ONNX_NAME).stat().st_size
    assert figures["median_ms"]["new"] > 0

    line = ("gate", "--model", "labels", "--against", "labels-onnx", *GATE)
    code, out, err = run(*line, "--against-engine", "onnxruntime", "--output", "page")
    assert code == 0, err
    assert [json.loads(out)[side]["engine"] for side in ("new", "old")] == ["jax", "onnxruntime"]
    page = (folder / "page" / "report.html").read_text()
    assert "labels-onnx, run by onnxruntime in float32" in page


def test_check_tells_what_would_be_served(run, folder, monkeypatch):
    monkeypatch.setattr("bertjax.serving.checkup.SECONDS", 0.01)
    line = ("serve", "--model", "a=labels-onnx", "--max-batch-tokens", "24", "--check", "--json")
    code, out, err = run(*line, *ENGINE)
    assert code == 0, err
    found = json.loads(out)
    own = found["models"]["a"]
    assert own["engine"] == "onnxruntime"
    assert own["explains"] == {"answers": False, "attention": False, "max_tokens": 0}
    assert own["programs"]["class"]["texts_per_second"] > 0
    assert found["memory_bytes"]["parameters"] == (
        (folder / "labels-onnx" / ONNX_NAME).stat().st_size
    )
    assert found["compiled_under_traffic"] == 0
    assert f"labels-onnx/{ONNX_NAME}: run by onnxruntime" in err


def test_texts_of_a_file_are_those_of_the_log(run, folder):
    fingerprint = fingerprint_model(load_exported(folder / "labels-onnx"))
    lines = make_lines(150, fingerprint=fingerprint, sketch=None, max_length=12)
    log = write_log(folder / "exported-log", lines)
    (folder / "asked.txt").write_text("the old dog\na red bird sees\n" * 75)
    line = ("drift", "--reference", "asked.txt", "--log", log, "--model", "labels-onnx", "--json")
    code, out, err = run(*line, *ENGINE)
    assert code in (0, 1), err
    drift = json.loads(out)
    assert drift["reference"]["fingerprint"] == fingerprint
    assert "embeddings" not in [test["name"] for test in drift["tests"]]
    told = "embeddings: not compared, since 0 requests before and 0 after have any"
    assert told in drift["notes"]


EXPORTED = ("--model", "labels-onnx", *ENGINE)
GATED = ("gate", *EXPORTED, "--against", "labels-onnx", *GATE)
BOTH = (*GATED, "--against-engine", "onnxruntime")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("evaluate", *EXPORTED, "--data", "table.csv", "--calibrate"),
            "--calibrate is of the ins",
        ),
        (
            ("evaluate", *EXPORTED, "--data", "table.csv", "--without-heads", "0-1"),
            "which --engine onnxruntime does not show; name the model that was exported",
        ),
        (
            ("evaluate", *EXPORTED, "--data", "table.csv", "--devices", "1"),
            "--devices 1 has no eff",
        ),
        (
            ("evaluate", "--watch", "r", *ENGINE, "--data", "x"),
            "--engine onnxruntime is for --model",
        ),
        (
            ("evaluate", "--model", "mlm-onnx", "--data", "text.txt"),
            "run with --engine onnxruntime",
        ),
        (GATED, "--against labels-onnx: was exported; pass --against-engine onnxruntime"),
        (
            (*BOTH, "--dtype", "bfloat16"),
            "--dtype bfloat16 has no effect with --engine onnxruntime",
        ),
        (
            (
                "gate",
                "--model",
                "labels",
                "--against",
                "mlm",
                "--against-engine",
                "onnxruntime",
                *GATE,
            ),
            "write it with `bertjax export --model mlm --output DIR`",
        ),
        (("serve", *EXPORTED, "--check", "--dtype", "bfloat16"), "--dtype bfloat16 has no effect"),
        (
            ("serve", *EXPORTED, "--check", "--attention", "dense"),
            "--attention dense has no effect",
        ),
        (("serve", *EXPORTED, "--check", "--explain"), "--explain has no effect with --engine"),
        (
            ("serve", *EXPORTED, "--check", "--explain-max-tokens", "9"),
            "--explain-max-tokens 9 has no effect",
        ),
        (("serve", "--model", "labels", *ENGINE, "--check"), "with `bertjax export --model labels"),
        (("serve", "--model", "labels-onnx", "--check"), "run with --engine onnxruntime"),
        (
            ("drift", "--reference", "earlier", "--log", "later", *ENGINE),
            "--engine is for files as",
        ),
    ],
)
def test_what_has_no_effect_or_no_model_is_refused(run, words, message):
    code, out, err = run(*words)
    assert (code, out, message in err) == (2, "", True), err
    assert "Traceback" not in err


def test_variable_without_effect_is_named(run, monkeypatch):
    monkeypatch.setenv("DTYPE", "bfloat16")
    code, _, err = run("serve", *EXPORTED, "--check")
    assert (code, "--dtype bfloat16 (DTYPE in the environment) has no effect" in err) == (2, True)


def test_library_that_is_missing_is_named(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    code, _, err = run("serve", *EXPORTED, "--check")
    message = "needs onnxruntime, which is not installed; pip install 'bertjax[onnx]'"
    assert (code, message in err) == (2, True), err

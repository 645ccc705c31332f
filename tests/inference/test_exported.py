"""An exported model in the place of a class answers packed rows as the class does."""

import importlib.util

import jax
import onnx
import onnx_ir
import pytest

from bertjax.architectures import ARCHITECTURES
from bertjax.inference.exported import ExportedModule
from bertjax.inference.onnx_session import OnnxSession
from bertjax.interop.onnx.model import build_model
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.program.errors import UserError
from bertjax.verification.examples import arrange_packed, draw_examples
from bertjax.verification.outputs import compare_answers, quantities, read_answers
from tests.families.tiny import tiny_config_of
from tests.parity.random_models import draw_parameters


@pytest.mark.parametrize(
    "name",
    [
        "RobertaForMaskedLM",
        "BertForPreTraining",
        "BertForQuestionAnswering",
        "ModernBertForMultipleChoice",
    ],
)
def test_packed_rows_are_answered_as_by_the_class(tmp_path, name):
    config, architecture = tiny_config_of(name, max_position_embeddings=40), ARCHITECTURES[name]
    params = draw_parameters(config, name)
    built = build_model(config, architecture, params, SentenceModel(None), "0")
    onnx_ir.save(built, tmp_path / "model.onnx")
    exported = ExportedModule(OnnxSession(tmp_path / "model.onnx"), config, name)
    arrangement = arrange_packed(draw_examples(config, longest=17))
    module = architecture.module(config)
    theirs = jax.jit(module.apply)({"params": params}, *arrangement.batch)
    ours = exported.apply({}, *arrangement.batch)
    actual, expected = (
        read_answers(
            {key: value for key, value in quantities(name, output).items() if key != "hidden"},
            arrangement,
        )
        for output in (ours._replace(encoder=theirs.encoder), theirs)
    )
    assert compare_answers(actual, expected) < 1e-4


def write_with_data_outside(folder, location="model.onnx_data"):
    """Writes a model whose weights are in a file beside it, by this name for them."""
    config = tiny_config_of("BertForMaskedLM")
    params = draw_parameters(config, "BertForMaskedLM")
    built = build_model(config, ARCHITECTURES["BertForMaskedLM"], params, SentenceModel(None), "0")
    onnx_ir.save(built, folder / "model.onnx", external_data="model.onnx_data")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    onnx.save(model, folder / "model.onnx")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no model": lambda folder: (folder / "model.onnx").write_bytes(b"no model"),
    "empty": lambda folder: (folder / "model.onnx").write_bytes(b""),
    "cut off": lambda folder: cut(folder / "model.onnx"),
    "a folder": lambda folder: [(folder / "model.onnx").unlink(), (folder / "model.onnx").mkdir()],
    "no data": lambda folder: (folder / "model.onnx_data").unlink(),
    "data cut off": lambda folder: cut(folder / "model.onnx_data"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_file_that_is_not_whole_is_named(tmp_path, damage):
    write_with_data_outside(tmp_path)
    OnnxSession(tmp_path / "model.onnx")
    DAMAGES[damage](tmp_path)
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot read it \(.{9}"):
        OnnxSession(tmp_path / "model.onnx")


@pytest.mark.parametrize("way", ["above", "absolute", "link"])
def test_weights_outside_the_directory_are_not_read(tmp_path, way):
    """Of a directory from elsewhere, which would read any file of whoever runs it."""
    inside, outside = tmp_path / "model", tmp_path / "model.onnx_data"
    inside.mkdir()
    where = {"above": "../model.onnx_data", "absolute": str(outside), "link": "model.onnx_data"}
    write_with_data_outside(inside, where[way])
    (inside / "model.onnx_data").rename(outside)
    if way == "link":
        (inside / "model.onnx_data").symlink_to(outside)
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot read it .*[Ee]xternal"):
        OnnxSession(inside / "model.onnx")


def test_runtime_that_is_missing_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    message = (
        r"model\.onnx needs onnxruntime, which is not installed; pip install 'bertjax\[onnx\]'"
    )
    with pytest.raises(UserError, match=message):
        OnnxSession("model.onnx")

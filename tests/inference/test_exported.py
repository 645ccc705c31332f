"""An exported model in the place of a class answers packed rows as the class does."""

import jax
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


def test_file_that_is_none_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot read it"):
        OnnxSession(tmp_path / "model.onnx")

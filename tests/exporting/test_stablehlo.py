"""The program of StableHLO answers in a process that has jax and no bertjax."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

import bertjax
from bertjax.architectures import ARCHITECTURES
from bertjax.exporting.answers import answering
from bertjax.interop.huggingface import save_model_directory
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import PROGRAM_NAME, outputs_of
from tests.analysis.saved import save
from tests.families.tiny import tiny_config_of
from tests.parity.random_models import draw_parameters
from tests.parity.test_golden import GOLDEN

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deployment.md"
# Runs the page's loader where bertjax cannot be imported, and keeps what it was answered.
RUN = """
import sys
sys.modules["bertjax"] = sys.modules["flax"] = None
exec(open("loader.py").read())
np.savez("answers.npz", **inputs, **{f"answer {name}": values for name, values in answers.items()})
"""


@pytest.fixture(scope="module")
def loader():
    """The block of the page that needs jax alone."""
    page = PAGE.read_text(encoding="utf-8")
    [block] = [code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "export." in code]
    assert block.count("\n") <= 20
    assert set(re.findall(r"^(?:import|from) (\w+)", block, re.M)) == {"jax", "numpy"}
    return block


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )


# jaxtyping's checks of the suite's process do not know axes without a size.
EXPORT = """
import sys
from bertjax.cli import main
main(["export", "--model", "model", "--output", "sms-jax", "--format", "stablehlo", *sys.argv[1:]])
"""


@pytest.mark.whole
@pytest.mark.parametrize(
    "name",
    [
        "BertForSequenceClassification",
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("BertModel", "BertForPreTraining", "BertForMultipleChoice")
        ],
    ],
)
def test_loader_of_the_page_answers_as_the_model(loader, tmp_path, name):
    save(tmp_path, name)
    done = run(EXPORT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    inputs = re.search(r"^ids = .*\n(?:.+\n)*?inputs = .*\n", loader, re.M)[0]
    own = "ids = np.array([[2, 5, 7, 3], [2, 6, 3, 0], [2, 8, 9, 3]], np.int32)\n"
    if ARCHITECTURES[name].kind == "choice":
        own += "ids = ids[:, None]\n"
    own += inputs.splitlines()[-1] + "\n"
    (tmp_path / "loader.py").write_text(loader.replace(inputs, own))
    done = run(RUN, tmp_path)
    assert done.returncode == 0, done.stderr

    model = bertjax.load(tmp_path / "model")
    kept = np.load(tmp_path / "answers.npz")
    given = {key: kept[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    answer = answering(model, SentenceModel(Path()))
    expected = jax.device_get(jax.jit(answer)(model.params, given))
    assert outputs_of(ARCHITECTURES[name], model.config).keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(kept[f"answer {key}"], values, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("BertForMaskedLM", {"attention_window": 2}),
        ("RobertaForSequenceClassification", {}),
        ("AlbertForPreTraining", {}),
        ("DistilBertForQuestionAnswering", {}),
        ("ElectraForPreTraining", {}),
        ("ModernBertForSequenceClassification", {"classifier_pooling": "mean"}),
        ("ModernBertModel", {"local_attention": 4}),
    ],
)
def test_program_of_every_family_answers_as_the_model(tmp_path, name, fields):
    config = tiny_config_of(name, pad_token_id=0, **fields)
    params = draw_parameters(config, name)
    save_model_directory(tmp_path / "model", config, params, GOLDEN / "tiny_bert", name)
    done = run(EXPORT, tmp_path)  # which compares both
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_program_is_for_all_platforms_and_refuses_texts_that_are_too_long(tmp_path):
    save(tmp_path, "BertForMaskedLM")
    done = run(EXPORT, tmp_path)
    assert done.returncode == 0, done.stderr
    code = """
import jax, numpy as np
from jax import export
program = export.deserialize(bytearray(open("sms-jax/stablehlo/model.jax_export", "rb").read()))
assert program.platforms == ("cpu", "cuda", "tpu"), program.platforms
weights = np.load("sms-jax/stablehlo/weights.npz")
ids = np.ones((2, 13), np.int32)
inputs = {"input_ids": ids, "attention_mask": ids, "token_type_ids": 0 * ids}
program.call([weights[name] for name in weights.files], inputs)
"""
    done = run(code, tmp_path)
    assert done.returncode == 1
    assert "sequence_length" in done.stderr.splitlines()[-1] or "12" in done.stderr


@pytest.mark.slow
def test_attention_of_one_device_is_not_in_the_program(tmp_path):
    """A model that runs by another backend is exported with the textbook's."""
    save(tmp_path, "BertForMaskedLM")
    code = """
import bertjax
for attention in ("blockwise", "explicit"):
    bertjax.load("model", attention=attention).export(attention, "stablehlo")
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        export.deserialize(bytearray((tmp_path / name / PROGRAM_NAME).read_bytes())).mlir_module()
        for name in ("blockwise", "explicit")
    )
    assert ours == theirs

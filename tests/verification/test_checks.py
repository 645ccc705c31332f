"""`verify` passes a model that is right, and each row of its table fails where one is broken."""

import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bertjax.numerics.dropout as dropout
from bertjax.families.registry import load_config
from bertjax.kernels import dense, library
from bertjax.kernels.backends import BACKENDS
from bertjax.model.embeddings import Embeddings
from bertjax.program.errors import UserError
from bertjax.verification import checks, reference
from bertjax.verification.checks import Check, checks_of, verify
from bertjax.verification.outputs import compare_arrays
from tests.families.tiny import BERT_CLASSES
from tests.tiers import leave_whole

CLASSES = Path(__file__).parents[1] / "parity" / "golden" / "classes"
MODEL = CLASSES / "BertForTokenClassification"
NAMES = [
    "ids",
    "reference",
    "padding",
    "batch order",
    "packing",
    "devices",
    "accumulation",
    "kernels",
]


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    """The same rows wherever the tests run; tests/parity asks torch."""
    monkeypatch.setattr(reference, "missing_packages", lambda: ["torch", "transformers"])


def check(*names, model=MODEL, against=None):
    """The rows of these names; the others are not computed."""
    every = checks._checks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            checks, "_checks", lambda *given: [one for one in every(*given) if one[0] in names]
        )
        rows = {row.name: row for row in verify(model, against)}
    return rows[names[0]] if len(names) == 1 else rows


@pytest.fixture
def other(tmp_path):
    """A copy of the model in which one weight differs by a thousandth."""
    directory = Path(shutil.copytree(MODEL, tmp_path / "other"))
    tensors = load_file(directory / "model.safetensors")
    tensors["classifier.weight"][1, 5] += 1e-3
    save_file(tensors, directory / "model.safetensors")
    return directory


def edit_config(directory, **fields):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | fields))


@pytest.mark.parametrize("architecture", leave_whole(BERT_CLASSES, BERT_CLASSES[3:]))
def test_every_class_answers_alike_padded_and_packed(architecture):
    names = "padding", "batch order", "packing"
    found = check(*names, model=CLASSES / architecture)
    for name in names:
        assert found[name].result == "ok", found[name]
        assert found[name].difference < 1e-5


@pytest.mark.whole
@pytest.mark.parametrize(
    "architecture",
    [
        "BertForTokenClassification",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in BERT_CLASSES
            if name != "BertForTokenClassification"
        ),
    ],
)
def test_every_class_learns_alike_on_devices_and_in_parts(architecture):
    rows = list(verify(CLASSES / architecture))
    assert [row.name for row in rows] == NAMES == checks_of(None)
    found = {row.name: row for row in rows}
    assert found["devices"].result == found["accumulation"].result == "ok"
    assert found["devices"].detail == "8 devices (cpu) and one, answers and gradients"
    assert found["reference"].result == "not checked"
    assert found["reference"].detail.startswith("torch and transformers not installed")
    assert found["kernels"].result == "ok"
    others = [name for name, one in BACKENDS.items() if "cpu" in one.platforms and name != "dense"]
    assert found["kernels"].detail == f"attention {' and '.join(others)}, packed, and dense"


def sees_padding(sequence_ids, window, causal):
    rows, length = sequence_ids.shape
    return jnp.ones((rows, 1, length, length), bool)


def sees_other_examples(sequence_ids, window, causal):
    real = sequence_ids != 0
    return (real[:, :, None] & real[:, None, :])[:, None]


@pytest.mark.parametrize(
    ("mask", "fails", "holds"),
    [(sees_padding, "padding", []), (sees_other_examples, "packing", ["padding", "batch order"])],
)
def test_mask_that_shows_too_much_fails(monkeypatch, mask, fails, holds):
    monkeypatch.setattr(dense, "see_own_sequence", mask)
    found = check("padding", "batch order", "packing")
    assert found[fails].result == "FAILED"
    assert found[fails].difference > 1e-3
    assert [name for name in holds if found[name].result != "ok"] == []


def test_positions_that_count_through_the_row_fail_packing(monkeypatch):
    right = Embeddings.__call__

    def count_through(self, token_ids, token_type_ids, position_ids, row_ids, dropout):
        counted = jnp.broadcast_to(jnp.arange(token_ids.shape[1]) % 7, token_ids.shape)
        return right(self, token_ids, token_type_ids, counted, row_ids, dropout)

    monkeypatch.setattr(Embeddings, "__call__", count_through)
    found = check("padding", "batch order", "packing")
    assert found["padding"].result == found["batch order"].result == "ok"
    assert found["packing"].result == "FAILED"


def test_answer_that_depends_on_the_row_fails_batch_order(monkeypatch):
    right = Embeddings.__call__

    def shift(self, token_ids, token_type_ids, position_ids, row_ids, dropout):
        shifted = (position_ids + row_ids[:, None]) % 7
        return right(self, token_ids, token_type_ids, shifted, row_ids, dropout)

    monkeypatch.setattr(Embeddings, "__call__", shift)
    assert check("batch order").result == "FAILED"


@pytest.mark.whole
def test_rows_that_reach_the_wrong_device_fail(monkeypatch):
    right = checks.place_rows

    def mix_up(batch, mesh):
        return right(jax.tree.map(lambda x: np.roll(x, 1, axis=0), batch), mesh)

    monkeypatch.setattr(checks, "place_rows", mix_up)
    assert check("devices").result == "FAILED"


@pytest.mark.whole
def test_dropout_that_counts_within_a_part_fails_accumulation(monkeypatch, other):
    edit_config(other, hidden_dropout_prob=0.3)
    right = dropout.draw_kept
    monkeypatch.setattr(
        dropout,
        "draw_kept",
        lambda key, row_ids, shape, rate: right(key, jnp.arange(len(row_ids)), shape, rate),
    )
    found = check("devices", "accumulation", model=other)
    assert found["accumulation"].result == "FAILED"
    assert found["devices"].result == "ok"


def see_all(query, key, value, sequence_ids, *, window):
    return library.xla(query, key, value, jnp.minimum(sequence_ids, 1), window=window)


def test_kernel_that_shows_other_examples_fails(monkeypatch):
    wrong = BACKENDS["blockwise"]._replace(source=f"{__name__}:see_all")
    monkeypatch.setitem(BACKENDS, "blockwise", wrong)
    assert check("kernels").result == "FAILED"


def test_one_device_is_said_not_to_be_checked(monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(checks.jax, "devices", lambda *_: one)
    row = check("devices")
    assert (row.result, row.detail) == ("not checked", "there is one device, cpu")


def test_nothing_that_is_not_a_number_passes(tmp_path):
    assert Check("padding", math.nan, 1e-5, "").result == "FAILED"
    assert Check("padding", 1e-5, 1e-5, "").result == "ok"
    assert Check("padding", 1.1e-5, 1e-5, "").result == "FAILED"
    nan, one = np.array([1.0, math.nan]), np.array([1.0, 2.0])
    assert math.isnan(compare_arrays([(one, one), (nan, one)]))
    assert compare_arrays([(one, one), (one * 4, one * 4.5)]) == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match=r"\(2,\) is compared with \(1,\)"):
        compare_arrays([(one, one[:1])])


def test_other_directory_is_compared(other, tmp_path):
    same = shutil.copytree(MODEL, tmp_path / "same")
    row = check("against", against=str(same))
    assert (row.result, row.difference) == ("ok", 0.0)
    row = check("against", against=str(other))
    assert row.result == "FAILED"
    assert 1e-5 < row.difference < 1e-2
    assert row.detail == f"the same class of {other}"
    assert checks_of(str(other)) == ["against", *NAMES]


def test_what_cannot_be_compared_is_refused(other, tmp_path):
    with pytest.raises(UserError, match="is a BertForMaskedLM and has no token_head"):
        check("against", against=str(CLASSES / "BertForMaskedLM"))
    with pytest.raises(UserError, match=r"hub/name: no such directory, and torch and transformers"):
        check("against", against="hub/name")
    with pytest.raises(UserError, match="no such directory"):
        check("padding", model=tmp_path / "nowhere")
    edit_config(other, type_vocab_size=4)
    tensors = load_file(other / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    tensors[name] = tensors[name][:4]
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(UserError, match="its type_vocab_size is 4, that of the model 5"):
        check("against", against=str(other))


def test_classifier_that_transformers_has_not_is_said_not_to_be_checked(
    other, monkeypatch, tmp_path
):
    monkeypatch.setattr(reference, "missing_packages", list)
    edit_config(other, classifier_norm="layer")
    tensors = load_file(other / "model.safetensors")
    tensors |= {f"classifier_norm.{name}": np.ones(12, np.float32) for name in ("weight", "bias")}
    save_file(tensors, other / "model.safetensors")
    row = check("reference", model=other)
    assert row.result == "not checked"
    assert row.detail == "transformers has no classifier with classifier_norm=layer"


def test_size_of_heads_that_transformers_has_not_is_said_not_to_be_checked(other, monkeypatch):
    monkeypatch.setattr(reference, "missing_packages", list)
    config = load_config(other)
    edit_config(other, attention_head_size=config.head_size)
    row = check("reference", model=other)
    assert row.result == "not checked"
    assert (
        row.detail == f"transformers has no attention_head_size, which is {config.head_size} here"
    )


def test_window_that_transformers_has_not_is_said_not_to_be_checked(other, monkeypatch):
    monkeypatch.setattr(reference, "missing_packages", list)
    edit_config(other, model_type="bert-with-attention-window", attention_window=2)
    row = check("reference", model=other)
    assert row.result == "not checked"
    assert row.detail == "transformers has no attention_window, which is 2 here"

"""The row of `bertjax verify` that asks torch and transformers. Skipped without them."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.interop.huggingface import save_model_directory
from bertjax.kernels import dense
from bertjax.model.embeddings import Embeddings
from bertjax.program.errors import UserError
from bertjax.verification.checks import verify
from tests.families.tiny import BERT_CLASSES
from tests.parity.random_models import make_random_model
from tests.parity.test_ladder import CLASSES

GOLDEN = Path(__file__).parent / "golden"


def reference_row(model, against=None):
    return next(row for row in verify(model, against) if row.name == "reference")


@pytest.mark.parametrize("architecture", BERT_CLASSES)
def test_every_class_is_checked_against_transformers(architecture):
    row = reference_row(GOLDEN / "classes" / architecture)
    assert (row.name, row.result) == ("reference", "ok")
    assert row.detail == "the same directory in transformers, torch"


@pytest.mark.parametrize("architecture", sorted({*CLASSES} - {*BERT_CLASSES}))
def test_classes_of_other_families_are_checked_against_transformers(tmp_path, architecture):
    config, params = make_random_model(architecture)
    save_model_directory(tmp_path / "model", config, params, GOLDEN / "tiny_bert", architecture)
    row = reference_row(tmp_path / "model")
    assert (row.result, row.detail) == ("ok", "the same directory in transformers, torch")


def test_real_checkpoint_is_checked_against_transformers(shared_data):
    row = reference_row(shared_data / "weights" / "bert_tiny_mlm")
    assert row.result == "ok"
    assert 0 < row.difference < 1e-5


def test_positions_that_are_wrong_fail(monkeypatch):
    right = Embeddings.__call__

    def count_from_one(self, token_ids, token_type_ids, position_ids, row_ids, dropout):
        return right(self, token_ids, token_type_ids, (position_ids + 1) % 7, row_ids, dropout)

    monkeypatch.setattr(Embeddings, "__call__", count_from_one)
    row = reference_row(GOLDEN / "classes" / "BertForMaskedLM")
    assert row.result == "FAILED"
    assert row.difference > 1e-3


def sees_itself(sequence_ids, window, causal):
    itself = jnp.eye(sequence_ids.shape[1], dtype=bool)
    return (itself & (sequence_ids != 0)[:, None, :])[:, None]


def test_mask_that_hides_the_others_fails(monkeypatch):
    monkeypatch.setattr(dense, "see_own_sequence", sees_itself)
    assert reference_row(GOLDEN / "classes" / "BertModel").result == "FAILED"


def test_directory_that_transformers_cannot_read_is_said_not_to_be_checked():
    row = reference_row(GOLDEN / "flax_bert")
    assert row.result == "not checked"
    assert row.detail.startswith("transformers cannot load it: ")


def test_name_that_is_no_model_of_the_hub_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "flax_bert", tmp_path / "model")
    with pytest.raises(UserError, match=r"--against no such/name at all: no such directory, and"):
        reference_row(tmp_path / "model", "no such/name at all")

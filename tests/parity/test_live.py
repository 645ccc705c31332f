"""bertjax against torch and transformers themselves.

    .venv-parity/bin/python -m pytest tests/parity

Skipped where torch is not installed.
"""

import logging
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.architectures import ARCHITECTURES  # noqa: E402
from bertjax.config import HIDDEN_ACTIVATIONS  # noqa: E402
from bertjax.inference.fill_mask import fill_mask  # noqa: E402
from bertjax.interop.huggingface import load_model_directory, save_model_directory  # noqa: E402
from bertjax.model.bert import BertForMaskedLM, BertForPreTraining  # noqa: E402
from bertjax.text.tokenizer import load_tokenizer  # noqa: E402
from tests.parity.random_models import make_random_model  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
SENTENCES = ["The capital of France is [MASK].", "I [MASK] a cup of [MASK] every morning, don't I?"]


@pytest.fixture
def trained(shared_data):
    return shared_data / "weights" / "bert_tiny_mlm"


def load_without_complaint(model_class, path, caplog):
    """The model; missing or unexpected keys, warnings and logged complaints fail the test."""
    transformers.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        model, info = model_class.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    assert caplog.text == ""
    return model.eval()


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
def test_saved_model_gives_the_same_logits_in_transformers(tmp_path, caplog, activation):
    config, params = make_random_model(hidden_act=activation)
    save_model_directory(tmp_path / "model", config, params, GOLDEN / "tiny_bert")
    theirs = load_without_complaint(transformers.BertForPreTraining, tmp_path / "model", caplog)

    random = np.random.default_rng(0)
    token_ids = random.integers(1, 99, (3, 13)).astype(np.int32)
    token_type_ids = random.integers(0, 2, (3, 13)).astype(np.int32)
    real = (np.arange(13) < np.array([[13], [9], [5]])).astype(np.int32)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(token_ids).long(),
            token_type_ids=torch.tensor(token_type_ids).long(),
            attention_mask=torch.tensor(real).long(),
        )
    actual = jax.jit(BertForPreTraining(config).apply)(
        {"params": params}, token_ids, token_type_ids, real
    )
    np.testing.assert_allclose(
        actual.mlm_logits[real == 1],
        expected.prediction_logits.numpy()[real == 1],
        atol=1e-5,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        actual.nsp_logits[:, 0], expected.seq_relationship_logits.numpy(), atol=1e-5, rtol=1e-5
    )


def test_saved_tokenizer_gives_the_same_ids_in_transformers(tmp_path, caplog):
    config, params = make_random_model(hidden_act="gelu")
    save_model_directory(tmp_path / "model", config, params, GOLDEN / "tiny_bert")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ours = load_tokenizer(tmp_path / "model")
    text = "This is what they had: a cat."
    expected = theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode_batch([text])[0].tolist() == expected
    assert theirs.mask_token_id == ours.mask_id
    assert caplog.text == ""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_class_loads_without_complaint_and_comes_back(tmp_path, caplog, architecture):
    of_two = ARCHITECTURES[architecture].kind in ("spans", "sentence-order")
    labels = {} if of_two else {"id2label": ("O", "B-PER", "I-PER")}
    config, params = make_random_model(architecture, hidden_act="gelu", **labels)
    save_model_directory(tmp_path / "ours", config, params, GOLDEN / "tiny_bert", architecture)
    theirs = load_without_complaint(getattr(transformers, architecture), tmp_path / "ours", caplog)
    assert theirs.config.architectures == [architecture]
    if labels:
        assert theirs.config.id2label == dict(enumerate(config.id2label))
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_model_directory(tmp_path / "theirs")
    assert (again.config, again.architecture, again.notes) == (config, architecture, [])
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_class_is_found_by_the_auto_classes(tmp_path, architecture):
    config, params = make_random_model(architecture, hidden_act="gelu")
    save_model_directory(tmp_path / "ours", config, params, GOLDEN / "tiny_bert", architecture)
    kind = architecture.partition("For")[2]
    auto = transformers.AutoModel if not kind else getattr(
        transformers, f"AutoModelFor{kind}"
    )  # fmt: skip
    model = auto.from_pretrained(tmp_path / "ours")
    assert type(model).__name__ == architecture


def test_weights_saved_by_transformers_come_back_as_they_were(tmp_path):
    config, params = make_random_model(hidden_act="gelu")
    save_model_directory(tmp_path / "ours", config, params, GOLDEN / "tiny_bert")
    model = transformers.BertForPreTraining.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    again, params_again, _, notes = load_model_directory(tmp_path / "theirs")
    assert notes == []
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_trained_checkpoint_gives_the_same_masked_lm_logits(trained):
    theirs = transformers.BertForMaskedLM.from_pretrained(trained).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**batch).logits.numpy()

    config, params, *_ = load_model_directory(trained, "BertForMaskedLM")
    inputs = [
        batch[name].numpy().astype(np.int32)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    ]
    output = jax.jit(BertForMaskedLM(config).apply)({"params": params}, *inputs)
    real = inputs[2] == 1
    assert not real.all()
    np.testing.assert_allclose(output.logits[real], expected[real], atol=1e-5, rtol=1e-5)


def test_fill_mask_gives_what_the_pipeline_of_transformers_gives(trained):
    config, params, *_ = load_model_directory(trained, "BertForMaskedLM")
    ours = fill_mask(BertForMaskedLM(config), params, load_tokenizer(trained), SENTENCES)
    pipeline = transformers.pipeline("fill-mask", model=str(trained), top_k=5)
    for result in ours:
        theirs = pipeline(result.text)
        theirs = theirs if len(result.masks) > 1 else [theirs]
        for mask, expected in zip(result.masks, theirs, strict=True):
            assert [candidate.token_id for candidate in mask.candidates] == [
                candidate["token"] for candidate in expected
            ]
            np.testing.assert_allclose(
                [candidate.probability for candidate in mask.candidates],
                [candidate["score"] for candidate in expected],
                atol=1e-5,
            )

"""Fixtures of the tests of fine-tuning."""

import jax
import jax.numpy as jnp
import pytest

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.model.bert import BertForMaskedLM
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.train.finetune_runs import TINY


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """A new model of two layers, 32 wide, whose heads learn in a few dozen steps."""
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=17,
        initializer_range=0.2,
    )
    model = BertForMaskedLM(config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    path = tmp_path_factory.mktemp("pretrained") / "model"
    save_model_directory(path, config, params, TINY, "BertForMaskedLM")
    return str(path)


@pytest.fixture(scope="module")
def one_device():
    """One device, and no measurement of its rate, which takes longer than a run here."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        patch.setattr("train.finetune.make_mesh", lambda config: mesh)
        patch.setattr("train.finetune.measure_matmul_rate", lambda mesh, dtype: 1e9)
        yield

"""Every YAML in configs/ is read and its model's shapes are traced, so that none can rot."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bertjax.objectives.masking import Vocabulary
from bertjax.planning.program import describe_batch
from bertjax.program.config_parser import parse
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.optimizer import make_schedule
from bertjax.training.pattern_start import start_with_patterns
from bertjax.training.pretrain_config import PretrainConfig, make_step, shape_new_model
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.state import describe_state

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted((FOLDER / "pretrain").glob("*.yaml"))
FINETUNE_CONFIGS = sorted((FOLDER / "finetune").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_pretraining_config_is_read_and_traced(path):
    config = parse(PretrainConfig, "", ["--config", str(path), "--data", "rows", "--run", "run"])
    bert_config = shape_new_model(config.model, 30522, {"pad_token_id": 0}, 128)
    vocabulary = Vocabulary(30522, 4, list(range(5)), jnp.zeros(30522, bool))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    step = make_step(config, bert_config, vocabulary, 100.0, mesh)
    key, terms = jax.random.key(0), step.objective.terms
    state = describe_state(step.model, step.optimizer, mesh, key, terms)
    batch = describe_batch(config.batch_size, 128, 4, mesh)
    with jax.set_mesh(mesh):
        after, report = jax.eval_shape(step.take, state, batch, jnp.float32(0))
    assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, state.params)
    assert report.loss.shape == ()
    if config.model.start == "patterns":
        small = dataclasses.replace(bert_config, vocab_size=99)
        start_with_patterns(small, jnp.zeros(99), 3, jax.random.key(0))
    assert make_schedule(config.schedule, 100.0)(jnp.float32(50)) > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_pretraining_config_says_command_hardware_and_time(path):
    head = path.read_text().split("\nmodel:")[0]
    assert "Hardware:" in head
    assert "make demo" in head or "bertjax pretrain --config" in head


@pytest.mark.parametrize("path", FINETUNE_CONFIGS, ids=lambda path: path.name)
def test_finetuning_config_is_read(path):
    config = parse(FinetuneConfig, "", ["--config", str(path), "--run", "run"])
    assert config.data.train
    head = path.read_text().split("\ntask:")[0]
    assert f"bertjax finetune --config configs/finetune/{path.name}" in head
    assert "Hardware:" in head
    for split in ("train", "validation", "test"):
        for file in getattr(config.data, split):
            assert f"--data.{split} {file}" in head


def test_there_are_configs():
    assert len(CONFIGS) >= 3
    assert len(FINETUNE_CONFIGS) >= 5

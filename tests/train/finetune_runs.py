"""Tiny fine-tuning runs, for tests: the data, the config, the run."""

import random
from pathlib import Path

import jax

from bertjax.commands.finetune import tell_result
from bertjax.tasks.data_config import DataConfig
from bertjax.training.budget import BudgetConfig
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.finetune import run_finetuning
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.optimizer import OptimizerConfig
from bertjax.training.progress import RunProgress
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.starting_model import FinetunedModelConfig

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"  # V=99, M=17
WORDS = tuple("the of and a to in is it was for on as with his they at be this".split())  # noqa: SIM905


def write_classes(path, count=96):
    """`cat` or `dog` by whether `on` or `his` is in the text."""
    draw = random.Random(1)
    lines = []
    for number in range(count):
        text = draw.choices([word for word in WORDS if word not in ("on", "his")], k=5)
        text[draw.randrange(5)] = ("on", "his")[number % 2]
        lines.append(f"{'cat' if number % 2 else 'dog'}\t{' '.join(text)}")
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    return path


def make_config(tmp_path, pretrained, task="classification", **fields):
    defaults = {
        "task": task,
        "run": str(tmp_path / "run"),
        "data": DataConfig(
            train=[str(write_classes(tmp_path / "classes.tsv"))],
            validation_share=0.1,
            test_share=0.1,
        ),
        "model": FinetunedModelConfig(init=pretrained),
        "budget": BudgetConfig(steps=12),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "checkpoint": CheckpointConfig(every=5),
        "max_length": 17,
        "batch_size": 16,
        "log_every": 3,
    }
    return FinetuneConfig(**(defaults | fields))


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def run(config, data=None, mesh=None):
    """Runs it on one device, as the command does; returns the exit code."""
    result = run_finetuning(config, data, mesh=mesh or one_device(), reporter=RunProgress())
    return tell_result(config, result)

"""Pretraining with options drawn at random: interrupted, continued, and on several devices."""

import jax
import numpy as np
import pytest

from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain import run_pretraining
from bertjax.training.progress import Reporter
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.train.pretrain_runs import STEPS, assert_same_run, read_config

pytestmark = pytest.mark.slow

FAMILIES = {
    "bert": (), "roberta": (), "distilbert": (), "albert": (), "electra": (),
    "modernbert": ("--model.local_attention", 6, "--model.global_attn_every_n_layers", 2),
}  # fmt: skip
# Of each of them one is drawn.
CHOICES = (
    ((), (), ("--masking.rate", 0.5, "--masking.end-rate", 0.2),
     ("--masking.strategy", "whole-word"), ("--masking.strategy", "span", "--masking.rate", 0.3)),
    ((), ("--average", 0.9)),
    ((), ("--z-loss", 0.01)),
    ((), (), ("--optimizer.name", "muon"), ("--optimizer.name", "lamb")),
    ((), ("--dtype", "bfloat16")),
    ((), ("--remat", "full"), ("--remat", "dots")),
    ((), ("--schedule.name", "warmup-stable-decay"), ("--schedule.name", "cosine")),
    ((), ("--accumulation", 2)),
    ((), ("--evaluation.at_start", "true")),
    (
        (), (),
        ("--phases.shares", 0.25, 0.75, "--phases.causal", "true", "false"),
        ("--phases.shares", 0.25, 0.25, 0.5, "--phases.lengths", 8, 16, 16,
         "--phases.batch-sizes", 16, 8, 16),
    ),
    ((), (), ("--model.hidden_dropout_prob", 0, "--model.attention_probs_dropout_prob", 0)),
)  # fmt: skip


def draw_options(draw, family):
    words = ["--model.family", family, *FAMILIES[family]]
    for choices in CHOICES:
        words += choices[draw.integers(len(choices))]
    # A discriminator looks ahead, and has no causal phase.
    if family == "electra" and "--phases.causal" not in words and draw.random() < 0.7:
        words += ("--objective", "replaced-tokens", "--replaced_tokens.generator_size", 0.5)
    return words


@pytest.mark.parametrize("seed", range(16))
def test_interrupted_run_and_one_on_four_devices_are_the_same(here, prepared, tmp_path, seed):
    draw = np.random.default_rng(seed)
    options = draw_options(draw, list(FAMILIES)[seed % len(FAMILIES)])
    print(*options)
    config = read_config(prepared, tmp_path / "whole", *options)
    lines = []
    run_pretraining(config, mesh=here, reporter=Reporter(lines.append))
    places = [line for line in lines if line.startswith("step") and f"step {STEPS}" not in line]
    place = places[draw.integers(len(places))].split("  ")[0]

    def interrupt(line):
        if line.startswith(place):
            raise KeyboardInterrupt

    config = read_config(prepared, tmp_path / "cut", *options)
    assert run_pretraining(config, mesh=here, reporter=Reporter(interrupt)).stopped == "SIGINT"
    run_pretraining(config, mesh=here)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")

    several = make_mesh(MeshConfig(), jax.devices()[:4])
    run_pretraining(read_config(prepared, tmp_path / "several", *options), mesh=several)
    losses = [
        np.array([line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")])
        for name in ("whole", "several")
    ]
    within = 2e-2 if "bfloat16" in options else 2e-4
    np.testing.assert_allclose(losses[1], losses[0], rtol=within)

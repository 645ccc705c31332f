"""Pretraining by replaced-token detection, from rows to two model directories."""

import dataclasses
import random
import shutil

import jax
import numpy as np
import pytest

from bertjax.analysis.report.development import Development
from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import load
from bertjax.model.bert import BertForPreTraining
from bertjax.program.errors import UserError
from bertjax.training.generator_directory import shape_generator, start_generator
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain import run_pretraining
from bertjax.training.progress import Reporter
from tests.prepared_rows import write_rows
from tests.train.pretrain_runs import (
    T,
    V,
    assert_same_run,
    finish,
    kill_at_random,
    make_columns,
    read_config,
)

REPLACED = ("--objective", "replaced-tokens")
ELECTRA = (*REPLACED, "--model.family", "electra", "--replaced_tokens.generator_size", 0.5)


class Lines(Reporter):
    """Keeps every line, as a command says it."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, message):
        self.said.append(message)


def pretrain(config, mesh, **arguments):
    """Runs in this process; returns the result and everything that was said."""
    lines = Lines()
    result = run_pretraining(config, mesh=mesh, reporter=lines, **arguments)
    return result, "\n".join(lines.said)


@pytest.fixture(scope="module")
def finished(prepared, here, tmp_path_factory):
    """A run of four steps, and what it said."""
    run = tmp_path_factory.mktemp("replaced") / "run"
    options = ("--budget.steps", 4, "--log-every", 1)
    config = read_config(prepared, run, *ELECTRA, *options)
    return pretrain(config, here)


def test_run_makes_a_discriminator_and_beside_it_its_generator(finished):
    result, said = finished
    model, generator = load(result.model_directory), load(result.model_directory / "generator")
    assert (model.architecture, generator.architecture) == (
        "ElectraForPreTraining",
        "ElectraForMaskedLM",
    )
    assert (model.config.hidden_size, generator.config.hidden_size) == (32, 16)
    assert (model.config.embedding_size, generator.config.num_attention_heads) == (128, 2)
    assert model.config.max_length == generator.config.max_length == T
    tables = [dict(one.params["bert"]["embeddings"]) for one in (model, generator)]
    for embeddings in tables:
        del embeddings["projection"]
    jax.tree.map(np.testing.assert_array_equal, *tables)
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    own = sum(leaf.size for leaf in jax.tree.leaves(generator.params))
    shared = sum(leaf.size for leaf in jax.tree.leaves(tables[0]))
    assert f"{count + own - shared:,} parameters, of which {count:,} are the model's" in said
    assert f"try it     bertjax embed --model {result.model_directory} --output" in said
    assert f"bertjax fill-mask --model {result.model_directory / 'generator'} " in said
    assert "is pretrained by the replaced tokens alone" in said


def test_log_has_the_figures_of_both(finished):
    result, said = finished
    train = [line for line in result.history if line["split"] == "train"]
    assert len(train) == 4
    for line in train:
        total = line["mlm_loss"] + 50 * line["replaced_loss"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert train[0]["replaced_loss"] == pytest.approx(np.log(2), rel=0.2)
    assert train[-1]["replaced_loss"] < train[0]["replaced_loss"]
    scores = result.scores["test"]
    assert scores["by_frequency_loss"] == pytest.approx(np.log(2), rel=0.3)
    total = scores["mlm_loss"] + 50 * scores["by_frequency_loss"]
    assert scores["loss"] == pytest.approx(total, rel=1e-5)
    best = min(line["loss"] for line in result.history if line["split"] == "validation")
    assert f"validation loss {best:.3f} = the generator's + 50 x" in said
    assert 0 < scores["replaced_share"] < 0.2
    assert f"on the generator's {scores['replaced_loss']:.3f} (baseline of their share" in said


def continue_from(result, prepared, run, *options):
    """The config of a step from a run's model, which has a shape of its own."""
    given = ("--model.init", result.model_directory, "--budget.steps", 1, *REPLACED, *options)
    config = read_config(prepared, run, *given)
    shape = dict.fromkeys(
        ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **shape))


def test_generator_beside_the_model_is_taken_or_a_new_one_is_drawn(finished, prepared, tmp_path):
    result, _ = finished
    loaded = load(result.model_directory)
    config = continue_from(result, prepared, tmp_path)
    assert shape_generator(config, loaded.config).hidden_size == 16
    params, notes = start_generator(config, loaded.params)
    assert params["discriminator"] is loaded.params
    assert set(params["generator"]["bert"]["embeddings"]) == {"projection"}
    assert "the generator is trained on, with the discriminator's embeddings" in notes[-1]

    wide = continue_from(result, prepared, tmp_path, "--replaced_tokens.generator_size", 0.75)
    with pytest.raises(
        UserError, match=r"generator_size=0.75 does not fit the generator in .*16 w"
    ):
        shape_generator(wide, loaded.config)
    longer = dataclasses.replace(loaded.config, max_position_embeddings=T + 1)
    with pytest.raises(
        UserError, match=r"has max_position_embeddings=16, and the discriminator 17"
    ):
        shape_generator(config, longer)

    alone = tmp_path / "alone"
    shutil.copytree(result.model_directory, alone, ignore=shutil.ignore_patterns("generator"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, init=str(alone)))
    assert shape_generator(config, loaded.config).hidden_size == 8  # a quarter
    params, [note] = start_generator(config, loaded.params)
    assert set(params) == {"discriminator"}
    assert note.startswith("there is no generator in ")
    assert note.endswith("a new one is drawn, and must be trained")


@pytest.mark.slow
def test_model_is_continued_with_its_generator(finished, prepared, here, tmp_path):
    """At a rate of next to nothing both come out as they went in; the model's heads are seen."""
    result, _ = finished
    options = ("--optimizer.learning_rate", 1e-20, "--development.examples", 3)
    config = continue_from(result, prepared, tmp_path / "again", *options)
    again, _ = pretrain(config, here, make_development=Development)
    assert load(again.run / "first_model").architecture == "ElectraForPreTraining"
    for folder in ("", "generator"):
        before, after = (load(one.model_directory / folder).params for one in (result, again))
        jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            REPLACED,
            "objective=replaced-tokens needs a family with a discriminator, and a bert has none:"
            " pass model.family=electra, or leave",
        ),
        (
            ("--replaced_tokens.temperature", 2),
            "fields of replaced_tokens have no effect with objective=masked-lm; pass objective=",
        ),
    ],
)
def test_mistake_names_field_and_way_out(prepared, here, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pretrain(read_config(prepared, tmp_path / "run", *options), here)


def test_bert_is_no_discriminator_to_start_from(prepared, here, tmp_path):
    config = BertConfig(V, 8, 1, 1, 8, max_position_embeddings=T)
    params = jax.jit(BertForPreTraining(config).init)(jax.random.key(0), np.zeros((1, 1), np.int32))
    save_model_directory(tmp_path / "bert", config, params["params"], prepared / "tokenizer")
    given = ("--model.init", tmp_path / "bert", *REPLACED)
    with pytest.raises(UserError, match=r"and a bert has none: pass model.family=electra"):
        pretrain(read_config(prepared, tmp_path / "run", *given), here)


def test_run_is_not_continued_with_another_objective(finished, prepared, here):
    result, _ = finished
    options = ("--model.family", "electra", "--budget.steps", 4)
    with pytest.raises(UserError, match=r"objective: replaced-tokens then, None now"):
        pretrain(read_config(prepared, result.run, *options), here)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(launch, tmp_path):
    steps = 200
    options = (*ELECTRA, "--budget.steps", steps)
    assert finish(launch(tmp_path / "whole", *options))[0] == 0
    killed = tmp_path / "killed"
    reached, _ = kill_at_random(launch, killed, random.Random(5), 3, *options, later=1.0)
    print(f"newest checkpoint at each kill: {reached}")
    assert 0 < reached[0] < reached[-1]
    assert_same_run(tmp_path / "whole", tmp_path / "killed", steps)
    weights = [
        (tmp_path / name / "model" / "generator" / "model.safetensors").read_bytes()
        for name in ("whole", "killed")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_loss_curve_is_the_same_on_any_devices_and_accumulation(launch, prepared, tmp_path):
    rows = tmp_path / "rows"
    splits = {name: make_columns(64, seed) for seed, name in enumerate(("train", "validation"))}
    splits["test"] = splits["validation"]
    write_rows(rows, splits, V, prepared / "tokenizer")
    options = ("--batch-size", 32, "--budget.steps", 20, "--log-every", 1)
    options += ("--evaluation.every", 20, "--checkpoint.every", 20, *ELECTRA)
    curves = {}
    for devices, accumulation in ((1, 1), (1, 4), (2, 1), (4, 1), (8, 1), (8, 4)):
        run = tmp_path / f"{devices}x{accumulation}"
        given = (*options, "--accumulation", accumulation)
        code, _, errors = finish(launch(run, *given, data=rows, devices=devices))
        assert code == 0, errors
        lines = read_metrics(run / "metrics.jsonl")
        losses = [line["loss"] for line in lines if line["split"] == "train"]
        assert len(losses) == 20
        curves[devices, accumulation] = np.array(losses)
    reference = curves[1, 1]
    assert reference[-1] < 0.95 * reference[0]
    worst = {key: np.abs(curve / reference - 1).max() for key, curve in curves.items()}
    print(f"largest relative difference by (devices, accumulation): {worst}")
    assert max(worst.values()) < 1e-5

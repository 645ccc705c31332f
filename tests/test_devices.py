"""A model on eight devices gives what it gives on one, whatever is asked of it."""

import argparse

import jax
import numpy as np
import pytest

import bertjax
from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.heads.blockwise_patterns import sum_maps_blockwise
from bertjax.analysis.heads.masked_scores import score_masked_texts
from bertjax.analysis.heads.objective import masked_language_objective, task_objective
from bertjax.analysis.heads.redundancy import measure_redundancy
from bertjax.analysis.layers.lens import logit_lens
from bertjax.cli import COMMANDS, make_parser
from bertjax.inference import batches
from bertjax.inference.labelled import task_of
from bertjax.program.errors import UserError
from bertjax.tasks.labelled import TextExample
from bertjax.training.sharding import MeshConfig, choose_mesh, make_mesh
from tests.analysis.saved import save
from tests.interop.test_hub import TINY
from tests.tiers import leave_whole

TEXTS = ["it was a cat", "was it", "a cat", "they were all of it", "the", "were they a", "it", "of"]
ROWS = [{"text": text, "label": "no" if "it" in text else "yes"} for text in TEXTS]
MASKED = [f"{text} [MASK]" for text in TEXTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    return {
        "tiny": TINY,
        "labels": save(folder, "BertForSequenceClassification", id2label=("no", "yes")),
    }


@pytest.fixture(scope="module")
def models(folders):
    mesh = make_mesh(MeshConfig(), jax.devices()[:8])
    split = make_mesh(MeshConfig(fsdp=2), jax.devices()[:8])
    return {
        (name, number): sharpen(bertjax.load(folder, mesh=of))
        for name, folder in folders.items()
        for number, of in (("one", None), ("eight", mesh), ("split", split))
    }


def sharpen(model):
    """A head as it is drawn hardly tells labels apart."""
    heads = {
        name: jax.tree.map(lambda weights: 50 * weights, part)
        for name, part in model.params.items()
        if name == "sequence_head"
    }
    return model.replace(params={**model.params, **heads})


def encode(model, texts=TEXTS):
    return encode_texts(model.tokenizer, texts, 17)


def objective(model):
    made = masked_language_objective(model, encode(model))
    gates = np.linspace(0.5, 1.5, 20, dtype=np.float32).reshape(5, 4)
    return made.measure(model.params, gates)[:2], made.differentiate(model.params, gates)


def fitted_objective(model):
    task = task_of(model)
    examples = [TextExample("here", row["text"], None, row["label"]) for row in ROWS]
    made = task_objective(model, task, examples, 17)
    return made.measure(model.params)[:2], made.differentiate(model.params)


def lens(model):
    [encoded] = encode(model, ["it was a cat"])
    return logit_lens(model, encoded, top_k=3)[1:]


USES = {
    "fill_mask": ("tiny", lambda model: model.fill_mask(MASKED)),
    "embed": ("tiny", lambda model: model.embed(TEXTS)),
    "predict": ("labels", lambda model: model.predict(TEXTS)),
    "evaluate": ("labels", lambda model: model.evaluate(ROWS, resamples=0)["scores"]),
    "trace": (
        "tiny",
        lambda model: [found[1:] for found in model.trace(TEXTS, without_heads="1-2")],
    ),
    "explain": (
        "labels",
        lambda model: [
            found.attributions
            for found in model.explain(
                TEXTS[0], methods=("integrated-gradients", "rollout", "relevance")
            )
        ],
    ),
    "what_if": ("tiny", lambda model: model.what_if(TEXTS[0], "was", by="is").after),
    "contexts": ("tiny", lambda model: model.contexts(TEXTS[0], "was", TEXTS).compared),
    "objective": ("tiny", objective),
    "objective of a task": ("labels", fitted_objective),
    "masked scores": ("tiny", lambda model: score_masked_texts(model, encode(model))[:5]),
    "sums of maps": ("tiny", lambda model: list(sum_maps_blockwise(model, encode(model)))),
    "divergences": (
        "tiny",
        lambda model: [
            measure_redundancy(model, encode(model), blockwise=b) for b in (True, False)
        ],
    ),
    "lens": ("tiny", lens),
    "random control": (
        "tiny",
        lambda model: [found[1:] for found in capture(randomize(model), encode(model))],
    ),
    "pruned": ("tiny", lambda model: model.prune("1-2").embed(TEXTS)),
}


def compare(one, other):
    mine, structure = jax.tree.flatten(one)
    theirs, same = jax.tree.flatten(other)
    assert structure == same
    assert len(mine) > 0
    for value, expected in zip(mine, theirs, strict=True):
        if isinstance(expected, str | bool) or expected is None:
            assert value == expected
        else:
            np.testing.assert_allclose(value, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use", leave_whole(USES, ("explain", "what_if")))
def test_eight_devices_give_what_one_gives(use, models, monkeypatch):
    name, function = USES[use]
    shared = []

    def compute(forward, params, batch, mesh, original=batches.compute):
        shared.append((mesh, {len(leaf) % 8 for leaf in jax.tree.leaves(batch)}))
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(params)} <= {8}
        return original(forward, params, batch, mesh)

    expected = function(models[name, "one"])
    monkeypatch.setattr(batches, "compute", compute)
    compare(function(models[name, "eight"]), expected)
    assert shared
    assert all(mesh is not None and sizes == {0} for mesh, sizes in shared)


@pytest.mark.parametrize(
    "use", leave_whole(["trace", "objective", "fill_mask", "explain"], ["explain"])
)
def test_divided_parameters_give_the_same(use, models):
    name, function = USES[use]
    compare(function(models[name, "split"]), function(models[name, "one"]))


def test_devices_are_those_asked_for(monkeypatch):
    assert choose_mesh(1) is None
    assert choose_mesh(None) is None  # a CPU's devices are its cores
    assert choose_mesh(3).shape == {"data": 3, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=r"--devices 99: this machine has \d+ \(cpu\); ask for"):
        choose_mesh(99)

    class Chip:
        platform = "gpu"

    monkeypatch.setattr(jax, "local_devices", lambda: [Chip(), Chip()])
    with pytest.raises(UserError, match=r"--devices 3: this machine has 2 \(gpu\); ask for"):
        choose_mesh(3)
    pair, chips = make_mesh(MeshConfig(), jax.devices()[:2]), []

    def make_mesh_of_chips(config, devices):
        chips.extend(devices)
        return pair

    monkeypatch.setattr("bertjax.training.sharding.make_mesh", make_mesh_of_chips)
    assert choose_mesh(None) is pair
    assert len(chips) == 2


RUNS_A_MODEL = sorted(
    command
    for command, parser in next(
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ).choices.items()
    if command in COMMANDS and command != "plan" and "--devices" in parser._option_string_actions
)


def test_commands_that_run_a_model_take_devices():
    assert {"fill-mask", "predict", "evaluate", "embed", "analyze", "attention", "explain"} <= {
        *RUNS_A_MODEL
    }
    assert {"what-if", "contexts", "prune"} <= {*RUNS_A_MODEL}


class LoadedError(Exception):
    pass


@pytest.mark.parametrize("command", RUNS_A_MODEL)
def test_command_loads_its_model_on_the_devices(command, folders, tmp_path, monkeypatch):
    from bertjax import cli

    def load(*arguments, mesh=None, **options):
        raise LoadedError(mesh.size)

    monkeypatch.setattr("bertjax.loaded.load", load)
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{row['text']},{row['label']}\n" for row in [*ROWS, *ROWS]))
    rows.write_text("text,label\n" + rows.read_text())
    model = ["--model", str(folders["labels"]), "--devices", "3"]
    words = {
        "predict": [TEXTS[0]],
        "evaluate": ["--data", str(rows)],
        "gate": ["--against", str(folders["labels"]), "--data", str(rows)],
        "analyze": ["--text", str(rows), "--output", str(tmp_path / "report")],
        "prune": ["--data", str(rows), "--heads", "1", "--output", str(tmp_path / "pruned")],
        "embed": [TEXTS[0], "--output", str(tmp_path / "v.npy")],
        "what-if": [TEXTS[0], "--word", "was"],
        "contexts": [TEXTS[0], "--word", "was", "--input", str(rows)],
        "fill-mask": [MASKED[0]],
    }.get(command, [TEXTS[0]])
    with pytest.raises(LoadedError, match="3"):
        cli.run([command, *model, *words])

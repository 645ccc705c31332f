"""Rows packed across requests: closed shapes, and outputs that do not depend on neighbours."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.serving.engine import Engine
from bertjax.serving.programs import SEQUENCES_PER_ROW, Asked, Running, make_program, put_on
from bertjax.serving.served import Served
from bertjax.serving.settings import ServeConfig
from bertjax.serving.threads import Threads
from bertjax.text.framing import TokenSequence
from tests.serving.served_models import tiny_model

NAMES = {
    "class": "BertForSequenceClassification",
    "choice": "BertForMultipleChoice",
    "next-sentence": "BertForPreTraining",
    "tag": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
    "token": "BertForPreTraining",
    "vector": "BertForPreTraining",
    "hidden": "BertModel",
}
RUNNING = Running(96, 32)


def on_one(model):
    return put_on([jax.devices()[0]], model)


def draw(count, name, seed=0):
    """Sequences of all lengths, some of them pairs."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        length = int(rng.integers(3, RUNNING.longest + 1))
        ids = rng.integers(5, 60, length).astype(np.int32)
        positions = np.sort(rng.permutation(length)[: rng.integers(1, 4)])
        second = int(rng.integers(2, length + 1))
        drawn.append(Asked(TokenSequence(ids, second), positions if name == "token" else None))
    return drawn


def run_all(program, sequences):
    """The output of each, and the shapes that ran."""
    outputs, shapes, left = {}, set(), list(enumerate(sequences))
    while left:
        batch = program.choose([one for _, one in left])
        assert 0 in batch.numbers, "what is due first runs first"
        here = [left[number] for number in batch.numbers]
        rows = program.make([one for _, one in here], batch.places, batch.shape)
        whole = np.asarray(program.run(rows, jax.devices()[0]))
        taken = program.take(whole, [one for _, one in here], batch.places)
        outputs |= {number: value for (number, _), value in zip(here, taken, strict=True)}
        shapes.add(batch.shape)
        left = [one for place, one in enumerate(left) if place not in set(batch.numbers)]
    return [outputs[number] for number in range(len(sequences))], shapes


@pytest.mark.parametrize("name", NAMES)
def test_output_is_that_of_the_sequence_alone(name):
    model = tiny_model(NAMES[name])
    program = make_program(name, on_one(model), RUNNING, ("mean", "cls"))
    sequences = draw(40, name)
    together, shapes = run_all(program, sequences)
    assert shapes <= set(program.shapes)
    assert max(shape.rows for shape in shapes) == 2
    for number in (0, 7, 39):
        [alone], _ = run_all(program, [sequences[number]])
        np.testing.assert_allclose(together[number], alone, atol=1e-5)
        reference = compute_alone(name, sequences[number])
        np.testing.assert_allclose(together[number], reference, atol=1e-5)


@functools.cache
def apply_alone(architecture):
    """The model itself, on a row of its own with padding behind."""
    model = tiny_model(architecture)
    return jax.jit(functools.partial(model.module.apply, {"params": model.params}))


def compute_alone(name, asked):
    """The same by the model itself, on a row of this sequence and nothing else."""
    length = asked.length
    ids, types = np.zeros((2, 1, RUNNING.longest), np.int32)
    ids[0, :length] = asked.sequence.token_ids
    types[0, asked.sequence.second_start : length] = 1
    output = apply_alone(NAMES[name])(jnp.asarray(ids), jnp.asarray(types))
    if name in ("vector", "hidden"):
        hidden = np.asarray((output if name == "hidden" else output.encoder).hidden)[0, :length]
        return hidden if name == "hidden" else np.concatenate([hidden.mean(axis=0), hidden[0]])
    if name == "next-sentence":
        return output.nsp_logits[0, 0]
    if name == "token":
        return jax.nn.softmax(output.mlm_logits[0])[asked.positions]
    return output.logits[0, :length] if name in ("tag", "span") else output.logits[0, 0]


def test_any_traffic_compiles_nothing_after_the_warm_up():
    program = make_program("class", on_one(tiny_model(NAMES["class"])), RUNNING)
    done = []
    program.warm_up(done.append)
    assert len(done) == len(program.shapes)
    compiled = program._forward._cache_size()
    for seed in range(5):
        run_all(program, draw(1 + 9 * seed, "class", seed))
    assert program._forward._cache_size() == compiled == len(program.shapes)


def test_short_sequences_share_a_row():
    program = make_program("class", on_one(tiny_model(NAMES["class"])), RUNNING)
    short = [Asked(TokenSequence(np.arange(5, 8, dtype=np.int32), 3))] * SEQUENCES_PER_ROW
    batch = program.choose(short)
    assert len(batch.numbers) > 1
    assert batch.places.row.max() + 1 < len(batch.numbers)


def test_every_device_gives_the_same():
    devices = tuple(jax.devices()[:2])
    program = make_program("class", put_on(devices, tiny_model(NAMES["class"])), Running(32, 32))
    [asked] = draw(1, "class")
    batch = program.choose([asked])
    rows = program.make([asked], batch.places, batch.shape)
    first, second = (program.run(rows, device) for device in devices)
    assert (first.device, second.device) == devices
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_parameters_are_on_each_device_once_whatever_is_computed_of_them():
    devices = tuple(jax.devices()[:2])
    model = tiny_model(NAMES["vector"])
    with contextlib.closing(Engine(devices, most_waiting=1)) as engine:
        threads = Threads(1)
        served = Served("m", model, engine, threads, ServeConfig(), devices)
        threads.close()
    assert {"token", "next-sentence", "vector", "hidden"} <= set(served.programs)
    for device in devices:
        pieces = [
            leaf.unsafe_buffer_pointer()
            for program in served.programs.values()
            for leaf in jax.tree.leaves(program.params[device])
        ]
        known = jax.tree.leaves((dict(model.params), dict(model.spare)))
        assert len(set(pieces)) == len(known)

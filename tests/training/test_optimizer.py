"""Optimizers against hand-written and per-layer references; schedules at the points that matter."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.program.errors import UserError
from bertjax.training.optimizer import (
    MUON_CONSISTENT_RMS,
    OptimizerConfig,
    ScheduleConfig,
    decayed,
    make_optimizer,
    make_schedule,
)

DECAYED = {
    "bert/embeddings/position_embeddings",
    "bert/embeddings/token_type_embeddings",
    "bert/embeddings/word_embeddings",
    "bert/encoder/layers/attention/key/kernel",
    "bert/encoder/layers/attention/output/kernel",
    "bert/encoder/layers/attention/query/kernel",
    "bert/encoder/layers/attention/value/kernel",
    "bert/encoder/layers/intermediate/kernel",
    "bert/encoder/layers/output/kernel",
    "bert/pooler/dense/kernel",
    "mlm_head/dense/kernel",
    "nsp_head/dense/kernel",
}


def flatten(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def draw_like(tree, seed, scale):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), tree)


def updates_of(optimizer, params, gradients):
    """The updates of following steps, the parameters left as they are."""
    update = jax.jit(optimizer.update)
    state, updates = optimizer.init(params), []
    for gradient in gradients:
        change, state = update(gradient, state, params)
        updates.append(change)
    return updates


def test_biases_and_layer_norms_are_not_decayed_and_all_else_is(new_params):
    groups = flatten(decayed(new_params))
    assert {name for name, value in groups.items() if value} == DECAYED
    others = groups.keys() - DECAYED
    assert {name.rsplit("/", 1)[1] for name in others} == {"bias", "scale"}


def test_adamw_equals_the_formula_over_three_steps(params):
    """With gradients of 1e-5, so that Adam's epsilon of 1e-6 counts."""
    optimizer = make_optimizer(OptimizerConfig("adamw", weight_decay=0.1))
    gradients = [draw_like(params, seed, 1e-5) for seed in range(3)]
    updates = updates_of(optimizer, params, gradients)
    values = flatten(params)
    moments = dict.fromkeys(values, (0.0, 0.0))
    for step, (gradient, update) in enumerate(zip(gradients, updates, strict=True), start=1):
        actual = flatten(update)
        for name, slope in flatten(gradient).items():
            first, second = moments[name]
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            moments[name] = first, second
            ratio = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-6)
            decay = 0.1 * values[name] if name in DECAYED else 0
            expected = -(ratio + decay)
            np.testing.assert_allclose(actual[name], expected, 1e-4, 1e-5, err_msg=name)


def test_lamb_on_the_stack_equals_optax_on_single_layers(params):
    config = OptimizerConfig("lamb", weight_decay=0.1)
    stack = {"layers": params["bert"]["encoder"]["layers"]["output"]}
    tree = {**stack, "pooler": params["bert"]["pooler"]["dense"]}
    tree["layers"]["kernel"] *= jnp.array([1.0, 3.0])[:, None, None]  # layers of unlike norms
    gradients = [draw_like(tree, seed, 1e-3) for seed in range(2)]

    def apart(tree):
        layers = [jax.tree.map(lambda x, i=i: x[i], tree["layers"]) for i in range(2)]
        return {"first": layers[0], "second": layers[1], "pooler": tree["pooler"]}

    theirs = optax.lamb(1.0, eps=1e-6, weight_decay=0.1, mask=decayed)
    expected = updates_of(theirs, apart(tree), map(apart, gradients))
    actual = updates_of(make_optimizer(config), tree, gradients)
    for one, other in zip(actual, expected, strict=True):
        one, other = flatten(apart(one)), flatten(other)
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, 1e-4, 1e-6, err_msg=name)
    # The trust ratio is in use: larger weights take larger steps.
    assert np.linalg.norm(one["second/kernel"]) > 2 * np.linalg.norm(one["first/kernel"])


@pytest.fixture(scope="module")
def muon(params):
    """Updates of Muon over two steps, by weight decay."""
    gradients = [draw_like(params, seed, 1e-5) for seed in range(2)]
    return {
        decay: updates_of(
            make_optimizer(OptimizerConfig("muon", weight_decay=decay)), params, gradients
        )
        for decay in (0.0, 0.1)
    }


def test_muon_updates_are_orthogonal_for_the_encoders_matrices(muon):
    layers = flatten(muon[0.0][0]["bert"]["encoder"]["layers"])
    rows = {"attention/query": 32, "attention/output": 32, "intermediate": 32, "output": 37}
    for name, width in rows.items():
        for kernel in layers[f"{name}/kernel"].reshape(2, width, -1):
            values = np.linalg.svd(kernel, compute_uv=False)
            values /= MUON_CONSISTENT_RMS * np.sqrt(max(kernel.shape))
            # Newton-Schulz brings the singular values near 1, but for the smallest few.
            assert values.max() < 1.4, name
            assert np.quantile(values, 0.2) > 0.6, name
    drawn = np.linalg.svd(np.random.default_rng(0).normal(size=(32, 32)), compute_uv=False)
    assert np.quantile(drawn, 0.2) < 0.2 * drawn.max()  # of a gradient as it comes


def test_muon_leaves_the_rest_to_adamw(muon, params):
    """To the same AdamW as by itself: its epsilon, its exemptions from weight decay."""
    gradients = [draw_like(params, seed, 1e-5) for seed in range(2)]
    adamw = make_optimizer(OptimizerConfig("adamw", weight_decay=0.1))
    for one, other in zip(muon[0.1], updates_of(adamw, params, gradients), strict=True):
        one, other = flatten(one), flatten(other)
        kernels = {name for name in DECAYED if "/layers/" in name}
        assert len(kernels) == 6
        for name in other.keys() - kernels:
            np.testing.assert_allclose(one[name], other[name], 1e-5, 1e-6, err_msg=name)
        for name in kernels:
            assert not np.allclose(one[name], other[name], rtol=0.1), name


def test_muon_decays_the_encoders_matrices(muon, params):
    name = "bert/encoder/layers/output/kernel"
    difference = flatten(muon[0.1][0])[name] - flatten(muon[0.0][0])[name]
    np.testing.assert_allclose(difference, -0.1 * flatten(params)[name], 1e-4, 1e-6)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "HIGHEST"), ("bfloat16", "DEFAULT")])
def test_muon_says_how_its_products_are_computed(params, dtype, precision):
    """A GPU would round those of float32 to TF32 where nothing is said."""
    optimizer = make_optimizer(OptimizerConfig("muon"), dtype)
    program = str(jax.make_jaxpr(optimizer.update)(params, optimizer.init(params), params))
    assert program.count("dot_general[") > 0
    assert program.count("dot_general[") == program.count(
        f"precision=(Precision.{precision}, Precision.{precision})"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, r"optimizer.learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, r"optimizer.learning_rate=nan must be above 0"),
        ({"clip_norm": float("nan")}, r"optimizer.clip_norm=nan must not be negative"),
        ({"beta1": 1.0}, r"optimizer.beta1=1.0 must be in \[0, 1\)"),
        ({"beta2": -0.1}, r"optimizer.beta2=-0.1 must be"),
        ({"weight_decay": -0.1}, r"optimizer.weight_decay=-0.1 must not be negative"),
        ({"clip_norm": -1.0}, r"optimizer.clip_norm=-1.0 must not be negative"),
    ],
)
def test_optimizer_out_of_range_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**fields)


# ------------------------------------------------------------------ schedules

SCHEDULES = [
    (ScheduleConfig("linear"), {0: 0, 5: 0.5, 10: 1, 55: 0.5, 100: 0}),
    (ScheduleConfig("linear", end=0.2), {0: 0, 10: 1, 55: 0.6, 100: 0.2}),
    (ScheduleConfig("linear", warmup=0.0), {0: 1, 50: 0.5, 100: 0}),
    (ScheduleConfig("cosine"), {0: 0, 5: 0.5, 10: 1, 32.5: 0.853553, 55: 0.5, 100: 0}),
    (ScheduleConfig("cosine", end=0.2), {10: 1, 55: 0.6, 100: 0.2}),
    (ScheduleConfig("polynomial", power=2.0), {0: 0, 5: 0.5, 10: 1, 55: 0.25, 100: 0}),
    (ScheduleConfig("inverse-sqrt"), {0: 0, 5: 0.5, 10: 1, 40: 0.5, 90: 1 / 3}),
    (ScheduleConfig("warmup-stable-decay"), {0: 0, 5: 0.5, 10: 1, 80: 1, 90: 0.5, 100: 0}),
    (ScheduleConfig("warmup-stable-decay", decay=0.5, end=0.1), {50: 1, 75: 0.55, 100: 0.1}),
]


@pytest.mark.parametrize(("config", "points"), SCHEDULES, ids=lambda x: getattr(x, "name", ""))
@pytest.mark.parametrize("total", [100.0, 7.25])
def test_schedule_goes_through_its_points(config, points, total):
    """In steps or in seconds: the budget is what stretches it."""
    schedule = make_schedule(config, total)
    for share, expected in points.items():
        value = float(schedule(jnp.float32(share / 100 * total)))
        assert value == pytest.approx(expected, abs=1e-5), share


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", "warmup-stable-decay"])
def test_schedule_stays_at_its_end(name):
    schedule = make_schedule(ScheduleConfig(name, end=0.25), 10.0)
    assert float(schedule(jnp.float32(12))) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": 1.0}, r"schedule.warmup=1.0 must be in \[0, 1\)"),
        ({"end": 1.5}, r"schedule.end=1.5 must be in \[0, 1\]"),
        ({"power": 0.0}, r"schedule.power=0.0 must be above 0"),
        (
            {"name": "warmup-stable-decay", "warmup": 0.5, "decay": 0.6},
            r"schedule.decay=0.6 must be above 0 and leave room for schedule.warmup=0.5",
        ),
        ({"name": "warmup-stable-decay", "decay": 0.0}, r"schedule.decay=0.0 must be above 0"),
        ({"name": "inverse-sqrt", "warmup": 0.0}, r"inverse-sqrt needs schedule.warmup above 0"),
    ],
)
def test_schedule_out_of_range_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ScheduleConfig(**fields)


@pytest.mark.parametrize("name", typing.get_args(typing.get_type_hints(ScheduleConfig)["name"]))
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ScheduleConfig)][1:])
def test_schedule_uses_what_it_accepts(name, field):
    def rates(**fields):
        schedule = make_schedule(ScheduleConfig(name, **fields), 100.0)
        return [float(schedule(jnp.float32(step))) for step in range(0, 101, 10)]

    try:
        other = rates(**{field: 0.4})
    except UserError as error:
        other = str(error)
    assert other != rates()
    if isinstance(other, str):
        assert f"schedule.{field}=0.4 has no effect with schedule.name={name}" in other


def test_warm_up_of_less_than_a_step_takes_no_step_away():
    config = ScheduleConfig(warmup=0.1)
    rates = [[float(make_schedule(config, 3.0, in_steps=steps)(step)) for step in range(3)]
             for steps in (True, False)]  # fmt: skip
    assert rates[0] == pytest.approx([1, 2 / 3, 1 / 3])
    assert rates[1][0] == 0.0  # of seconds: the first step may take ten of them
    for total in (10.0, 20.0):
        both = [float(make_schedule(config, total, in_steps=steps)(0)) for steps in (True, False)]
        assert both == [0.0, 0.0]
    inverse = make_schedule(ScheduleConfig(name="inverse-sqrt", warmup=0.1), 3.0, in_steps=True)
    assert float(inverse(jnp.float32(2))) > 0

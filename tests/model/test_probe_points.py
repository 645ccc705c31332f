"""Probe points: what is asked for is traced, and edits do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.bert import BertForPreTraining
from bertjax.model.probe_points import POINTS, Edit, check_edits, gate_heads
from bertjax.program.errors import UserError


@pytest.mark.parametrize("points", [("hidden",), ("inner", "embedded"), ("probs", "context")])
def test_trace_holds_what_is_asked_for(forward, params, batch, output, points):
    trace = forward(params, *batch[:5], trace=points).encoder.trace
    for name, values in trace._asdict().items():
        if name in points:
            expected = getattr(output.encoder.trace, name)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
        else:
            assert values is None


@pytest.mark.parametrize("point", POINTS)
def test_values_go_on_as_edited(forward, params, batch, output, point):
    """Its own values in their place change nothing; others are what the trace shows."""
    whole = getattr(output.encoder.trace, point)
    lead = () if point == "embedded" else (2,)
    last = (slice(None),) * len(lead) + (2,)  # the row
    where = jnp.zeros((*lead, 3, *(1,) * (whole.ndim - len(lead) - 1)), bool).at[last].set(True)
    same = forward(params, *batch[:5], trace=True, edit={point: Edit(replace=whole)})
    np.testing.assert_allclose(same.mlm_logits, output.mlm_logits, rtol=1e-4, atol=1e-5)
    edit = Edit(scale=jnp.full(whole.shape[:1], 2.0).reshape(-1, *(1,) * (whole.ndim - 1)),
                add=jnp.full(whole.shape, 0.5), replace=whole + 1, where=where)  # fmt: skip
    edit = {point: edit if lead else edit._replace(scale=jnp.float32(2))}
    changed = forward(params, *batch[:5], trace=True, edit=edit)
    shown = getattr(changed.encoder.trace, point)
    np.testing.assert_allclose(shown[last], 2 * (whole[last] + 1) + 0.5, rtol=1e-4, atol=1e-5)
    # Rows that are not chosen are as they were, and the chosen one is another.
    np.testing.assert_allclose(changed.mlm_logits[:2], output.mlm_logits[:2], rtol=1e-4, atol=1e-5)
    assert np.abs(changed.mlm_logits[2] - output.mlm_logits[2]).max() > 1e-3


def test_edit_left_out_costs_nothing(model, params, batch):
    def text(**options):
        apply = jax.jit(lambda params: model.apply({"params": params}, *batch[:5], **options))
        return apply.lower(params).as_text()

    assert text(edit={}) == text() == text(edit={"context": Edit()})
    assert text(edit=gate_heads(jnp.ones((2, 4)))) != text()


def test_gradient_by_edits_is_the_finite_difference(config, params, batch):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        model = BertForPreTraining(config, jnp.float64)
        shapes = jax.eval_shape(
            lambda: model.apply({"params": wide}, *batch[:5], trace=True).encoder.trace
        )
        random = np.random.default_rng(0)

        @jax.jit
        def loss(parts):
            edit = {name: Edit(scale=1 + scale, add=add) for name, (scale, add) in parts.items()}
            output = model.apply({"params": wide}, *batch[:5], edit=edit)
            return jnp.tanh(output.mlm_logits).mean() + output.nsp_logits[0, 0, 1]

        parts = {
            name: tuple(0.1 * random.normal(size=(2, *shape.shape)))
            for name, shape in shapes._asdict().items()
        }
        gradients = jax.jit(jax.grad(loss))(parts)
        for name in POINTS:
            direction = random.normal(size=(2, *parts[name][0].shape))

            def move(by, name=name, direction=direction):
                moved = [part + by * way for part, way in zip(parts[name], direction, strict=True)]
                return float(loss({**parts, name: tuple(moved)}))

            slope = (move(1e-6) - move(-1e-6)) / 2e-6
            found = sum((g * d).sum() for g, d in zip(gradients[name], direction, strict=True))
            assert abs(slope) > 1e-4, name
            assert float(found) == pytest.approx(slope, rel=1e-5), name


def test_edits_can_be_mapped_over(forward, model, params, batch):
    """One head closed at a time, all at once."""
    gates = 1 - jnp.eye(8).reshape(8, 2, 4)

    def logits(gates):
        return model.apply({"params": params}, *batch[:5], edit=gate_heads(gates)).nsp_logits

    together = jax.jit(jax.vmap(logits))(gates)
    alone = forward(params, *batch[:5], edit=gate_heads(gates[6])).nsp_logits
    np.testing.assert_allclose(together[6], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace": ("hiden",)}, "'hiden' is not one of the probe points .*; did you mean 'hidden'"),
        ({"edit": {"heads": Edit()}}, "'heads' is not one of the probe points embedded, probs"),
        (
            {"edit": {"context": Edit(scale=np.ones(4))}},
            r"edit of context: scale has the shape \(4,\), and its first axis must be .* 2\n",
        ),
        (
            {"edit": {"inner": Edit(add=np.ones((2, 1, 1, 5)))}},
            r"edit of inner: add has the shape \(1, 1, 5\) of each layer, .*, \(3, 7, 37\)",
        ),
        (
            {"edit": {"embedded": Edit(replace=np.ones((3, 7, 31)))}},
            r"edit of embedded: replace has the shape \(3, 7, 31\), which does not broadcast",
        ),
    ],
)
def test_mistakes_are_named(model, params, batch, options, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: model.apply({"params": params}, *batch[:5], **options))


def test_edit_of_numbers_without_a_layer_axis_is_refused():
    with pytest.raises(UserError, match="its first axis must be the layers, 2"):
        check_edits({"hidden": Edit(scale=0.5)}, 2)

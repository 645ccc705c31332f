"""A second call of a model compiles nothing, and any shape can be compiled beforehand."""

import contextlib

import jax
import numpy as np
import pytest

import bertjax
from bertjax.inference.batches import plan_batches, run
from bertjax.inference.embedding import Embedder
from bertjax.inference.fill_mask import encode_masked, make_batching, make_forward
from bertjax.inference.labelled import task_of
from bertjax.inference.task_outputs import make_inference
from tests.analysis.saved import save
from tests.interop.test_hub import TINY

TEXTS = ["it was a cat", "was it"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, ("no", "yes"), strict=True)]
CALLS = {
    "fill_mask": lambda model: model.fill_mask(["it was a [MASK]", "[MASK] was it"]),
    "embed": lambda model: model.embed(TEXTS),
    "trace": lambda model: model.trace(TEXTS),
    "trace without heads": lambda model: model.trace(TEXTS, without_heads="1-2"),
    "explain": lambda model: model.explain("it was a [MASK]"),
    "what_if": lambda model: model.what_if("it was a cat", "was"),
    "contexts": lambda model: model.contexts("it was a cat", "was", TEXTS),
    "predict": lambda model: model.predict(TEXTS),
    "evaluate": lambda model: model.evaluate(ROWS, resamples=0),
}


@contextlib.contextmanager
def count_traces():
    """Counts what jax traces and compiles while it is entered."""
    events = []

    def note(event, duration, **details):
        if event.endswith(("jaxpr_trace_duration", "backend_compile_duration")):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    return save(folder, "BertForSequenceClassification", id2label=("no", "yes"))


@pytest.mark.parametrize("call", CALLS)
def test_a_second_call_traces_nothing(call, fitted):
    where = fitted if call in ("predict", "evaluate") else TINY
    CALLS[call](bertjax.load(where))
    # A model that is loaded anew is as good.
    model = bertjax.load(where)
    with count_traces() as second:
        CALLS[call](model)
    assert second == []
    with count_traces() as other:
        jax.jit(lambda value: value + 1)(1)
    assert len(other) >= 2


def test_number_of_candidates_does_not_compile_anew():
    model = bertjax.load(TINY)
    model.fill_mask(["[MASK] was it"], top_k=8)
    with count_traces() as more:
        one, five = (model.fill_mask(["[MASK] was it"], top_k=k) for k in (1, 5))
    assert more == []
    assert len(five[0].masks[0].candidates) == 5
    assert one[0].masks[0].candidates == five[0].masks[0].candidates[:1]


def uses(fitted):
    """A forward pass with its parameters and batching, and items of two callers."""
    model = bertjax.load(TINY, "BertForMaskedLM")
    masked = [encode_masked(model.tokenizer, texts, 17) for texts in (["[MASK]"], ["it [MASK]"])]
    yield (
        make_forward(model.module, 5), model.params,
        make_batching(model.config, model.tokenizer), masked,
    )  # fmt: skip
    model = bertjax.load(fitted)
    task = task_of(model)
    inference = make_inference(model.module, task, model.tokenizer.pad_id)
    units = [
        task.encode(task.examples_of_lines([text]), model.tokenizer, 17, training=False).units
        for text in TEXTS
    ]
    yield inference.forward(), {"params": model.params}, inference.batching(), units


def test_items_of_two_callers_share_a_batch_and_are_as_alone(fitted):
    for forward, params, batching, callers in uses(fitted):
        together = [item for items in callers for item in items]
        numbers, _, shapes = zip(*plan_batches(together * 40, batching), strict=True)
        assert {*shapes} <= {*batching.shapes}
        assert any({0, 1} <= {*some} for some in numbers)
        shared = [*run(forward, params, together, batching)]
        many = [*run(forward, params, together * 40, batching)]
        alone = [output for items in callers for output in run(forward, params, items, batching)]
        assert len(alone) == len(shared) == 2
        for one, other, third in zip(alone, shared, many[-2:], strict=True):
            jax.tree.map(lambda *same: np.testing.assert_allclose(*same, atol=1e-5), one, other)
            jax.tree.map(lambda *same: np.testing.assert_allclose(*same, atol=1e-5), one, third)


def test_a_second_embedder_compiles_nothing():
    model = bertjax.load(TINY, "BertModel")
    parts = model.module, model.params, model.tokenizer
    first, _ = Embedder(*parts, ("max", "cls")).embed(TEXTS, 17)
    with count_traces() as more:
        second, _ = Embedder(*parts, ("max", "cls")).embed(TEXTS, 17)
    assert more == []
    np.testing.assert_array_equal(first, second)

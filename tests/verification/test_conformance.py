"""The conformance suite: what is right passes, what is wrong is found, and is not timed."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from bertjax.benchmarking import attention_timing
from bertjax.benchmarking.attention_plot import plot_timings
from bertjax.benchmarking.attention_timing import Baseline, Shape, find_regressions
from bertjax.kernels import backends, dense, library, splash
from bertjax.kernels.visibility import see_own_sequence
from bertjax.model.attention import attend
from bertjax.planning import absent_devices
from bertjax.program.errors import UserError
from bertjax.verification.conformance import attend_exactly, cases, check_conformance

SMALL = ("1x24x2x8", "2x32x2x8")


def shifted(query, key, value, sequence_ids, *, window=None):
    """Wrong: who sees whom is one key off."""
    visible = jnp.roll(see_own_sequence(sequence_ids, window), 1, axis=-1)
    return attend(query, key, value, visible)[0]


def some(*names):
    return [case for case in cases() if case.name in names]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            marks=[pytest.mark.whole if name in ("explicit", "dense") else pytest.mark.slow]
            * (dtype == "bfloat16"),
        )
        for dtype in ("float32", "bfloat16")
        for name, backend in backends.BACKENDS.items()
        if "cpu" in backend.platforms
    ],
)
def test_backends_that_run_here_conform(name, dtype):
    backend = backends.BACKENDS[name]
    found = list(check_conformance(backend.attention, dtype, dropout=backend.dropout))
    assert [one for one in found if not one.passes(dtype)] == []
    assert not any(one.reason for one in found)
    assert len(found) == len([case for case in cases() if backend.dropout or not case.dropout])


@pytest.mark.whole
def test_tpu_kernel_conforms_interpreted():
    interpreted = functools.partial(splash.attention, interpret=True)
    chosen = some(
        "packing", "a row of nothing but padding", "an odd length", "a window",
        "a layer with a window", "a layer without the window",
    )  # fmt: skip
    found = list(check_conformance(interpreted, "float32", chosen))
    assert [one for one in found if not one.passes("float32")] == []
    assert len(found) == 6


def test_mask_that_is_one_key_off_is_found():
    chosen = some("packing", "padding", "a window", "full rows")
    judged = check_conformance(shifted, "float32", chosen)
    found = {one.case: one.passes("float32") for one in judged}
    assert not found["packing"]
    assert not found["padding"]
    assert not found["a window"]
    assert found["full rows"]  # all see all: nothing can be off


def test_wrong_gradient_is_found():
    def blind(query, key, value, sequence_ids, *, window=None):
        # Right forwards; the gradient by the key is left out.
        stopped = jax.lax.stop_gradient(key)
        return dense.attention(query, stopped, value, sequence_ids, window=window)

    [found] = check_conformance(blind, "float32", some("packing"))
    assert found.forward < 1e-5
    assert found.backward > 0.1
    assert not found.passes("float32")


def test_nan_does_not_pass():
    def broken(query, key, value, sequence_ids, *, window=None):
        return dense.attention(query, key, value, sequence_ids) / 0

    [found] = check_conformance(broken, "float32", some("a single token"))
    assert not found.passes("float32")


def test_reference_is_softmax_of_what_is_seen():
    """By hand: two tokens that see each other, one that sees itself, one of padding."""
    query = np.array([1.0, 0.0, 2.0, 5.0]).reshape(1, 4, 1, 1)
    key, value = np.ones((1, 4, 1, 1)), np.array([3.0, 7.0, 11.0, 13.0]).reshape(1, 4, 1, 1)
    key[0, 1] = 0
    context, _ = attend_exactly(query, key, value, np.ones_like(value), np.array([[1, 1, 2, 0]]))
    first = np.e / (np.e + 1)
    expected = [3 * first + 7 * (1 - first), 5, 11, 0]
    np.testing.assert_allclose(context.ravel(), expected, rtol=1e-12)


def test_wrong_backend_is_not_timed(monkeypatch, bertjax_command):
    wrong = backends.BACKENDS["xla"]._replace(source=f"{__name__}:shifted")
    monkeypatch.setitem(backends.BACKENDS, "xla", wrong)
    monkeypatch.setattr(
        attention_timing,
        "check_conformance",
        lambda attention, dtype, **_: check_conformance(attention, dtype, some("packing")),
    )
    code, out, err = bertjax_command(
        "bench", "attention", "--backends", "xla", "explicit", "--shapes", SMALL[0],
        "--rounds", 1, "--json",
    )  # fmt: skip
    assert code == 1, err
    results = json.loads(out)
    passed = {one["backend"]: one["passed"] for one in results["conformance"]}
    assert passed == {"xla": False, "explicit": True}
    assert {one["backend"] for one in results["timings"]} == {"explicit"}


@pytest.mark.whole
def test_results_are_written_and_compared(monkeypatch, bertjax_command, tmp_path):
    monkeypatch.setattr(attention_timing, "check_conformance", lambda *_, **__: iter(()))
    arguments = (
        "bench", "attention", "--backends", "explicit", "blockwise", "--shapes", *SMALL,
        "--rounds", 1, "--output", tmp_path,
    )  # fmt: skip
    code, out, err = bertjax_command(*arguments)
    assert code == 0, err
    judged = [f"conformance of {name}: ran" for name in ("explicit", "blockwise")]
    assert err.splitlines() == [*judged, *(f"{shape}: timed" for shape in SMALL)]
    assert "2x32x2x8" in out
    results = json.loads((tmp_path / "attention.json").read_text())
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert len(results["timings"]) == 4
    for one in results["timings"]:
        assert one["forward"] > 0
        assert one["both_bytes"] > 0
        assert one["forward_share_of_peak"] == pytest.approx(
            one["forward_flops"] / one["forward"] / results["matmul_rate"]
        )
    for one in results["timings"]:
        one["both"] /= 1e6
    (tmp_path / "faster.json").write_text(json.dumps(results))
    code, out, _ = bertjax_command(*arguments, "--compare", tmp_path / "faster.json")
    assert code == 1
    assert "blockwise at 1x24x2x8: both is" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "8x512"], "must be four whole numbers"),
        (["--rounds", "0"], "must be at least 1"),
        (["--window", "0"], "--window 0 must be at least 1"),
        (["--compare", "none.json"], "No such file"),
    ],
)
def test_mistakes_are_told(bertjax_command, arguments, message):
    code, _, err = bertjax_command("bench", "attention", *arguments)
    assert code == 2
    assert message in err


def earlier_run(rate=1.0, seconds=2.0, **changes):
    timing = {"backend": "xla", "shape": "1x8x1x8", "forward": seconds, "both": 3.0 / rate}
    timing |= {"forward_bytes": None, "both_bytes": 0}
    run = {"dtype": "float32", "window": None, "matmul_rate": rate, "timings": [timing]}
    return run | changes


def test_a_slower_machine_is_no_regression():
    def regressions(now, before):
        return list(find_regressions(Baseline.read(now), Baseline.read(before), 1.2))

    assert regressions(earlier_run(1.0, 2.0), earlier_run(2.0, 1.0)) == []
    [line] = regressions(earlier_run(1.0, 3.0), earlier_run(2.0, 1.0))
    assert "forward is 1.50 x" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timings": 5}, "not what `bertjax bench attention --output` writes"),
        ({"timings": [{}]}, "not what"),
        ({"timings": [{"backend": "xla", "shape": "1x8x1x8", "forward": "fast"}]}, "not what"),
        ({"matmul_rate": 0}, "not what"),
        ({"matmul_rate": "fast"}, "not what"),
        ({"timings": []}, "it timed nothing"),
        ({"dtype": "bfloat16"}, r"in common with this run.*xla 1x8x1x8 bfloat16 window None"),
    ],
)
def test_baseline_of_no_use_is_told_before_anything_is_measured(
    monkeypatch, bertjax_command, tmp_path, changes, message
):
    monkeypatch.setattr(attention_timing, "check_conformance", None)
    (tmp_path / "other.json").write_text(json.dumps(earlier_run() | changes))
    code, _, err = bertjax_command(
        "bench", "attention", "--backends", "xla", "--shapes", "1x8x1x8",
        "--compare", tmp_path / "other.json",
    )  # fmt: skip
    assert code == 2
    assert re.search(message, err)
    assert str(tmp_path / "other.json") in err


def test_plot_within_a_decade_has_figures_on_its_axes(tmp_path, monkeypatch):
    timing = {"backend": "xla", "shape": "1x8x1x8", "both": 2.5e-5, "both_bytes": 2 << 13}
    results = {"device": "cpu", "dtype": "float32", "timings": [timing]}
    results["timings"].append(timing | {"shape": "1x16x1x8", "both": 9e-5, "both_bytes": 5 << 14})
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    plot_timings(results, tmp_path / "attention.png")
    for axis in drawn[0].axes:
        low, high = axis.get_ylim()
        assert [place for place in axis.get_yticks() if low <= place <= high]


def test_operations_are_those_of_pairs_that_see_each_other():
    shape = Shape.parse("2x10x3x4")
    assert shape.flops(None, backward=False) == 2 * 2 * 2 * 3 * 10 * 10 * 4
    pairs = sum(abs(t - s) <= 2 for t in range(10) for s in range(10))
    assert shape.flops(2, backward=True) == 6 * 2 * 2 * 3 * pairs * 4


@pytest.mark.parametrize("name", ["explicit", "dense", "xla", "blockwise"])
def test_all_six_products_of_forward_and_backward_are_timed(name):
    shape = Shape(2, 64, 3, 32)
    arguments = [jnp.zeros(shape)] * 3 + [jnp.ones(shape[:2], jnp.int32)]
    program = jax.jit(attention_timing.both_of(name, None)).lower(*arguments).compile()
    assert program.cost_analysis()["flops"] >= shape.flops(None, backward=True)


def test_cudnn_is_lowered_for_a_gpu_that_is_not_here():
    shape = Shape(2, 33, 2, 16)
    arguments = [jnp.zeros(shape, jnp.bfloat16)] * 3 + [jnp.ones(shape[:2], jnp.int32)]
    text = absent_devices.lower_for_cuda(attention_timing.both_of("cudnn", 5), arguments)
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward" in text


def test_backend_that_could_not_be_run_is_neither_right_nor_wrong(bertjax_command):
    code, out, err = bertjax_command(
        "bench", "attention", "--backends", "cudnn", "--shapes", "2x32x2x8",
        "--dtype", "bfloat16", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert "conformance of cudnn: not run: its device is not here" in err
    results = json.loads(out)
    [judged], [timing] = results["conformance"], results["timings"]
    assert judged["passed"] is None
    assert timing["reason"] == "lowered for CUDA, not run"


@pytest.mark.parametrize(
    ("dtype", "head_size", "message"),
    [("float32", 16, "bfloat16 or float16"), ("bfloat16", 12, "multiple of 8")],
)
def test_cudnn_says_what_it_does_not_take(dtype, head_size, message):
    query = jnp.zeros((1, 4, 1, head_size), dtype)
    with pytest.raises(UserError, match=message):
        library.cudnn(query, query, query, jnp.ones((1, 4), jnp.int32))


@pytest.mark.skipif(not absent_devices.has_libtpu(), reason="needs libtpu (extra `plan`)")
def test_splash_compiles_for_a_tpu_that_is_not_here():
    [timing] = [attention_timing.prepare_for_absent("splash", Shape(2, 200, 2, 64), "bfloat16")]
    assert timing.both_bytes > 0
    assert "compiled for a TPU" in timing.reason

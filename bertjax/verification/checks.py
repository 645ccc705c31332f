"""The checks of `bertjax verify`: what may not change what a model says, or what it learns."""

import functools
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer, Key

from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.config import BertConfig
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import load_model_directory
from bertjax.interop.model_tokenizer import has_tokenizer, load_model_tokenizer
from bertjax.interop.tensor_names import flatten
from bertjax.kernels.backends import AUTO, BACKENDS, DENSE, Need
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows, shardings_of
from bertjax.training.state import TrainState, empty_window
from bertjax.training.steps import make_train_step
from bertjax.verification import reference
from bertjax.verification.examples import (
    Arrangement,
    Batch,
    Example,
    arrange_alone,
    arrange_packed,
    arrange_padded,
    draw_examples,
)
from bertjax.verification.outputs import (
    Answers,
    Quantity,
    compare_answers,
    compare_arrays,
    quantities,
    read_answers,
)

TOLERANCE = 1e-5
# Devices that a CPU is taken for, so that there are several to compare.
CPU_DEVICES = 4
MICROBATCHES = 4
# Of a gradient, which runs once: on a CPU LLVM takes twice as long for what saves milliseconds.
_QUICK_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


class Check(NamedTuple):
    """A row of the table.

    Attributes:
        name: what is changed.
        difference: the largest one, as a share of the largest value; None where it could not be
            checked.
        tolerance: the largest that is allowed.
        detail: what is compared with what, or why it could not be checked.
    """

    name: str
    difference: float | None
    tolerance: float
    detail: str

    @property
    def result(self) -> str:
        """ok, FAILED or not checked."""
        if self.difference is None:
            return "not checked"
        return "ok" if self.difference <= self.tolerance else "FAILED"  # NaN fails


def checks_of(against: str | None) -> list[str]:
    """Returns the names of the checks, in the order in which `verify` makes them."""
    names = [
        "ids",
        "reference",
        "padding",
        "batch order",
        "packing",
        "devices",
        "accumulation",
        "kernels",
    ]
    return (["against"] if against else []) + names


def verify(
    path: Path | str, against: str | None = None, tolerance: float = TOLERANCE
) -> Iterator[Check]:
    """Checks a model directory of any class on this machine, one thing after the other.

    The examples are drawn, eight of three lengths up to 64 tokens; their answers, each computed
    alone without padding, are what the others are compared with. Everything is float32, matrix
    products in full precision.

    Args:
        path: the model directory, or the model's name on the Hugging Face hub.
        against: another model directory of the same class, or a model's name on the Hugging Face
            hub, that is to give the same answers.
        tolerance: the largest difference allowed, as a share of the largest value.

    Raises:
        UserError: the directory, or what it is to be compared with, cannot be read.
    """
    _divide_cpu()
    path = find_model(path)
    loaded = load_model_directory(path)
    subject = _Subject(loaded.config, loaded.architecture, loaded.params)
    for name, make in _checks(subject, path, against):
        difference, detail = make()
        yield Check(name, difference, tolerance, detail)


# What a check finds: the difference, None where it cannot be computed, and what was compared.
Finding = tuple[float | None, str]


class _Subject:
    """A model with the examples it is tried on and its own answers to them, each alone."""

    def __init__(
        self,
        config: BertConfig,
        architecture: str,
        params: Any,
        examples: list[Example] | None = None,
        attention: str = AUTO,
    ) -> None:
        self.config, self.architecture = config, architecture
        self.is_body = ARCHITECTURES[architecture].kind == BODY
        self.params = params["bert"] if self.is_body else params
        self.model = ARCHITECTURES[architecture].module(config, attention=attention)
        self.examples = draw_examples(config) if examples is None else examples
        self.alone = arrange_alone(self.examples)
        self.padded = arrange_padded(self.examples, range(len(self.examples)))
        self._run = jax.jit(self._apply)

    @functools.cached_property
    def answers(self) -> Answers:
        """The answers that all others are compared with."""
        return functools.reduce(operator.or_, map(self.answer, self.alone))

    def answer(self, arrangement: Arrangement, mesh: Mesh | None = None) -> Answers:
        """Returns the answers to the examples of an arrangement, on one device or on a mesh."""
        params, batch = self.params, arrangement.batch
        self.config.check_ids(batch.token_ids, batch.token_type_ids, batch.position_ids)
        if mesh is not None:
            params = jax.device_put(params, shardings_of(params, mesh))
            batch = place_rows(batch, mesh)
        return read_answers(jax.device_get(self._run(params, batch)), arrangement)

    @functools.cached_property
    def whole_gradients(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The gradients of the padded batch, on one device and in one part."""
        return self.gradients(1)

    def gradients(
        self, microbatches: int, mesh: Mesh | None = None
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Computes the gradient on the padded batch as a training step does, dropout included."""
        batch = self.padded.batch
        step = make_train_step(
            _Projection(self.model, self.architecture),
            _KEEP_GRADIENTS,
            lambda clock: jnp.float32(0),
            seed=0,
            microbatches=microbatches,
        )
        zero = jnp.zeros((), jnp.int32)
        optimizer_state, window = _KEEP_GRADIENTS.init(self.params), empty_window(_Projection.terms)
        state = TrainState(self.params, {}, optimizer_state, zero, zero, zero, window)
        if mesh is not None:
            state = jax.device_put(state, shardings_of(state, mesh))
            batch = place_rows(batch, mesh)
        on_cpu = jax.default_backend() == "cpu"
        compiled = jax.jit(step, compiler_options=_QUICK_COMPILATION if on_cpu else None)
        state, _ = compiled(state, batch, jnp.float32(0))
        return dict(flatten(jax.device_get(state.optimizer_state)))

    def _apply(self, params: Any, batch: Batch) -> dict[str, Quantity]:
        return quantities(self.architecture, self.model.apply({"params": params}, *batch))


def _checks(
    subject: _Subject, path: Path | str, against: str | None
) -> list[tuple[str, Callable[[], Finding]]]:
    def compare(arrangement: Arrangement) -> float:
        return compare_answers(subject.answer(arrangement), subject.answers)

    def check_order() -> Finding:
        order = np.random.default_rng(3).permutation(len(subject.examples)).tolist()
        other = subject.answer(arrange_padded(subject.examples, order, padding_seed=4))
        ours = subject.answer(subject.padded)
        return compare_answers(other, ours), "rows of a batch in another order"

    functions = {
        "ids": lambda: _check_ids(subject.config, path),
        "reference": lambda: _check_reference(subject, path),
        "padding": lambda: (compare(subject.padded), "rows with padding, and each alone without"),
        "batch order": check_order,
        "packing": lambda: (
            compare(arrange_packed(subject.examples)),
            "several examples in a row, and each alone",
        ),
        "devices": lambda: _check_devices(subject),
        "accumulation": lambda: _check_accumulation(subject),
        "kernels": lambda: _check_kernels(subject),
    }
    if against is not None:
        functions["against"] = lambda: _check_against(subject, against)
    return [(name, functions[name]) for name in checks_of(against)]


def _check_ids(config: BertConfig, path: Path | str) -> Finding:
    """Checks that the model has embeddings for what its tokenizer and texts can ask for."""
    if not has_tokenizer(path):
        return None, "no tokenizer in the directory"
    try:
        tokenizer, _ = load_model_tokenizer(path, config)
    except UserError as error:
        return float("inf"), _first_line(error)
    summary = f"{tokenizer.vocab_size:,} tokens of its tokenizer, all with an embedding"
    if not config.takes_pairs:
        summary += "; no pairs of texts, which are refused (type_vocab_size=1)"
    return 0.0, summary


def _check_reference(subject: _Subject, path: Path | str) -> Finding:
    missing = reference.missing_packages()
    if missing:
        return None, f"{' and '.join(missing)} not installed (extra `parity` of bertjax)"
    if subject.config.classifier_norm != "none":
        norm = subject.config.classifier_norm
        return None, f"transformers has no classifier with classifier_norm={norm}"
    if subject.config.attention_window is not None:  # its classes would load it, and see all
        window = subject.config.attention_window
        return None, f"transformers has no attention_window, which is {window} here"
    if subject.config.attention_head_size is not None:
        size = subject.config.attention_head_size
        return None, f"transformers has no attention_head_size, which is {size} here"
    try:
        expected = reference.ask_transformers(
            str(path), subject.architecture, subject.config, subject.alone
        )
    except (OSError, ValueError) as error:
        return None, f"transformers cannot load it: {_first_line(error)}"
    return compare_answers(subject.answers, expected), "the same directory in transformers, torch"


def _check_against(subject: _Subject, against: str) -> Finding:
    if Path(against).is_dir():
        other = load_model_directory(against, subject.architecture)
        for name in reference.SAME_SHAPE:
            ours, theirs = getattr(subject.config, name), getattr(other.config, name)
            if ours != theirs:
                raise UserError(
                    f"{against}: its {name} is {theirs}, that of the model {ours}; models of"
                    " different shapes give different answers"
                )
        expected = _Subject(other.config, other.architecture, other.params, subject.examples)
        return compare_answers(subject.answers, expected.answers), f"the same class of {against}"
    missing = reference.missing_packages()
    if missing:
        raise UserError(
            f"--against {against}: no such directory, and {' and '.join(missing)}, which fetch a"
            " model of this name from the Hugging Face hub, are not installed: pip install"
            " 'bertjax[parity]'"
        )
    try:
        expected = reference.ask_transformers(
            against, subject.architecture, subject.config, subject.alone
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"--against {against}: no such directory, and as a model of the Hugging Face hub it"
            f" cannot be compared: {_first_line(error)}"
        ) from None
    return compare_answers(subject.answers, expected), f"{against} in transformers, torch"


def _check_devices(subject: _Subject) -> Finding:
    rows, devices = len(subject.examples), jax.devices()
    number = max(n for n in range(1, rows + 1) if rows % n == 0 and n <= len(devices))
    if number == 1:
        return None, f"there is one device, {devices[0].device_kind}"
    mesh = make_mesh(MeshConfig(), devices[:number])
    answers = compare_answers(subject.answer(subject.padded, mesh), subject.answer(subject.padded))
    gradients = _compare_gradients(subject.gradients(1, mesh), subject.whole_gradients)
    what = f"{number} devices ({devices[0].device_kind}) and one, answers and gradients"
    return float(np.max([answers, gradients])), what


def _check_accumulation(subject: _Subject) -> Finding:
    parts = subject.gradients(MICROBATCHES)
    what = f"gradients of {MICROBATCHES} parts of a batch, and of all of it at once, with dropout"
    return _compare_gradients(parts, subject.whole_gradients), what


def _check_kernels(subject: _Subject) -> Finding:
    packed = arrange_packed(subject.examples)
    config, length = subject.config, packed.batch.token_ids.shape[1]
    need = Need(
        jax.default_backend(),
        "float32",
        length,
        config.head_size,
        window=config.window is not None,
    )
    names = [
        name for name, backend in BACKENDS.items() if name != DENSE and not backend.objection(need)
    ]
    differences = []
    for name in names:
        params = {"bert": subject.params} if subject.is_body else subject.params
        other = _Subject(
            subject.config, subject.architecture, params, subject.examples, attention=name
        )
        differences.append(compare_answers(other.answer(packed), subject.answers))
    return float(np.max(differences)), f"attention {' and '.join(names)}, packed, and {DENSE}"


def _compare_gradients(actual: dict[str, Any], expected: dict[str, Any]) -> float:
    return compare_arrays((actual[name], expected[name]) for name in expected)


class _Projection:
    """A loss for any class (`training.steps.Objective`): all that it says, weighted at random.

    Tokens and examples are two means, over those that are real.
    """

    terms: Mapping[str, float] = MappingProxyType({"tokens": 1.0, "examples": 1.0})

    def __init__(self, model: Any, architecture: str) -> None:
        self._model, self._architecture = model, architecture

    def prepare(
        self, batch: Batch, progress: Float[Array, ""]
    ) -> tuple[Batch, dict[str, Float[Array, ""]]]:
        """Returns the batch, and how many real tokens and examples it has."""
        weights = _weights(batch)
        return batch, {name: weights[name].sum() for name in self.terms}

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: Batch,
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[dict[str, Total], Any]:
        """Sums the projections of some rows."""
        output = self._model.apply(
            {"params": params}, *part, row_ids=row_ids, dropout=True, rngs={"dropout": dropout_key}
        )
        weights = _weights(part)
        sums = dict.fromkeys(self.terms, jnp.zeros(()))
        for name, (values, of_tokens) in quantities(self._architecture, output).items():
            term = "tokens" if of_tokens else "examples"
            direction = np.random.default_rng(len(name)).normal(size=values.shape[-1])
            direction = direction.astype(np.float32)
            projected = jnp.matmul(jnp.tanh(values), direction, precision="highest")
            sums[term] += (projected * weights[term]).sum()
        return {name: Total(sums[name], weights[name].sum()) for name in self.terms}, statistics


def _weights(batch: Batch) -> dict[str, Float[Array, "B places"]]:
    real = (batch.sequence_ids != 0).astype(jnp.float32)
    slots = jnp.arange(batch.example_starts.shape[1])
    used = batch.sequence_ids.max(axis=1, keepdims=True) > slots
    return {"tokens": real, "examples": used.astype(jnp.float32)}


# An optimizer whose state after a step is the gradient, and that changes no parameter.
_KEEP_GRADIENTS = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradients, state, params: (jax.tree.map(jnp.zeros_like, gradients), gradients),
)


def _divide_cpu() -> None:
    """Takes a CPU for several devices, unless the user or the process has settled that."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if jax.config.jax_num_cpu_devices > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
    except RuntimeError:  # jax runs already
        return


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]

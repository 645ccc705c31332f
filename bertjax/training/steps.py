"""One training step, as a pure function of (state, batch), whatever it is that is minimised."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer, Key

from bertjax.numerics.placement import repeatable_options
from bertjax.objectives.losses import Total
from bertjax.training.state import TrainState, Window, empty_window


@runtime_checkable
class Objective(Protocol):
    """What is minimised: the weighted sum of several means, each a sum over places and their count.

    Attributes:
        terms: the weight of every mean, by its name in the log.
    """

    terms: Mapping[str, float]

    def prepare(self, batch: Any, progress: Float[Array, ""]) -> tuple[Any, Mapping[str, Array]]:
        """Returns what the loss looks at, leading with the rows, and the count of every term.

        Args:
            batch: of the step.
            progress: the share of the budget that is over, 0 to 1.
        """
        ...

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: Any,
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[Mapping[str, Total], Any]:
        """Returns the totals of some of the rows, and the model's running statistics after them."""
        ...


class StepReport(NamedTuple):
    """What a step reports beside its new state.

    Attributes:
        loss: of this batch, the weighted sum of the objective's means, in nats (or squared units).
        window_loss: likewise, of the means since the last line of the log.
        gradient_norm: before clipping.
        learning_rate: of this step.
        skipped_in_a_row: not-finite steps up to this one.
    """

    loss: Float[Array, ""]
    window_loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    skipped_in_a_row: Array


# XLA works with half an AVX-512 register, unless asked to use all of it (docs/performance.md).
CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512}

# (state, batch, clock) -> the next state, and what there is to report.
Step = Callable[[TrainState, Any, Array], tuple[TrainState, StepReport]]


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable[[Array], Array],
    seed: int,
    *,
    total: float = 1.0,
    microbatches: int = 1,
    clip_norm: float = 0.0,
    average_decay: float = 0.0,
    log_every: int = 1,
    most_skipped: int = 2**31 - 1,
) -> Step:
    """Returns the function that `jax.jit` compiles for training.

    The loss is a true mean over the global batch: the counts are known before the model runs, each
    microbatch adds its share of sum / count, and the gradients add up. A loss or gradient that is
    not finite changes nothing but the count of skipped steps.

    Args:
        objective: what is minimised.
        optimizer: of `make_optimizer`, at learning rate 1.
        learning_rate: the rate as a function of the clock.
        seed: of the dropout.
        total: the clock's value at the end of the run.
        microbatches: the batch is worked through in so many parts, one after the other; must divide
            it.
        clip_norm: global norm that gradients are scaled down to; 0 = off.
        average_decay: of `state.average`; 0 = there is none.
        log_every: the state's window starts anew after so many steps.
        most_skipped: `skipped_in_a_row` stays where it is once it has come so far, so that it need
            not be looked at after every step.
    """
    dropout_key = dropout_key_of(seed)

    def loss_of_part(
        params: Any, statistics: Any, part: tuple[Any, Array], counts: Mapping[str, Array], key: Any
    ) -> tuple[Array, tuple[Mapping[str, Total], Any]]:
        inputs, row_ids = part
        totals, statistics = objective.totals(params, statistics, inputs, row_ids, key)
        shares = {name: Total(totals[name].sum, counts[name]) for name in objective.terms}
        return _weigh(objective, shares), (dict(totals), statistics)

    def step(
        state: TrainState, batch: Any, clock: Float[Array, ""]
    ) -> tuple[TrainState, StepReport]:
        inputs, counts = objective.prepare(batch, clock / total)
        rows = batch.token_ids.shape[0]
        key = jax.random.fold_in(dropout_key, state.step)
        differentiate = jax.value_and_grad(loss_of_part, has_aux=True)

        whole = (inputs, jnp.arange(rows))
        if microbatches == 1:
            (loss, (totals, statistics)), gradients = differentiate(
                state.params, state.statistics, whole, counts, key
            )
        else:
            # Part i takes rows i, i + microbatches, ...: each device keeps the rows it has.
            parts = jax.tree.map(
                lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), whole
            )

            def add_part(carry: Any, part: Any) -> tuple[Any, None]:
                total, statistics = carry
                (loss, (totals, statistics)), gradients = differentiate(
                    state.params, statistics, part, counts, key
                )
                total = jax.tree.map(jnp.add, total, (loss, totals, gradients))
                return (total, statistics), None

            (loss, (totals, _)), gradients = jax.eval_shape(
                differentiate,
                state.params,
                state.statistics,
                jax.tree.map(lambda x: x[0], parts),
                counts,
                key,
            )
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, totals, gradients))
            carry, _ = jax.lax.scan(add_part, (zeros, state.statistics), parts)
            (loss, totals, gradients), statistics = carry

        norm = optax.tree.norm(gradients)
        if clip_norm:
            scale = jnp.minimum(1, clip_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
            gradients = jax.tree.map(lambda g: g * scale, gradients)
        rate = learning_rate(clock)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        average = state.average
        if average_decay:
            average = _move_average(average, params, average_decay, state.step)
        params, statistics, optimizer_state, average = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, statistics, optimizer_state, average),
            (state.params, state.statistics, state.optimizer_state, state.average),
        )

        totals = jax.tree.map(lambda total: jnp.where(finite, total, 0), totals)
        tokens = (batch.sequence_ids != 0).sum(dtype=jnp.float32)
        window = jax.tree.map(
            lambda old, empty: jnp.where(state.step % log_every == 0, empty, old),
            state.window,
            empty_window(objective.terms),
        )
        window = jax.tree.map(jnp.add, window, Window(totals, tokens, jnp.ones(())))
        bad = ~finite
        going_on = bad | (state.skipped_in_a_row >= most_skipped)
        in_a_row = jnp.where(going_on, state.skipped_in_a_row + bad, 0)
        new_state = TrainState(
            params,
            statistics,
            optimizer_state,
            state.step + 1,
            state.skipped + bad,
            in_a_row,
            window,
            average,
        )
        window_loss = _weigh(objective, window.totals)
        return new_state, StepReport(loss, window_loss, norm, rate, in_a_row)

    return step


def _weigh(objective: Objective, totals: Mapping[str, Total]) -> Float[Array, ""]:
    """Returns the weighted sum of the objective's means."""
    return sum(weight * totals[name].mean() for name, weight in objective.terms.items())


def _move_average(average: Any, params: Any, decay: float, step: Array) -> Any:
    """Returns the moving average with the parameters after `step` steps in it.

    Source: Tan & Le 2019 and many before; the decay begins low, as TensorFlow's
        `ExponentialMovingAverage(num_updates)`, so that the start of the run does not stay in it.
    """
    step = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), average, params)


def lower_step(step: Step, state: TrainState, batch: Any, mesh: Mesh) -> jax.stages.Lowered:
    """Returns the step as it is to be compiled: a state turns into the next one where it lives.

    Args:
        step: of `make_train_step`.
        state: one, or the shapes of one with their shardings.
        batch: likewise, placed on the mesh.
        mesh: of both; its devices may be absent.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    platform = mesh.devices.flat[0].platform
    options = CPU_OPTIONS if platform == "cpu" else repeatable_options(platform)
    jitted = jax.jit(
        step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=options
    )
    # What is traced asks the mesh in context which devices it is for.
    with jax.set_mesh(mesh):
        return jitted.lower(state, batch, jax.ShapeDtypeStruct((), jnp.float32))


def dropout_key_of(seed: int) -> Key[Array, ""]:
    """Returns the key of a run's dropout; the masking's is the other half of the same split."""
    return jax.random.split(jax.random.key(seed))[1]

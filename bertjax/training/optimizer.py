"""Optimizers and learning-rate schedules: optax's, with BERT's constants and rules."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from bertjax.program.errors import UserError

# Source: google-research/bert optimization.py (optax and torch: 1e-8).
ADAM_EPSILON = 1e-6

# Source: google-research/bert `exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]`.
NOT_DECAYED = ("bias", "scale")

# Scales Muon's updates to the size of AdamW's, so that one learning rate serves both.
# Source: Liu et al. 2025 (Moonlight), section 2.2.
MUON_CONSISTENT_RMS = 0.2


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters are updated.

    Attributes:
        name: adamw (Loshchilov & Hutter 2019, as in BERT), lamb (You et al. 2020, for large
            batches), or muon (Jordan 2024: the encoder's matrices by Muon, the rest by AdamW)
        learning_rate: the peak of the schedule
        weight_decay: decoupled, times the learning rate; biases and LayerNorm are exempt
        beta1: decay of the first moment, in [0, 1)
        beta2: decay of the second moment, in [0, 1)
        clip_norm: gradients are scaled down to this global norm; 0 = no clipping
    """

    name: Literal["adamw", "lamb", "muon"] = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"optimizer.learning_rate={self.learning_rate} must be above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}={getattr(self, name)} must be in [0, 1)")
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name}={getattr(self, name)} must not be negative")


# Fields of a schedule that not all schedules use, and which do.
_USERS = {
    "end": ("linear", "cosine", "polynomial", "warmup-stable-decay"),
    "power": ("polynomial",),
    "decay": ("warmup-stable-decay",),
}


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate runs from 0 over its peak to its end.

    Attributes:
        name: shape after the warm-up: linear, cosine, polynomial, inverse-sqrt, or
            warmup-stable-decay (flat, then linear to the end)
        warmup: share of the budget in which the rate rises linearly from 0, in [0, 1)
        end: share of the peak that is left at the end (inverse-sqrt ends where it ends)
        power: exponent of polynomial
        decay: share of the budget in which warmup-stable-decay falls, in (0, 1]
    """

    name: Literal["linear", "cosine", "polynomial", "inverse-sqrt", "warmup-stable-decay"] = (
        "linear"
    )
    warmup: float = 0.1
    end: float = 0.0
    power: float = 1.0
    decay: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"schedule.warmup={self.warmup} must be in [0, 1)")
        if not 0 <= self.end <= 1:
            raise UserError(f"schedule.end={self.end} must be in [0, 1]")
        if self.power <= 0:
            raise UserError(f"schedule.power={self.power} must be above 0")
        for field in dataclasses.fields(self):
            value, users = getattr(self, field.name), _USERS.get(field.name, ())
            if users and value != field.default and self.name not in users:
                raise UserError(
                    f"schedule.{field.name}={value} has no effect with schedule.name={self.name}:"
                    f" it is for {', '.join(users)}; leave it out"
                )
        if self.name == "warmup-stable-decay" and not 0 < self.decay <= 1 - self.warmup:
            raise UserError(
                f"schedule.decay={self.decay} must be above 0 and leave room for "
                f"schedule.warmup={self.warmup}: together at most 1"
            )
        if self.name == "inverse-sqrt" and self.warmup == 0:
            raise UserError("schedule.name=inverse-sqrt needs schedule.warmup above 0")


def make_schedule(
    config: ScheduleConfig, total: float, *, in_steps: bool = False
) -> optax.Schedule:
    """Returns the share of the peak learning rate as a function of the clock, 0 to `total`.

    The clock counts optimizer steps when the budget is in steps or epochs, and seconds of training
    when the budget is wall-clock time: either way the schedule comes to its end with the budget.

    Args:
        config: shape, warm-up, end.
        total: the clock's last value, above 0.
        in_steps: the clock counts steps; then a warm-up of less than a whole step is none, for all
            that it would do is to take the first step, at rate 0, out of the few that there are.

    Source: linear with warm-up as in google-research/bert; warmup-stable-decay: Hu et al. 2024
        (MiniCPM); inverse-sqrt: Vaswani et al. 2017, section 5.3.
    """
    warmup = config.warmup * total
    if in_steps and warmup < 1 and config.name != "inverse-sqrt":
        warmup = 0.0
    rest = total - warmup
    if config.name == "linear":
        after = optax.linear_schedule(1.0, config.end, rest)
    elif config.name == "cosine":
        after = optax.cosine_decay_schedule(1.0, rest, alpha=config.end)
    elif config.name == "polynomial":
        after = optax.polynomial_schedule(1.0, config.end, config.power, rest)
    elif config.name == "inverse-sqrt":

        def after(count: Float[Array, ""]) -> Float[Array, ""]:
            return jnp.sqrt(warmup / (count + warmup))
    else:
        fall = config.decay * total
        after = optax.linear_schedule(1.0, config.end, fall, transition_begin=rest - fall)
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup])


def make_optimizer(
    config: OptimizerConfig, dtype: DTypeLike = jnp.float32
) -> optax.GradientTransformation:
    """Makes the optimizer at learning rate 1: the step multiplies updates by the schedule's.

    The learning rate is an argument of the step, not a part of the optimizer's state, so that the
    state of a run is the same whatever clock drives the schedule. Clipping is done by the step,
    too, which wants the norm for its metrics.

    Args:
        config: of the optimizer.
        dtype: of the model's matrix products. Muon's are of float32 matrices: float32 where the
            model's are, else as the device has them by itself (TF32, bfloat16), in a fraction of
            the time; five steps of Newton and Schulz come only near an orthogonal matrix anyway.

    Source: google-research/bert `AdamWeightDecayOptimizer`. Differs: the moments are bias-corrected
        (Kingma & Ba 2015), as in torch's AdamW and in every later reimplementation.
    """
    adamw = optax.adamw(
        1.0,
        config.beta1,
        config.beta2,
        ADAM_EPSILON,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if config.name == "adamw":
        return adamw
    if config.name == "lamb":
        return optax.chain(
            optax.scale_by_adam(config.beta1, config.beta2, ADAM_EPSILON),
            optax.add_decayed_weights(config.weight_decay, decayed),
            scale_by_layer_trust_ratio(),
            optax.scale(-1.0),
        )
    # `optax.contrib.muon` has an Adam of its own for what is no matrix; that one knows no exemption
    # from weight decay. It is given matrices only.
    muon = optax.contrib.muon(
        1.0,
        weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=_muon_axes,
        consistent_rms=MUON_CONSISTENT_RMS,
    )
    precision = "highest" if jnp.finfo(dtype).bits >= 32 else "default"

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params
    ) -> tuple[optax.Updates, optax.OptState]:
        with jax.default_matmul_precision(precision):
            return muon.update(updates, state, params)

    precise = optax.GradientTransformation(muon.init, update)
    return optax.partition({"muon": precise, "adamw": adamw}, _muon_or_adamw)


def decayed(params: Any) -> Any:
    """Returns the weight-decay groups: True for what decays, all but biases and LayerNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)


def is_stacked(path: tuple[jax.tree_util.DictKey, ...]) -> bool:
    """Returns whether a parameter is of the scanned stack: its first axis counts the layers."""
    return any(key.key == "layers" for key in path)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Scales by LAMB's trust ratio |parameter| / |update|, one a layer of a stacked parameter.

    `optax.scale_by_trust_ratio` takes a leaf for a layer; here a leaf of the stack holds all L of
    them.

    Source: You et al. 2020, algorithm 2. A ratio is 1 where either norm is 0.
    """

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params
    ) -> tuple[optax.Updates, optax.EmptyState]:
        def scale(path: tuple[Any, ...], change: Array, param: Array) -> Array:
            axes = tuple(range(1 if is_stacked(path) else 0, param.ndim))
            norm_of_param = jnp.sqrt(jnp.square(param).sum(axes, keepdims=True))
            norm_of_change = jnp.sqrt(jnp.square(change).sum(axes, keepdims=True))
            defined = (norm_of_param > 0) & (norm_of_change > 0)
            ratio = norm_of_param / jnp.where(defined, norm_of_change, 1)
            return change * jnp.where(defined, ratio, 1)

        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _muon_or_adamw(params: optax.Params) -> Any:
    """Returns which of the two updates each parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "muon" if is_stacked(path) and path[-1].key == "kernel" else "adamw", params
    )


def _muon_axes(params: optax.Params) -> Any:
    """Returns which axes of the encoder's kernels are a matrix's rows and columns."""
    axes = optax.contrib.MuonDimensionNumbers

    def choose(path: tuple[Any, ...], _: Array) -> optax.contrib.MuonDimensionNumbers:
        attention = any(key.key == "attention" for key in path)
        if attention and path[-2].key == "output":  # [L, N, H, D]
            return axes(reduction_axis=(1, 2), output_axis=3)
        if attention:  # [L, D, N, H]
            return axes(reduction_axis=1, output_axis=(2, 3))
        return axes(reduction_axis=1, output_axis=2)

    return jax.tree_util.tree_map_with_path(choose, params)

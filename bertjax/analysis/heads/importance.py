"""Which heads matter: by the gradient of their gates, by taking each away, and how far it goes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.heads.objective import Objective
from bertjax.program.errors import UserError
from bertjax.statistics.bootstrap import CONFIDENCE
from bertjax.statistics.drawn_units import sum_by_unit
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio

# Random orders that a pruning curve is compared with.
ORDERS = 5


class HeadImportance(NamedTuple):
    """How much each head matters.

    Attributes:
        sums: over what is counted of each unit of examples (see `drawn_units.number_units`).
        counts: how many examples it has of which something is asked, or how much is asked of them.
        scale: what the heads of each layer are divided by; ones without normalisation.
    """

    sums: Float[np.ndarray, "units L N"]
    counts: Float[np.ndarray, " units"]
    scale: Float[np.ndarray, "L 1"]

    @property
    def heads(self) -> Float[np.ndarray, "L N"]:
        """The importance of each head, over all examples."""
        return self.sums.sum(axis=0) / self.counts.sum() / self.scale

    def interval(self, seed: int = 0) -> Interval:
        """Computes the importance of each head with its bootstrap interval over units.

        Args:
            seed: of the bootstrap.
        """
        return bootstrap_ratio(self.sums / self.scale, self.counts[:, None, None], seed)


def gradient_importance(
    objective: Objective,
    params: Any,
    *,
    normalize_layers: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> HeadImportance:
    """Computes the mean absolute derivative of an example's loss with respect to each head's gate.

    One forward and one backward pass for all heads together.

    Args:
        objective: whose loss.
        params: of the model, its own or a control's.
        normalize_layers: divide by the Euclidean norm over the heads of each layer, so that layers
            with small gradients lose no more heads than others.
        progress: called with the number of examples done since the last call.

    Source: Michel et al. 2019, section 4.1; the normalisation from Molchanov et al. 2017. Differs:
        the absolute value is of each example's derivative, as the formula has it; their program
        takes it of a batch's.
    """
    gradients = np.abs(objective.differentiate(params, progress=progress))
    counts = (objective.measure(params).counts > 0).astype(np.float64)
    scale = np.ones((gradients.shape[1], 1))
    if normalize_layers:
        scale = np.linalg.norm(gradients.sum(axis=0) / counts.sum(), axis=-1, keepdims=True)
        scale = np.where(scale == 0, 1, scale)
    return HeadImportance(*_by_unit(objective, gradients, counts), scale)


def ablation_importance(
    objective: Objective, params: Any, *, progress: Callable[[int], None] = lambda done: None
) -> tuple[HeadImportance, Float[np.ndarray, "L N"]]:
    """Measures by how much the loss rises when one head is removed and the others stay.

    L * N forward passes.

    Args:
        objective: whose loss and score.
        params: of the model, its own or a control's.
        progress: called with the number of heads done since the last call.

    Returns:
        The rise of the loss, and the change of the score (negative where the head was of use).
    """
    before, gates = objective.measure(params), objective.open_gates
    rises, changes = np.zeros((objective.examples, *gates.shape)), np.zeros(gates.shape)
    for layer, head in np.ndindex(gates.shape):
        gates[layer, head] = 0
        after = objective.measure(params, gates)
        gates[layer, head] = 1
        rises[:, layer, head] = after.sums - before.sums
        changes[layer, head] = after.score - before.score
        progress(1)
    sums, counts = _by_unit(objective, rises, before.counts)
    return HeadImportance(sums, counts, np.ones((len(gates), 1))), changes


def importance_with_company(
    objective: Objective,
    params: Any,
    control_params: Any,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Figures:
    """Computes the gradient importance of each head beside that in a model with random weights.

    Args:
        objective: whose loss.
        params: of the model.
        control_params: of `capture.randomize`.
        progress: called with the number of examples done since the last call; each counts
            twice.
    """
    model, control = (
        gradient_importance(objective, some, progress=progress) for some in (params, control_params)
    )
    return Figures(model.interval(), control.interval())


def order_heads(importance: Float[np.ndarray, "L N"]) -> Int[np.ndarray, "heads 2"]:
    """Sorts all heads (layer, head), the least important first.

    Args:
        importance: of each head.
    """
    flat = np.argsort(importance.ravel(), kind="stable")
    return np.stack(np.unravel_index(flat, importance.shape), axis=-1)


def random_orders(
    shape: tuple[int, ...], number: int, seed: int = 0
) -> list[Int[np.ndarray, "heads 2"]]:
    """Heads in random orders, as `order_heads` gives them.

    Args:
        shape: (L, N).
        number: of orders.
        seed: of the orders.
    """
    random = np.random.default_rng(seed)
    return [order_heads(random.random(shape)) for _ in range(number)]


def gates_without(
    shape: tuple[int, ...], removed: Int[np.ndarray, "some 2"]
) -> Float[np.ndarray, "L N"]:
    """Gates that are 0 at these heads and 1 elsewhere.

    Args:
        shape: (L, N).
        removed: the heads, (layer, head) each.
    """
    gates = np.ones(shape, np.float32)
    gates[removed[:, 0], removed[:, 1]] = 0
    return gates


class PruningCurve(NamedTuple):
    """How good a model is as heads go, in an order and in random ones.

    Attributes:
        removed: heads that are gone at each point.
        scores: in the order; higher is better.
        losses: in the order (model), with intervals over examples, and the mean in the random
            orders (control), see `interval_of_orders`.
        random_scores: in the random orders.
        score_name: what the score is.
    """

    removed: Int[np.ndarray, " points"]
    scores: Float[np.ndarray, " points"]
    losses: Figures
    random_scores: Float[np.ndarray, "orders points"]
    score_name: str

    def to_json(self) -> dict[str, Any]:
        """Returns lists with a number for each point."""
        return {
            "removed": self.removed.tolist(),
            "score": self.score_name,
            "scores": self.scores.tolist(),
            "random_scores": self.random_scores.tolist(),
            "losses": self.losses.to_json(),
        }


def draw_pruning_curve(
    objective: Objective,
    params: Any,
    order: Int[np.ndarray, "heads 2"],
    *,
    steps: int = 10,
    progress: Callable[[int], None] = lambda done: None,
) -> PruningCurve:
    """Takes heads away in their order, a step at a time, and measures; then in random orders.

    Args:
        objective: what is measured.
        params: of the model.
        order: the heads, the first to go first.
        steps: of equal size, from no head to all of them.
        progress: called with the number of measurements done since the last call.

    Raises:
        UserError: fewer steps than 1.

    Source: Michel et al. 2019, section 4.2, figure 3.
    """
    if steps < 1:
        raise UserError(f"steps={steps} must be at least 1")
    shape = objective.open_gates.shape
    compared = random_orders(shape, ORDERS)
    removed = np.rint(np.linspace(0, len(order), steps + 1)).astype(int)
    scores = np.zeros((1 + len(compared), len(removed)))
    sums = np.zeros((1 + len(compared), objective.units.max() + 1, len(removed)))
    for row, heads in enumerate([order, *compared]):
        for point, count in enumerate(removed):
            measured = objective.measure(params, gates_without(shape, heads[:count]))
            scores[row, point] = measured.score
            sums[row, :, point], counts = _by_unit(objective, measured.sums, measured.counts)
            progress(1)
    counts = counts[:, None]
    losses = Figures(bootstrap_ratio(sums[0], counts), interval_of_orders(sums[1:], counts))
    return PruningCurve(removed, scores[0], losses, scores[1:], objective.score_name)


def interval_of_orders(
    sums: Float[np.ndarray, "orders examples points"], counts: Float[np.ndarray, "examples 1"]
) -> Interval:
    """Computes the mean loss in random orders, and a prediction interval for another random order.

    An order is not better than random because it is better than the mean of some random ones: their
    losses differ among themselves far more than examples make them. The interval is the wider of
    the normal prediction interval for one more order and of the bootstrap over examples.

    Args:
        sums: of the losses; two orders at least.
        counts: how much is asked of each example."""
    from scipy.stats import t

    orders = len(sums)
    over_examples = bootstrap_ratio(sums.mean(axis=0), counts)
    spread = (sums.sum(axis=1) / counts.sum()).std(axis=0, ddof=1) * np.sqrt(1 + 1 / orders)
    half = t.ppf(0.5 + CONFIDENCE / 2, orders - 1) * spread
    value = over_examples.value
    low, high = np.minimum(over_examples.low, value - half), value + half
    return Interval(value, low, np.maximum(over_examples.high, high))


def _by_unit(
    objective: Objective, *values: Float[np.ndarray, "examples ..."]
) -> tuple[Float[np.ndarray, "units ..."], ...]:
    return tuple(sum_by_unit(value, objective.units) for value in values)

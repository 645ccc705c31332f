"""Runs a model on any number of items: the only place that makes batches for a forward pass.

    items -> windows -> rows of a closed set of shapes -> forward(params, batch) -> outputs in order

A `Batching` says what an item is: a text with a row of its own, or one of several in each row.

A server has batches of its own (`serving.programs`): who sent a text decides when it runs.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.inference.shapes import Shape, Shapes
from bertjax.numerics.placement import ROW_AXES
from bertjax.text.packing import Places, pack

# Items are taken until together they cost so much, in tokens by default; they are sorted by length
# among themselves.
WINDOW_TOKENS = 1 << 16
# Items are packed into rows of at least so many tokens: attention is cheap up to there.
SHORTEST_PACKED_ROW = 64

Item = TypeVar("Item")
Result = TypeVar("Result")
# Runs a piece of work and returns its result.
Turn = Callable[[Callable[[], Any]], Any]

_TURN: contextvars.ContextVar[Turn] = contextvars.ContextVar("turn", default=lambda work: work())


@contextlib.contextmanager
def taking_turns(turn: Turn) -> Iterator[None]:
    """Hands every piece of device work to `turn`, which runs it when the device is free for it.

    It holds for what this thread starts: a server lets requests pass between two batches.
    """
    token = _TURN.set(turn)
    try:
        yield
    finally:
        _TURN.reset(token)


def in_turn(work: Callable[[], Result]) -> Result:
    """Runs a piece of device work, at once or when it has its turn (`taking_turns`)."""
    return _TURN.get()(work)


class Place(NamedTuple):
    """Where an item is in a batch: its row, its number in the row, its first token there.

    Attributes:
        row: from 0.
        slot: from 0.
        start: from 0.
    """

    row: int
    slot: int
    start: int


class Batching(NamedTuple, Generic[Item]):
    """How items become batches, and what is taken of the output for each.

    Attributes:
        shapes: that batches can have.
        length: tokens of an item.
        make: (items, their places, shape) -> a batch: arrays that all lead with the axis of rows;
            nothing that it puts behind the items may change what comes out for them.
        take: (output of the batch on the host, an item, its place) -> the output for the item. It
            copies what it does not want to keep whole.
        slots: how many slots of a row it needs.
        items_per_row: more than 1 packs so many at most into each row.
        cost: how much of a window an item takes; its length when left out.
        window: what the items of a window cost together, unless it is one item.
    """

    shapes: Shapes
    length: Callable[[Item], int]
    make: Callable[[Sequence[Item], Places, Shape], Any]
    take: Callable[[Any, Item, Place], Any]
    slots: Callable[[Item], int] = lambda item: 1
    items_per_row: int = 1
    cost: Callable[[Item], int] | None = None
    window: int = WINDOW_TOKENS


def take_row(output: Any, item: Any, place: Place) -> Any:
    """Returns the item's row of every array of the output: `Batching.take` where each has one."""
    return jax.tree.map(lambda part: part[place.row], output)


class Finished(NamedTuple):
    """A batch that has run.

    Attributes:
        numbers: which items were in it, from 0, in the order in which they came.
        outputs: what was taken for each.
        whole: the output of the whole batch.
    """

    numbers: list[int]
    outputs: list[Any]
    whole: Any


def run(
    forward: Callable[[Any, Any], Any],
    params: Any,
    items: Iterable[Item],
    batching: Batching[Item],
    *,
    mesh: Mesh | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Any]:
    """Yields the output for every item, in the order of the items.

    Memory does not grow with their number: items are taken a window at a time, as outputs are
    asked for.

    Args:
        forward: a compiled pure function of parameters and a batch.
        params: anything that is the same for every batch; put on the devices once.
        items: any number; each is given to the functions of `batching`.
        batching: how they become batches.
        mesh: the devices that share the rows; without it jax's first device has them all.
        progress: is called with the number of items done since the call before.
    """
    waiting: dict[int, Any] = {}
    next_number = 0
    for finished in run_batches(forward, params, items, batching, mesh=mesh):
        waiting.update(zip(finished.numbers, finished.outputs, strict=True))
        progress(len(finished.numbers))
        del finished
        while next_number in waiting:
            # Not one that was taken is kept.
            yield waiting.pop(next_number)
            next_number += 1


def run_batches(
    forward: Callable[[Any, Any], Any],
    params: Any,
    items: Iterable[Item],
    batching: Batching[Item],
    *,
    mesh: Mesh | None = None,
) -> Iterator[Finished]:
    """Yields every batch as soon as it has run. See `run`.

    Args:
        forward, params, items, batching, mesh: as of `run`.
    """
    params = put_params(params, mesh)
    for first, window in _windows(items, batching):
        for numbers, places, shape in plan_batches(window, batching):
            here = [window[number] for number in numbers]
            whole = compute(forward, params, batching.make(here, places, shape), mesh)
            outputs = (
                batching.take(whole, item, Place(*map(int, place)))
                for item, place in zip(here, zip(*places, strict=True), strict=True)
            )
            # No name here holds on to the outputs.
            yield Finished([first + number for number in numbers], [*outputs], whole)


def compute(forward: Callable[[Any, Any], Any], params: Any, batch: Any, mesh: Mesh | None) -> Any:
    """Returns the output of a batch, on the host.

    Args:
        forward: see `run`.
        params: on the devices.
        batch: of `Batching.make`.
        mesh: the devices that share the rows.
    """
    if mesh is None or mesh.size == 1:
        return in_turn(lambda: jax.device_get(forward(params, batch)))
    placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(ROW_AXES)))

    def work() -> Any:
        with jax.set_mesh(mesh):
            return jax.device_get(forward(params, placed))

    return in_turn(work)


def put_params(params: Any, mesh: Mesh | None) -> Any:
    """Puts what is not yet on the devices there; with a mesh, a copy on each of its devices.

    Args:
        params: a tree of arrays.
        mesh: the devices; None for jax's first one.
    """
    if mesh is None or mesh.size == 1:
        is_there = all(isinstance(part, jax.Array) for part in jax.tree.leaves(params))
        return params if is_there else jax.device_put(params)
    devices, copied = set(mesh.devices.flat), NamedSharding(mesh, PartitionSpec())

    def put(part: Any) -> jax.Array:
        is_there = isinstance(part, jax.Array) and part.sharding.device_set == devices
        return part if is_there else jax.device_put(part, copied)

    return jax.tree.map(put, params)


def whole_params(params: Any, mesh: Mesh | None) -> Any:
    """Returns parameters of which every device of the mesh holds all, for what is no batch."""
    if mesh is None or mesh.size == 1:
        return params
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec()))


def _windows(items: Iterable[Item], batching: Batching[Item]) -> Iterator[tuple[int, list[Item]]]:
    """Yields consecutive items, and the number of the first of them."""
    cost_of = batching.cost or batching.length
    first, used = 0, 0
    window: list[Item] = []
    for item in items:
        cost = cost_of(item)
        if window and used + cost > batching.window:
            yield first, window
            first, used, window = first + len(window), 0, []
        window.append(item)
        used += cost
    if window:
        yield first, window


def plan_batches(
    items: Sequence[Item], batching: Batching[Item]
) -> Iterator[tuple[list[int], Places, Shape]]:
    """Yields the numbers of the items of every batch, where they are in it, and its shape."""
    shapes = batching.shapes
    lengths = np.array([batching.length(item) for item in items])
    least = 1
    if batching.items_per_row > 1:
        least = min(SHORTEST_PACKED_ROW, int(lengths.sum()), shapes.longest)
    opened = np.array([shapes.length_for(max(least, int(length))) for length in lengths])
    if batching.items_per_row > 1:
        places = pack(lengths, opened, batching.items_per_row)
    else:
        nothing = np.zeros(len(items), np.int64)
        places = Places(np.arange(len(items)), nothing, nothing)
    # The first item of a row has opened it.
    is_first = places.slot == 0
    of_row = np.zeros((int(places.row.max()) + 1, 2), np.int64)
    of_row[places.row[is_first], 0] = opened[is_first]
    np.maximum.at(of_row[:, 1], places.row, [batching.slots(item) for item in items])
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (length, slots) in enumerate(of_row.tolist()):
        groups.setdefault((length, shapes.slots_for(length, slots)), []).append(row)
    order = np.argsort(places.row, kind="stable")
    bounds = np.searchsorted(places.row[order], np.arange(len(of_row) + 1))
    for (length, slots), rows in sorted(groups.items()):
        start = 0
        for most in shapes.divide(len(rows), length):
            chosen = rows[start : start + most]
            start += most
            numbers = np.concatenate([order[bounds[row] : bounds[row + 1]] for row in chosen])
            counts = [bounds[row + 1] - bounds[row] for row in chosen]
            in_batch = np.repeat(np.arange(len(chosen)), counts)
            here = Places(in_batch, places.slot[numbers], places.start[numbers])
            yield numbers.tolist(), here, Shape(most, length, slots)

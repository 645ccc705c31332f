"""Samples of requests: lines of a log, or the texts of a file described as lines of one."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.drift.settings import MOST_REQUESTS
from bertjax.program.errors import UserError
from bertjax.serving.observation import read_sketch
from bertjax.serving.programs import SKETCH_NUMBERS

Line = Mapping[str, Any]


class Sample(NamedTuple):
    """Requests that one model has answered.

    Attributes:
        source: what they are of, for messages.
        model: its name.
        fingerprint: of the model.
        requests: how many there are.
        first, last: when the first and the last of them was answered, in seconds since 1970; None
            of texts that are in no log.
        lines: those of them that are compared, `MOST_REQUESTS` at most.
        left_out: requests to the same name that other models have answered.
    """

    source: str
    model: str
    fingerprint: str
    requests: int
    first: float | None
    last: float | None
    lines: list[Line]
    left_out: int = 0

    def numbers(self, field: str) -> Float[np.ndarray, " requests"]:
        """Returns a field of all lines; NaN for null.

        Args:
            field: of a line, one of `comparison.INPUTS` or `comparison.ANSWERS`.
        """
        values = [np.nan if line[field] is None else line[field] for line in self.lines]
        return np.array(values, np.float64)

    def sketches(self) -> Float[np.ndarray, "requests numbers"]:
        """Returns the sketches of all lines; NaN for null."""
        unknown = np.full(SKETCH_NUMBERS, np.nan)
        sketches = [line["sketch"] for line in self.lines]
        return np.stack([unknown if one is None else read_sketch(one) for one in sketches])

    def shares(self, labels: Sequence[str]) -> Float[np.ndarray, "requests labels"]:
        """Returns the shares of labels of all lines; NaN for null.

        Args:
            labels: their names, in the order of the columns.
        """
        return np.array(
            [
                [np.nan if line["labels"] is None else line["labels"].get(one, 0) for one in labels]
                for line in self.lines
            ],
            np.float64,
        ).reshape(len(self.lines), len(labels))

    def describe(self) -> str:
        """Returns a line about it."""
        when = ""
        if self.first is not None:
            when = f", {show_time(self.first)} to {show_time(self.last)}"
        drawn = "" if len(self.lines) == self.requests else f", of which {len(self.lines):,} drawn"
        return f"{self.source}: {self.requests:,} requests{drawn}{when}"

    def to_json(self) -> dict[str, Any]:
        """Returns what it is of."""
        return {
            "source": self.source,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "requests": self.requests,
            "compared": len(self.lines),
            "first": None if self.first is None else show_time(self.first),
            "last": None if self.last is None else show_time(self.last),
        }


def show_time(seconds: float) -> str:
    """Returns a time in UTC, as `--since` reads it.

    Args:
        seconds: since 1970.
    """
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat()


class _Group:
    """The lines of a model, of which a random sample is kept."""

    def __init__(self, seed: int) -> None:
        self.count, self.first, self.last = 0, np.inf, -np.inf
        self.kept: list[Line] = []
        self._random = np.random.default_rng(seed)

    def add(self, line: Line) -> None:
        """Adds a line; every line is kept with the same probability.

        Source: Vitter 1985, algorithm R.
        """
        self.first, self.last = min(self.first, line["time"]), max(self.last, line["time"])
        self.count += 1
        if len(self.kept) < MOST_REQUESTS:
            self.kept.append(line)
        elif (place := int(self._random.integers(self.count))) < MOST_REQUESTS:
            self.kept[place] = line


def collect(
    lines: Iterable[Line],
    source: str,
    *,
    name: str | None = None,
    since: float | None = None,
    until: float | None = None,
    must_have_name: bool = True,
    fingerprint: str | None = None,
    seed: int = 0,
) -> Sample:
    """Collects the lines of a log that are of one model and of a time.

    Args:
        lines: of the log.
        source: what it is, for messages.
        name: of the model; may be left out where the log has one.
        since: the first time that counts, in seconds since 1970.
        until: the first time that counts no more.
        must_have_name: refuse a log without the name; else it may have one other.
        fingerprint: of the model, where several have answered by its name; where it is none of
            them, the lines of the last one are collected.
        seed: of the lines that are kept of many.

    Raises:
        UserError: no such line, or lines of several models.
    """
    groups: dict[tuple[str, str], _Group] = {}
    total = 0
    for line in lines:
        total += 1
        if (since is None or line["time"] >= since) and (until is None or line["time"] < until):
            key = (line["model"], line["fingerprint"])
            groups.setdefault(key, _Group(seed)).add(line)
    if not total:
        raise UserError(f"{source}: no requests have been logged yet; wait for some")
    if not groups:
        raise UserError(
            f"{source}: none of its {total:,} requests is of the time that --since and --until"
            " name; choose another"
        )
    names = list(dict.fromkeys(name for name, _ in groups))
    if name not in names and (must_have_name or len(names) > 1):
        if name is not None:
            raise UserError(
                f"{source}: no requests to the model {name!r}; it has {', '.join(names)}: pass one"
                " of them as --name"
            )
        if len(names) > 1:
            raise UserError(
                f"{source}: requests to {len(names)} models, {', '.join(names)}; pass one of them"
                " as --name"
            )
    chosen = name if name in names else names[0]
    its = {own: group for (model, own), group in groups.items() if model == chosen}
    if len(its) > 1 and fingerprint is None:
        told = "; ".join(
            f"{own} from {show_time(group.first)} to {show_time(group.last)}"
            for own, group in its.items()
        )
        raise UserError(
            f"{source}: different models have answered as {chosen} ({told}), and what they answer"
            " cannot be compared; choose the time of one with --since and --until"
        )
    own = fingerprint if fingerprint in its else [*its][-1]
    group = its[own]
    left_out = sum(other.count for other in its.values()) - group.count
    return Sample(source, chosen, own, group.count, group.first, group.last, group.kept, left_out)

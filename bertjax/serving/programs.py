"""What a server runs on a device: compiled forward passes over rows packed across requests.

sequences of any requests -> rows of a closed set of shapes -> forward(params, rows) -> an output
for each sequence

An exported model is run by onnxruntime; what is made of its outputs is compiled like the rest.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from bertjax.architectures import BODY, MASKED_LM, NEXT_SENTENCE, is_exported
from bertjax.inference.batches import SHORTEST_PACKED_ROW
from bertjax.inference.embedding import Pooling, pool
from bertjax.inference.shapes import Shape, Shapes
from bertjax.loaded import Model
from bertjax.numerics.placement import repeatable_options
from bertjax.text.framing import TokenSequence
from bertjax.text.packing import Places, fill_rows, pack

# Sequences in a row, at most; an exported model takes a row for each.
SEQUENCES_PER_ROW = 16
# Slots for masks in a row: a few, or every token.
FEW_MASKS = 8
# Numbers of a sketch: the random projection of a sequence's mean hidden state.
SKETCH_NUMBERS = 32


class Asked(NamedTuple):
    """A framed text or pair, and what is asked of it.

    Attributes:
        sequence: its tokens.
        positions: tokens whose words are asked for; for a masked LM only.
        text: what was asked: a text, or the two of a pair; None where its tokens were.
    """

    sequence: TokenSequence
    positions: Int[np.ndarray, " p"] | None = None
    text: tuple[str, ...] | None = None

    @property
    def length(self) -> int:
        """Returns its tokens."""
        return len(self.sequence.token_ids)


class Rows(NamedTuple):
    """Packed rows as a model takes them (see `types.RowBatch`), and masked positions."""

    token_ids: Integer[Array | np.ndarray, "B T"]
    token_type_ids: Integer[Array | np.ndarray, "B T"]
    sequence_ids: Integer[Array | np.ndarray, "B T"]
    position_ids: Integer[Array | np.ndarray, "B T"]
    example_starts: Integer[Array | np.ndarray, "B K"]
    masked_positions: Integer[Array | np.ndarray, "B P"]


class Sketched(NamedTuple):
    """The output for a sequence, and its sketch."""

    output: np.ndarray
    sketch: Float[np.ndarray, " numbers"]


class Batch(NamedTuple):
    """Sequences that run together.

    Attributes:
        numbers: which of the sequences that were offered are in it.
        places: where each of them is.
        shape: of the rows.
    """

    numbers: list[int]
    places: Places
    shape: Shape


def _of_sequences(output: np.ndarray, asked: Asked, row: int, slot: int, start: int) -> np.ndarray:
    return output[row, slot].copy()


def _of_tokens(output: np.ndarray, asked: Asked, row: int, slot: int, start: int) -> np.ndarray:
    return output[row, start : start + asked.length].copy()


class Program:
    """A forward pass of a model, compiled for a closed set of shapes.

    Args:
        name: of what it computes, for the metrics and the log.
        module: of the model.
        params: its parameters on each of the devices that run it, each by itself.
        answer: (output of the model, rows) -> an array that leads with rows, and with slots, tokens
            or masked positions; and the hidden states [B, T, D] that it is made of, which an
            exported model with a head does not give.
        take: which part of it is a sequence's.
        pad_id: of [PAD].
        longest: tokens of the longest sequence.
        batch_tokens: places of a batch at most, padding included.
        asks_positions: whether sequences have masked positions.
        before: a program that this one takes the place of; what it has compiled is used again
            where the module, the shapes and `answer` are the same.
        projection: of hidden states; with it, outputs are `Sketched`.
    """

    def __init__(
        self,
        name: str,
        module: Any,
        params: Mapping[jax.Device, Any],
        answer: "Answer",
        take: Callable[[np.ndarray, Asked, int, int, int], np.ndarray],
        *,
        pad_id: int,
        longest: int,
        batch_tokens: int,
        asks_positions: bool = False,
        before: "Program | None" = None,
        projection: Float[np.ndarray, "D numbers"] | None = None,
    ) -> None:
        self.name, self._take, self._pad_id = name, take, pad_id
        self._asks_positions = asks_positions
        self.params, devices = params, tuple(params)
        self._packs = not is_exported(module)
        self._per_row = SEQUENCES_PER_ROW if self._packs else 1
        # What fills less than a packed row runs alone in a shorter one.
        self._shortest = min(SHORTEST_PACKED_ROW, longest) if self._packs else 1
        # In eight bits every text is asked alone: others would only make it wait.
        is_alone = not self._packs and module.session.is_quantized
        self.batch_tokens = 1 if is_alone else batch_tokens
        self.shapes = Shapes(
            longest,
            lambda length: self.batch_tokens // length if length >= self._shortest else 1,
            slots=(lambda length: (FEW_MASKS, length)) if asks_positions else lambda length: (1,),
            between=False,
            ratio=2,
        )
        self._sketches = projection is not None
        # On every device, as the parameters are.
        self._projections = {
            device: jax.device_put(projection, device) if self._sketches else None
            for device in devices
        }

        compiled: Any = functools.partial(
            jax.jit, compiler_options=repeatable_options(devices[0].platform)
        )

        def apply(params: Any, rows: Rows) -> Any:
            asked = {"masked_positions": rows.masked_positions} if asks_positions else {}
            return module.apply({"params": params}, *rows[:5], **asked)

        def finish(given: Any, rows: Rows, projection: Array | None) -> Any:
            output, hidden = answer(given, rows)
            return output if projection is None else (output, _sketch(hidden, rows, projection))

        def compute(params: Any, rows: Rows, projection: Array | None) -> Any:
            return finish(apply(params, rows), rows, projection)

        self._computes = (module, answer, tuple(self.shapes), devices, self._sketches)
        if before and before._computes == self._computes:
            self._forward = before._forward
        elif self._packs:
            self._forward = compiled(compute)
        else:
            finish = compiled(finish)
            self._forward = compute

    def warm_up(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Compiles every shape on every device."""
        for shape in self.shapes:
            rows = self.make([], Places(*(np.zeros(0, np.int64),) * 3), shape)
            for device in self.params:
                jax.block_until_ready(self.run(rows, device))
            progress(1)

    def choose(self, offered: Sequence[Asked]) -> Batch:
        """Chooses those that run next, the first among them, and packs them into rows.

        Args:
            offered: in the order in which they are due.
        """
        lengths = np.array([asked.length for asked in offered], np.int64)
        shortest = min(self._shortest, int(lengths.sum()))
        length = self.shapes.length_for(max(shortest, int(lengths[0])))
        most = self.shapes.most_rows(length)
        # Without packing, what is much shorter would be padding for the most part.
        least = 0 if self._packs or length == self.shapes.shortest else length // 2
        candidates = np.flatnonzero((least < lengths) & (lengths <= length))
        room = np.cumsum(lengths[candidates]) <= most * length
        candidates = candidates[room]
        places = pack(lengths[candidates], length, self._per_row)
        rows = int(places.row.max()) + 1
        # The rows with what is due first; packing may have opened more than there may be.
        first_due = np.full(rows, len(offered))
        np.minimum.at(first_due, places.row, candidates)
        order = np.argsort(first_due, kind="stable")
        count = self.shapes.fill(min(rows, most), length)
        new_number = np.full(rows, -1)
        new_number[order[:count]] = np.arange(min(rows, count))
        row = new_number[places.row]
        is_in = row >= 0
        numbers = candidates[is_in]
        slots = 1
        if self._asks_positions:
            masks = np.zeros(count, np.int64)
            np.add.at(masks, row[is_in], [len(offered[number].positions) for number in numbers])
            slots = int(masks.max())
        return Batch(
            numbers.tolist(),
            Places(row[is_in], places.slot[is_in], places.start[is_in]),
            Shape(count, length, self.shapes.slots_for(length, slots)),
        )

    def make(self, sequences: Sequence[Asked], places: Places, shape: Shape) -> Rows:
        """Makes the rows that hold these sequences, filled up with padding."""
        size = (shape.rows, shape.length, self._per_row)
        rows = fill_rows([asked.sequence for asked in sequences], places, size, self._pad_id)
        masked = np.zeros((shape.rows, shape.slots), np.int32)
        used = np.zeros(shape.rows, np.int64)
        for asked, row, start in zip(sequences, places.row, places.start, strict=True):
            positions = asked.positions
            if positions is not None:
                masked[row, used[row] : used[row] + len(positions)] = start + positions
                used[row] += len(positions)
        return Rows(*rows, masked)

    def count_places(self, sequences: Sequence[Asked], shape: Shape) -> int:
        """Returns the places of a batch that are computed, padding included."""
        if self._packs:
            return shape.rows * shape.length
        return len(sequences) * max(asked.length for asked in sequences)

    def run(self, rows: Rows, device: jax.Device) -> Any:
        """Starts the forward pass and returns its output, which may not be there yet."""
        placed = jax.device_put(rows, device)
        return self._forward(self.params[device], placed, self._projections[device])

    def take(self, output: Any, sequences: Sequence[Asked], places: Places) -> list[Any]:
        """Returns the output for each sequence of a batch, `Sketched` with a projection."""
        if not self._sketches:
            return self._take_outputs(output, sequences, places)
        outputs, sketches = output
        return [
            Sketched(own, sketches[row, slot].copy())
            for own, row, slot in zip(
                self._take_outputs(outputs, sequences, places),
                places.row,
                places.slot,
                strict=True,
            )
        ]

    def _take_outputs(
        self, output: np.ndarray, sequences: Sequence[Asked], places: Places
    ) -> list[np.ndarray]:
        if not self._asks_positions:
            return [
                self._take(output, asked, int(row), int(slot), int(start))
                for asked, row, slot, start in zip(sequences, *places, strict=True)
            ]
        used = np.zeros(len(output), np.int64)
        outputs = []
        for asked, row in zip(sequences, places.row, strict=True):
            first = used[row]
            used[row] += len(asked.positions)
            outputs.append(output[row, first : used[row]].copy())
        return outputs


# See `Program`.
Answer = Callable[[Any, Rows], tuple[Array, Array | None]]


def _head_logits(given: Any, rows: Rows) -> tuple[Array, Array | None]:
    return given.logits, None if given.encoder is None else given.encoder.hidden


def _words(given: Any, rows: Rows) -> tuple[Array, Array | None]:
    logits, hidden = _head_logits(given, rows)
    return jax.nn.softmax(logits, axis=-1), hidden


def _hidden(given: Any, rows: Rows) -> tuple[Array, Array]:
    hidden = given.hidden.astype(jnp.float32)
    return hidden, hidden


class _Vectors(NamedTuple):
    """Pooled hidden states, several kinds side by side."""

    kinds: tuple[Pooling, ...]

    def __call__(self, given: Any, rows: Rows) -> tuple[Array, Array]:
        hidden, _ = _hidden(given, rows)
        pooled = [pool(hidden, *rows[2:5], kind) for kind in self.kinds]
        return jnp.concatenate(pooled, axis=-1), hidden


def _sketch(
    hidden: Float[Array, "B T D"], rows: Rows, projection: Float[Array, "D numbers"]
) -> Float[Array, "B K numbers"]:
    """Returns the projection of each sequence's mean hidden state."""
    mean = pool(hidden.astype(jnp.float32), *rows[2:5], "mean")
    return jnp.einsum("bkd,ds->bks", mean, projection, precision="highest")


def put_on(devices: Sequence[jax.Device], model: Model) -> dict[jax.Device, Model]:
    """Returns the model on each of the devices, which share nothing; its views share parameters."""
    return {
        device: model.replace(
            params=jax.device_put(model.params, device), spare=jax.device_put(model.spare, device)
        )
        for device in devices
    }


class Running(NamedTuple):
    """How every program of a server is run.

    Attributes:
        batch_tokens: places of a batch at most, padding included.
        longest: tokens of the longest sequence.
    """

    batch_tokens: int
    longest: int


def make_program(
    name: str,
    models: Mapping[jax.Device, Model],
    running: Running,
    kinds: Sequence[Pooling] = (),
    before: Program | None = None,
    projection: Float[np.ndarray, "D numbers"] | None = None,
) -> Program:
    """Makes the program that computes one output of a model.

    Args:
        name: "class", "choice" or "next-sentence", of sequences; "tag" or "span", of tokens;
            "token", the probabilities of all words at masked positions; "vector", pooled hidden
            states; "hidden", those of every token.
        models: a model of a class that has the output, on each of the devices that run it.
        running: how it is run.
        kinds: of pooling, for "vector".
        before: a program that this one takes the place of (`Program`).
        projection: see `Program`.
    """
    answer, take, architecture = {
        "class": (_head_logits, _of_sequences, None),
        "choice": (_head_logits, _of_sequences, None),
        "next-sentence": (_head_logits, _of_sequences, NEXT_SENTENCE),
        "tag": (_head_logits, _of_tokens, None),
        "span": (_head_logits, _of_tokens, None),
        "token": (_words, _of_sequences, MASKED_LM),
        "vector": (_Vectors(tuple(kinds)), _of_sequences, BODY),
        "hidden": (_hidden, _of_tokens, BODY),
    }[name]
    views = {
        device: model.as_architecture(architecture or model.architecture)
        for device, model in models.items()
    }
    model = next(iter(views.values()))
    return Program(
        name,
        model.module,
        {device: view.params for device, view in views.items()},
        answer,
        take,
        pad_id=model.tokenizer.pad_id,
        longest=running.longest,
        batch_tokens=running.batch_tokens,
        asks_positions=name == "token",
        before=before,
        projection=projection,
    )

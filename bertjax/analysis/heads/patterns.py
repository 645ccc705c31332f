"""What each head attends to: entropy, distance, shares of targets, far words, the five classes.

Everything is a ratio of sums over the tokens of texts, so that a bootstrap over the texts gives
intervals (`intervals.bootstrap_ratio`). The sums come of whole maps, or of a blockwise forward pass
that never holds one.
"""

import html
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.heads.blockwise_patterns import sum_maps_blockwise
from bertjax.analysis.heads.classes import CLASSES, classify, measure_structure
from bertjax.analysis.heads.targets import (
    FAR,
    SHARES,
    TARGETS,
    MapSums,
    TokenMarks,
    count_queries,
    mark_tokens,
    weigh_targets,
)
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.statistics.drawn_units import number_units
from bertjax.statistics.intervals import Figures, bootstrap_ratio

# Every figure that is measured of a head, and what it says. All rows of a map count, those of
# [CLS] and [SEP] too, but for `beyond_k_words`.
FIGURES: Mapping[str, str] = {
    "entropy": "entropy of a token's attention, nats",
    "distance": "mean distance of what is attended to, tokens",
    "self": "share of attention to the token itself",
    "previous": "share to the token before, of tokens that have one",
    "next": "share to the token after, of tokens that have one",
    "cls": "share to [CLS]",
    "sep": "share to [SEP]",
    "punctuation": "share to punctuation, in texts that have any",
    "same_word": "share to the other tokens of the own word, of tokens that have any",
    "repeated_word": "share to other words of the same form, of tokens that have any",
    **{
        f"beyond_{k}_words": f"share more than {k} words away, of attention between words"
        " ([CLS] and [SEP] left out)"
        for k in FAR
    },
    "vertical": "share, beyond chance, to the three tokens that get most",
    "diagonal": "share, beyond chance, to the token itself and its two neighbours",
    "block": "share off the diagonal, beyond chance, to the own segment of a pair",
    **{
        f"class_{name}": f"share of texts whose map is {name.replace('_', ' ')}" for name in CLASSES
    },
}


# Of the cells of a table of heads, in the order of CLASSES.
_CLASS_COLOURS = ("#cfe0f7", "#fbd9b5", "#d9ead3", "#e6d5f0", "#f2f2f2")


class RankedHead(NamedTuple):
    """A figure of a head with its 95 % interval, and that of the same head with random weights.

    Attributes:
        head: its name, layer-head.
        value: the figure of the model.
        low: the lower end of its interval.
        high: the upper end.
        control: the figure with random weights.
    """

    head: str
    value: float
    low: float
    high: float
    control: float


class HeadPatterns(NamedTuple):
    """What each head attends to.

    Attributes:
        figures: by the names of `FIGURES`, each `[L, N]` with intervals, beside random weights.
    """

    figures: Mapping[str, Figures]

    @property
    def classes(self) -> list[list[str]]:
        """The name of each head's class, by layer and head."""
        return [[CLASSES[number] for number in row] for row in classify_heads(self.figures)]

    def top(self, figure: str, count: int = 5) -> list[RankedHead]:
        """Returns the heads whose figure is largest, the largest first.

        Args:
            figure: one of `FIGURES`.
            count: how many heads, at most.

        Raises:
            UserError: there is no such figure.
        """
        if figure not in self.figures:
            known = list(self.figures)
            raise UserError(f"{figure!r} is not one of {', '.join(known)}{nearest(figure, known)}")
        model, control = self.figures[figure]
        value = np.where(np.isnan(model.value), -np.inf, model.value)
        best = np.argsort(-value, axis=None, kind="stable")[:count]
        places = zip(*np.unravel_index(best, value.shape), strict=True)
        return [
            RankedHead(
                f"{layer}-{head}", *(float(part[layer, head]) for part in (*model, control.value))
            )
            for layer, head in places
        ]

    def __repr__(self) -> str:
        counts = Counter(name for row in self.classes for name in row)
        return f"HeadPatterns({', '.join(f'{name} {n}' for name, n in counts.most_common())})"

    def _repr_html_(self) -> str:
        """Returns a table for a notebook: a row for each layer, the class of each head."""
        shares = {name: self.figures[name].model.value for name in ("vertical", "diagonal")}
        rows = []
        for layer, names in enumerate(self.classes):
            cells = "".join(
                f'<td style="background: {_CLASS_COLOURS[CLASSES.index(name)]}; color: black;'
                f' text-align: center">{layer}-{head}<br>{html.escape(name.replace("_", " "))}<br>'
                f"<small>{shares['vertical'][layer, head]:.2f}"
                f" {shares['diagonal'][layer, head]:.2f}</small></td>"
                for head, name in enumerate(names)
            )
            rows.append(f"<tr>{cells}</tr>")
        return (
            "<p>class of each head, layer-head; below it the shares of attention, beyond chance, to"
            " the three tokens that get most (vertical) and to the token and its neighbours"
            f' (diagonal)</p><table style="font-size: 70%">{"".join(rows)}</table>'
        )


class Tally(NamedTuple):
    """A figure of every head in every unit (see `drawn_units.number_units`), as a fraction.

    Attributes:
        sums, counts: the figure is the one over the other, of one unit or added over several.
    """

    sums: Float[np.ndarray, "units L N"]
    counts: Float[np.ndarray, "units L N"]


def measure_patterns(
    body: Model,
    texts: Sequence[EncodedText],
    *,
    blockwise: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Tally]:
    """Measures all `FIGURES` of every head in every unit of texts; memory is that of the units.

    Args:
        body: whose heads they are.
        texts: encoded by its tokenizer; pairs, where blocks are of interest.
        blockwise: whether to go without whole maps: memory linear in the length, the same figures
            (to 1e-5). It is for long texts; for short ones it is slower.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: no texts.
    """
    if not texts:
        raise UserError("there are no texts to measure attention on; give one at least")
    units, config = number_units(text.source for text in texts), body.config
    shape = units.max() + 1, config.num_hidden_layers, config.num_attention_heads
    tallies = {name: Tally(*np.zeros((2, *shape))) for name in FIGURES}
    for number, sums in enumerate(_sum_all(body, texts, blockwise, progress)):
        for name, parts in tally_text(sums, mark_tokens(texts[number])).items():
            for whole, part in zip(tallies[name], parts, strict=True):
                whole[units[number]] += part
    return tallies


def patterns_with_company(
    body: Model,
    texts: Sequence[EncodedText],
    seed: int = 0,
    *,
    blockwise: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Figures]:
    """Measures all `FIGURES` of every head `[L, N]` with intervals, beside those of random weights.

    Args:
        body: whose heads they are.
        texts: encoded by its tokenizer.
        seed: of the control's weights and of the bootstrap.
        blockwise: see `measure_patterns`.
        progress: called with the number of texts done since the last call; each text counts
            twice, once for the control.

    Raises:
        UserError: no texts.
    """
    model, control = (
        measure_patterns(compared, texts, blockwise=blockwise, progress=progress)
        for compared in (body, randomize(body, seed))
    )
    return compare_tallies(model, control, seed)


def compare_tallies(
    model: Mapping[str, Tally], control: Mapping[str, Tally], seed: int = 0
) -> dict[str, Figures]:
    """Computes each figure of a model with its interval, beside that of its control.

    Args:
        model: the sums and counts of each figure.
        control: those of the random control.
        seed: of the bootstrap.
    """
    return {
        name: Figures(
            bootstrap_ratio(*model[name], seed=seed), bootstrap_ratio(*control[name], seed=seed)
        )
        for name in model
    }


def classify_heads(figures: Mapping[str, Figures]) -> Int[np.ndarray, "L N"]:
    """Classifies each head by its shares over all texts together: a number in `CLASSES`.

    Args:
        figures: by the names of `FIGURES`.
    """
    return classify(*(figures[name].model.value for name in ("vertical", "diagonal", "block")))


def sum_maps(probs: Float[np.ndarray, "L N T T"], marks: TokenMarks) -> MapSums:
    """Computes the sums of all maps of a text.

    Args:
        probs: the attention of the text's heads.
        marks: what is known of its tokens.
    """
    layers, heads = probs.shape[:2]
    weights = weigh_targets(marks, marks).reshape(len(TARGETS), -1)
    targets = probs.reshape(layers * heads, -1) @ weights.T
    off_diagonal = probs * (np.abs(marks.position[:, None] - marks.position) > 1)
    return MapSums(
        entr(probs).sum(axis=(2, 3)),
        np.moveaxis(targets.reshape(layers, heads, -1), -1, 0),
        np.stack([off_diagonal[:, :, parity::2].sum(axis=2) for parity in (0, 1)]),
    )


def tally_text(sums: MapSums, marks: TokenMarks) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Computes sum and count `[L, N]` of all `FIGURES` of a text.

    Args:
        sums: of the text's maps (`sum_maps`).
        marks: what is known of its tokens.
    """
    tokens = len(marks.position)
    targets = dict(zip(TARGETS, sums.targets.astype(np.float64), strict=True))
    ones = np.ones_like(targets["self"])
    tallies = {
        "entropy": (sums.entropy.astype(np.float64), tokens * ones),
        "distance": (targets["distance"], tokens * ones),
    }
    counts = count_queries(marks)
    tallies |= {name: (targets[name], counts[name] * ones) for name in SHARES}
    for name in (f"beyond_{k}_words" for k in FAR):
        tallies[name] = targets[name], targets["words"]

    structure = measure_structure(
        sums.columns,
        targets["self"] + targets["previous"] + targets["next"],
        targets["own_segment_off_diagonal"],
        marks,
    )
    for number, name in enumerate(("vertical", "diagonal", "block")):
        tallies[name] = structure.sums[number], structure.counts[number]
    with np.errstate(invalid="ignore", divide="ignore"):
        classes = classify(*(structure.sums / structure.counts))
    for number, name in enumerate(CLASSES):
        tallies[f"class_{name}"] = (classes == number).astype(np.float64), ones
    return tallies


def _sum_all(
    body: Model, texts: Sequence[EncodedText], blockwise: bool, progress: Callable[[int], None]
) -> Iterator[MapSums]:
    """Computes the sums of each text."""
    if blockwise:
        yield from sum_maps_blockwise(body, texts, progress=progress)
        return
    for captured in capture(body, texts, progress=progress):
        yield sum_maps(captured.probs, mark_tokens(captured.encoded))

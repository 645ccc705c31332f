"""Heads that attend along dependencies: accuracy by relation, and the trees they form.

The word maps are those of `merge_subwords`. No choice includes [CLS], [SEP] or the word itself.

count_syntax      -> what every head of a body gets right, sentence by sentence
relation_figures  -> for every relation the best head and the best fixed offset
tree_figures      -> how much of the trees a spanning tree of each head's attention has

The best of many heads looks better than it is on the sentences that it was chosen on. Therefore the
head (and the direction, the offset, and the head of the control) is chosen on one half of the
sentences, and its accuracy on the other half is reported; the halves go by a hash of the words.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.analysis.capture.encoding import merge_subwords
from bertjax.analysis.capture.maps import Captured, capture
from bertjax.analysis.probes.treebank import EncodedTreebank, Sentence, split_halves
from bertjax.analysis.probes.trees import attached_edges, chain_edges
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio

DIRECTIONS = ("dependent to head", "head to dependent")
# All words except roots and punctuation.
EVERY_RELATION = "(all)"
# The fewest words of a relation in either half; rarer relations are left out.
LEAST_WORDS = 20
# Fixed offsets that the baseline chooses from: the head is that many words further on.
OFFSETS = np.array([offset for offset in range(-10, 11) if offset])


class SyntaxCounts(NamedTuple):
    """What the heads get right in every sentence.

    Attributes:
        relations: R of them.
        words: how many words have each relation.
        hits: for how many of them the word attended to most is the right one, in both `DIRECTIONS`.
        offset_hits: for how many the head is that far away, for each of `OFFSETS`.
        edges: those of the tree, without edges to punctuation.
        attached: how many of them the maximum spanning tree of each head has.
        chained: how many of them connect neighbours.
    """

    relations: tuple[str, ...]
    words: Int[np.ndarray, "sentences R"]
    hits: Int[np.ndarray, "sentences 2 R L N"]
    offset_hits: Int[np.ndarray, "sentences R offsets"]
    edges: Int[np.ndarray, " sentences"]
    attached: Int[np.ndarray, "sentences L N"]
    chained: Int[np.ndarray, " sentences"]


class RelationFigures(NamedTuple):
    """The best head for every relation and direction, all figures on the half to report.

    Attributes:
        relations: R of them, the most frequent first.
        words: how many words have each relation.
        heads: layer and head, from 0, the best on the other half.
        directions: the index in `DIRECTIONS` whose head is better on the other half.
        accuracy: that of the head, and of the control's head that is best on the other half.
        offsets: the best on the other half, among `OFFSETS`.
        offset_accuracy: that of the fixed offset: the baseline of both directions.
        gain: accuracy minus that of the offset; 0 is outside the interval of a head that does more
            than attend a fixed number of words further on.
        by_head: accuracy of every head.
        left_out: relations that are too rare.
    """

    relations: tuple[str, ...]
    words: Int[np.ndarray, " R"]
    heads: Int[np.ndarray, "2 R 2"]
    directions: Int[np.ndarray, " R"]
    accuracy: Figures
    offsets: Int[np.ndarray, " R"]
    offset_accuracy: Interval
    gain: Interval
    by_head: Float[np.ndarray, "2 R L N"]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns a record for each relation and direction."""
        accuracy, rows = self.accuracy.to_json(), []
        for number, relation in enumerate(self.relations):
            for way, direction in enumerate(DIRECTIONS):
                layer, head = self.heads[way, number].tolist()
                row = {
                    "relation": relation,
                    "direction": direction,
                    "words": int(self.words[number]),
                    "layer": layer,
                    "head": head,
                    "accuracy": {name: part[way][number] for name, part in accuracy.items()},
                    "offset": int(self.offsets[number]),
                    "offset_accuracy": _to_json(self.offset_accuracy, number),
                    "gain": _to_json(self.gain, (way, number)),
                }
                rows.append(row)
        return {"relations": rows, "left_out": list(self.left_out)}


class TreeFigures(NamedTuple):
    """Undirected attachment scores (UUAS) of the heads' maximum spanning trees.

    Attributes:
        by_head: `[L, N]`, over all sentences, with nothing chosen.
        head: layer and head, from 0, that are best on one half of the sentences.
        best: its score on the other half, and that of the control's best head.
        chain: the baseline: the score on that half of connecting every word to the next.
    """

    by_head: Figures
    head: tuple[int, int]
    best: Figures
    chain: Interval

    def to_json(self) -> dict[str, Any]:
        """Returns all of them as nested lists by layer and head."""
        return {
            "by_head": self.by_head.to_json(),
            "layer": self.head[0],
            "head": self.head[1],
            "best": self.best.to_json(),
            "chain": _to_json(self.chain, ()),
        }


def count_syntax(
    captures: Iterable[Captured], sentences: Sequence[Sentence], *, subtypes: bool = False
) -> SyntaxCounts:
    """Counts over the sentences' attention, in the memory of the counts alone.

    A head is right about a dependent when the word that the dependent attends to most is its head
    (dependent to head), or when its head attends to it most of all words (head to dependent);
    both are counted for every dependent. The root has no head and is skipped.

    Args:
        captures: those of the sentences, in order, with words 1 ... W being the sentence's.
        sentences: the treebank's.
        subtypes: whether `nsubj:pass` is a relation of its own, or a `nsubj`.

    Source: Clark et al. 2019, section 4.2 and the authors' Syntax_Analysis notebook; spanning trees
    as Raganato & Tiedemann 2018, section 4.1, undirected.
    """
    labels = [[_relation(name, subtypes) for name in own.relations] for own in sentences]
    heads_of = [sentence.heads for sentence in sentences]
    counts = {
        name
        for own, heads in zip(labels, heads_of, strict=True)
        for name, head in zip(own, heads, strict=True)
        if head >= 0
    }
    relations = (EVERY_RELATION, *sorted(counts))
    numbers = {name: number for number, name in enumerate(relations)}
    rows: list[tuple[Any, ...]] = []
    for captured, sentence, own in zip(captures, sentences, labels, strict=True):
        dependents = np.flatnonzero(sentence.heads >= 0)
        heads = sentence.heads[dependents]
        is_of = np.zeros((len(dependents), len(relations)), bool)
        is_of[np.arange(len(dependents)), [numbers[own[word]] for word in dependents]] = True
        is_of[:, 0] = ~sentence.punctuation[dependents]
        maps = merge_subwords(captured.probs, captured.encoded)[..., 1:-1, 1:-1]
        right = attends_to_heads(maps, dependents, heads)
        offsets = (heads - dependents)[:, None] == OFFSETS
        costs = -maps.reshape(-1, *maps.shape[2:])
        attached, edges = attached_edges(costs, sentence.heads, ~sentence.punctuation)
        row = (
            is_of.sum(axis=0),
            np.einsum("kr,alnk->arln", is_of.astype(np.int16), right.astype(np.int16)),
            is_of.T.astype(np.int16) @ offsets.astype(np.int16),
            edges,
            attached.reshape(maps.shape[:2]),
            chain_edges(sentence.heads, ~sentence.punctuation),
        )
        rows.append(row)
    return SyntaxCounts(relations, *(np.array(part) for part in zip(*rows, strict=True)))


def attends_to_heads(
    maps: Float[np.ndarray, "L N W W"],
    dependents: Int[np.ndarray, " dependents"],
    heads: Int[np.ndarray, " dependents"],
) -> Bool[np.ndarray, "2 L N dependents"]:
    """Returns whether each head finds the head of each dependent, in both `DIRECTIONS`.

    Args:
        maps: attention between the words of the sentence, without special tokens.
        dependents: word numbers.
        heads: the word that each dependent depends on.
    """
    others = np.where(np.eye(maps.shape[-1], dtype=bool), -1, maps)
    ways = (others, np.swapaxes(others, -1, -2))
    return np.stack([way.argmax(axis=-1)[..., dependents] == heads for way in ways])


def check_relations(sentences: Sequence[Sentence], least: int = LEAST_WORDS) -> None:
    """Checks that a relation is frequent enough to be measured, by the labels alone.

    Raises:
        UserError: none has enough words in both halves.
    """
    halves = [
        collections.Counter(
            name for number in np.flatnonzero(half) for name in _relations_of(sentences[number])
        )
        for half in split_halves(sentences)
    ]
    most = max((min(half[name] for half in halves) for name in halves[0]), default=0)
    if most < max(1, least):
        raise UserError(
            f"no relation has {least} words in both halves of the"
            f" {counted(len(sentences), 'sentence')} of the treebank; give a larger treebank"
        )


def _relations_of(sentence: Sentence) -> list[str]:
    """Returns the words of every relation, and as `EVERY_RELATION` all but punctuation."""
    words = np.flatnonzero(sentence.heads >= 0)
    every = [EVERY_RELATION for word in words if not sentence.punctuation[word]]
    return every + [_relation(sentence.relations[word], subtypes=False) for word in words]


def check_trees(sentences: Sequence[Sentence]) -> None:
    """Checks that there are dependencies to choose a head on, and others to report on.

    Raises:
        UserError: a half of the sentences has none between words that are not punctuation.
    """
    for half in split_halves(sentences):
        edges = [(s.heads >= 0) & ~s.punctuation for s, own in zip(sentences, half, strict=True)
                 if own]  # fmt: skip
        if not any(own.any() for own in edges):
            raise UserError(
                "half of the treebank has no dependency between words; give a larger treebank"
            )


def relation_figures(
    model: SyntaxCounts,
    control: SyntaxCounts,
    sentences: Sequence[Sentence],
    least: int = LEAST_WORDS,
) -> RelationFigures:
    """Finds each relation's best head, chosen on half of the sentences, measured on the others.

    Args:
        model: counts of the body under study.
        control: counts of a randomized body, of the same sentences.
        sentences: the counted sentences.
        least: the fewest words of a relation in either half; rarer ones are left out.

    Raises:
        UserError: no relation has that many words.
    """
    choose, report = split_halves(sentences)
    totals = np.stack([model.words[half].sum(axis=0) for half in (choose, report)])
    kept = np.flatnonzero((totals >= max(1, least)).all(axis=0))
    if not len(kept):
        check_relations(sentences, least)
    kept = kept[np.argsort(-totals[:, kept].sum(axis=0), kind="stable")]
    words = model.words[report][:, kept]
    intervals, chosen, best_hits = [], [], []
    for counts in (model, control):
        heads = _best_heads(counts.hits[choose][:, :, kept])
        chosen.append(heads)
        hits = counts.hits[report][:, :, kept]
        way, relation = np.indices(heads.shape[:2])
        hits = hits[:, way, relation, heads[..., 0], heads[..., 1]]
        best_hits.append(hits)
        intervals.append(bootstrap_ratio(hits, words[:, None]))
    most = model.hits[choose][:, :, kept].sum(axis=0).max(axis=(-1, -2))
    offset = model.offset_hits[choose][:, kept].sum(axis=0).argmax(axis=-1)
    offset_hits = model.offset_hits[report][:, kept, offset]
    by_head = model.hits[report][:, :, kept].sum(axis=0) / words.sum(axis=0)[:, None, None]
    return RelationFigures(
        tuple(model.relations[number] for number in kept),
        words.sum(axis=0),
        chosen[0],
        most.argmax(axis=0),
        Figures(*intervals),
        OFFSETS[offset],
        bootstrap_ratio(offset_hits, words),
        bootstrap_ratio(best_hits[0] - offset_hits[:, None], words[:, None]),
        by_head,
        tuple(name for number, name in enumerate(model.relations) if number not in kept),
    )


def tree_figures(
    model: SyntaxCounts, control: SyntaxCounts, sentences: Sequence[Sentence]
) -> TreeFigures:
    """Scores every head's undirected attachment, and the best head's, as in `relation_figures`."""
    choose, report = split_halves(sentences)
    by_head, best, heads = [], [], []
    for counts in (model, control):
        edges = counts.edges[:, None, None]
        by_head.append(bootstrap_ratio(counts.attached, edges))
        layer, head = _best_heads(counts.attached[choose])
        heads.append((int(layer), int(head)))
        best.append(bootstrap_ratio(counts.attached[report, layer, head], counts.edges[report]))
    chain = bootstrap_ratio(model.chained[report], model.edges[report])
    return TreeFigures(Figures(*by_head), heads[0], Figures(*best), chain)


def compare_syntax(
    body: Model,
    control: Model,
    treebank: EncodedTreebank,
    *,
    subtypes: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[SyntaxCounts, SyntaxCounts]:
    """Compares a body with its control by `count_syntax`, in both figures.

    Args:
        body: the body whose heads are studied.
        control: `randomize(body)`.
        treebank: encoded with the body's tokenizer.
        subtypes: see `count_syntax`.
        progress: called with the number of sentences done since the last call; every sentence is
            done twice.
    """
    model, random = (
        count_syntax(
            capture(own, treebank.encoded, progress=progress),
            treebank.sentences,
            subtypes=subtypes,
        )
        for own in (body, control)
    )
    return model, random


def _relation(name: str, subtypes: bool) -> str:
    return name if subtypes else name.partition(":")[0]


def _best_heads(hits: Int[np.ndarray, "sentences ... L N"]) -> Int[np.ndarray, "... 2"]:
    """Returns layer and head with the most hits."""
    total = hits.sum(axis=0)
    flat = total.reshape(*total.shape[:-2], -1).argmax(axis=-1)
    return np.stack(np.unravel_index(flat, total.shape[-2:]), axis=-1)


def _to_json(interval: Interval, place: Any) -> dict[str, float]:
    return {name: float(part[place]) for name, part in interval._asdict().items()}

"""Which studies a treebank allows, by its labels alone, before anything is computed."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from bertjax.analysis.probes.label_tasks import check_labels
from bertjax.analysis.probes.structural_probe import long_enough
from bertjax.analysis.probes.syntax import check_relations, check_trees
from bertjax.analysis.probes.treebank import EncodedTreebank, split_sentences
from bertjax.analysis.probes.word_vectors import choose_sentences
from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.text.splits import Split

Study = Literal["relations", "trees", "structure", "upos", "relation", "mixing"]
SYNTAX: tuple[Study, ...] = ("relations", "trees")
PROBES: tuple[Study, ...] = ("structure", "upos", "relation", "mixing")
_TITLES: dict[Study, str] = {
    "relations": "heads that follow relations",
    "trees": "trees of attention",
    "structure": "structural probes",
    "upos": "probes of parts of speech",
    "relation": "probes of relations",
    "mixing": "mixing weights",
}


class TreebankPlan(NamedTuple):
    """What is measured on a treebank.

    Attributes:
        treebank: the treebank for syntax.
        probed: the sentences that probes are trained and tested on.
        splits: their numbers in each split.
        studies: the studies that the treebank allows.
        notes: what is left out and why, and other remarks.
    """

    treebank: EncodedTreebank
    probed: EncodedTreebank
    splits: Mapping[Split, Int[np.ndarray, " some"]]
    studies: tuple[Study, ...]
    notes: tuple[str, ...]

    @property
    def syntax(self) -> bool:
        """Whether any study is about the heads."""
        return not {*SYNTAX}.isdisjoint(self.studies)

    @property
    def probes(self) -> tuple[Study, ...]:
        """The studies of the hidden states."""
        return tuple(study for study in PROBES if study in self.studies)


def plan_treebank(treebank: EncodedTreebank, config: BertConfig) -> TreebankPlan:
    """Decides what can be measured, before anything is computed.

    Each study stands alone: with only one relation, its probe is left out and the others stay.
    """
    probed, notes = choose_sentences(treebank, config)
    splits = split_sentences(probed.sentences)
    sentences = probed.sentences

    def check_structure() -> None:
        for split in splits:
            long_enough(split, sentences, splits)

    checks: dict[Study, Callable[[], Any]] = {
        "relations": lambda: check_relations(treebank.sentences),
        "trees": lambda: check_trees(treebank.sentences),
        "structure": check_structure,
        "upos": lambda: check_labels("upos", sentences, splits),
        "relation": lambda: check_labels("relation", sentences, splits),
        "mixing": lambda: check_labels("upos", sentences, splits),
    }
    studies, reasons = [], dict[str, list[str]]()
    for study, check in checks.items():
        try:
            check()
            studies.append(study)
        except UserError as error:
            reasons.setdefault(str(error), []).append(_TITLES[study])
    left_out = [f"{', '.join(names)}: left out, {reason}" for reason, names in reasons.items()]
    return TreebankPlan(
        treebank, probed, splits, tuple(studies), (*treebank.notes, *notes, *left_out)
    )

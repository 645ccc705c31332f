"""What `bertjax analyze` measures on a treebank: sections of the report, as in `survey`.

plan_treebank    -> which studies the treebank allows, by its labels alone, and why not others
survey_syntax    heads that follow dependencies
survey_probes    trees and labels in the hidden states
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from bertjax.analysis.probes.layer_mixing import study_mixing
from bertjax.analysis.probes.linear_probe import check_labels, study_linear_probes
from bertjax.analysis.probes.structural_probe import RANK, long_enough, study_structure
from bertjax.analysis.probes.syntax import (
    DIRECTIONS,
    SyntaxCounts,
    check_relations,
    check_trees,
    compare_syntax,
    relation_figures,
    tree_figures,
)
from bertjax.analysis.probes.treebank import EncodedTreebank, split_sentences
from bertjax.analysis.probes.word_vectors import WordVectors, choose_sentences, word_vectors
from bertjax.analysis.report.data import (
    Cell,
    Curve,
    Head,
    HeadFigure,
    Measure,
    ReportData,
    Series,
    Table,
)
from bertjax.analysis.report.survey import Progress, layer_labels
from bertjax.config import BertConfig
from bertjax.loaded import Model
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
_TASKS: dict[Literal["upos", "relation"], str] = {
    "upos": "parts of speech", "relation": "relations"
}  # fmt: skip


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


def survey_syntax(
    body: Model, control: Model, plan: TreebankPlan, progress: Progress
) -> ReportData:
    """Finds the best head of every relation, and the trees of the heads' attention.

    Progress counts each sentence twice.
    """
    counts = compare_syntax(body, control, plan.treebank, progress=progress)
    tables, figures, notes = [], [], []
    if "relations" in plan.studies:
        table, left_out = _tabulate_relations(counts, plan.treebank)
        tables.append(table)
        notes += left_out
    if "trees" in plan.studies:
        trees = tree_figures(*counts, plan.treebank.sentences)
        tables.append(
            Table(
                "trees",
                "Trees of attention",
                "share of the undirected dependencies in the maximum spanning tree of a head's"
                " attention (UUAS); the chain connects every word to the next",
                ("head", "UUAS", "chain"),
                ((Head(*trees.head), Measure.of(trees.best), Measure.of(trees.chain)),),
            )
        )
        figures.append(
            HeadFigure(
                "spanning-tree",
                "Trees",
                "",
                "UUAS of the maximum spanning tree of its attention",
                trees.by_head,
            )
        )
    return ReportData("", head_figures=figures, tables=tables, notes=notes)


def _tabulate_relations(
    counts: tuple[SyntaxCounts, SyntaxCounts], treebank: EncodedTreebank
) -> tuple[Table, list[str]]:
    """Makes a row for each relation, and a note about those that are too rare."""
    relations = relation_figures(*counts, treebank.sentences)
    rows: list[tuple[Cell, ...]] = []
    for number, relation in enumerate(relations.relations):
        way = int(relations.directions[number])
        layer, head = (int(part) for part in relations.heads[way, number])
        offset = int(relations.offsets[number])
        rows.append(
            (
                relation,
                int(relations.words[number]),
                Head(layer, head),
                DIRECTIONS[way],
                Measure.of(relations.accuracy, (way, number)),
                Measure.of(relations.offset_accuracy, number),
                f"{offset:+d}",
                Measure.of(relations.gain, (way, number)),
            )
        )
    table = Table(
        "relations",
        "Heads that follow dependencies",
        "how often the word that a head attends to most is the one that the dependency names; head,"
        " direction and offset were chosen on one half of the sentences, the figures are for the"
        " other (Clark et al. 2019). Where 0 is in the interval of the gain, the head may do no"
        " more than attend a fixed number of words further on",
        (
            "relation",
            "words",
            "head",
            "direction",
            "accuracy",
            "best offset's accuracy",
            "offset",
            "gain over the offset",
        ),
        tuple(rows),
    )
    if not relations.left_out:
        return table, []
    return table, [
        f"{len(relations.left_out)} relations are too rare in the treebank to be measured:"
        f" {', '.join(relations.left_out)}"
    ]


def survey_probes(
    body: Model, control: Model, plan: TreebankPlan, progress: Progress
) -> ReportData:
    """Trains the plan's structural probes, linear probes with control tasks, and mixing weights.

    Progress counts each of the probed sentences twice, and then each study once.
    """
    model, random = (word_vectors(one, plan.probed, progress=progress) for one in (body, control))
    labels = layer_labels(body)
    curves: list[Curve] = []
    rows: list[tuple[Cell, ...]] = []
    for study in plan.probes:
        curve, row = _probe(study, model, random, plan, labels)
        curves.append(curve)
        rows += [row] * (row is not None)
        progress(1)
    table = Table(
        "probes",
        "What probes find",
        "at the layer that is best on the validation sentences; the baseline is the chain of words"
        " for trees, and each word's most frequent label otherwise",
        ("probe", "layer", "score", "baseline", "selectivity"),
        tuple(rows),
    )
    return ReportData("", curves=curves, tables=[table] * bool(rows))


def _probe(
    study: Study, model: WordVectors, random: WordVectors, plan: TreebankPlan, labels: Any
) -> tuple[Curve, tuple[Cell, ...] | None]:
    """Returns the curve of a study, and its row of the table."""
    data = plan.probed.sentences, plan.splits
    if study == "structure":
        rank = min(RANK, model.vectors.shape[-1])
        structure = study_structure(model, random, *data, rank=rank)
        curve = Curve(
            "structure",
            "Trees in the hidden states",
            "structural probes (Hewitt & Manning 2019): share of the dependencies that distances"
            " recover (UUAS), rank correlations of distances and depths, roots found",
            "layer",
            "score",
            labels,
            (
                Series("UUAS", structure.uuas),
                Series("distances (DSpr)", structure.distance_correlation),
                Series("depths (NSpr)", structure.depth_correlation),
                Series("roots", structure.root_accuracy),
            ),
        )
        return curve, (
            "trees (structural probe), UUAS",
            labels[structure.distance_layer],
            Measure.of(structure.uuas, structure.distance_layer),
            Measure.of(structure.chain),
            None,
        )
    if study == "mixing":
        mixing = study_mixing("upos", model, random, *data)
        curve = Curve(
            "mixing",
            "Where parts of speech are found",
            "weights of the layers in a mixture learned with the classifier (Tenney et al. 2019)",
            "layer",
            "weight",
            labels,
            (Series("weight", mixing.weights),),
        )
        return curve, None
    linear = study_linear_probes(study, model, random, *data)
    curve = Curve(
        f"probe-{study}",
        f"Linear probe: {_TASKS[study]}",
        "accuracy of a linear classifier of the hidden states, and how much of it is not memorizing"
        " words (selectivity, Hewitt & Liang 2019)",
        "layer",
        "accuracy",
        labels,
        (
            Series("accuracy", linear.accuracy),
            Series("control task", linear.control_accuracy),
            Series("selectivity", linear.selectivity),
        ),
    )
    return curve, (
        f"{_TASKS[study]}, accuracy",
        labels[linear.layer],
        Measure.of(linear.accuracy, linear.layer),
        Measure.of(linear.by_type),
        Measure.of(linear.selectivity, linear.layer),
    )

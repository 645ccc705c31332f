"""What a report measures on a treebank: sections as in `survey`, at the end the table of them.

survey_syntax    heads that follow dependencies
survey_probes    trees and labels in the hidden states
"""

from typing import Literal

from bertjax.analysis.probes.layer_mixing import study_mixing
from bertjax.analysis.probes.linear_probe import study_linear_probes
from bertjax.analysis.probes.structural_probe import RANK, study_structure
from bertjax.analysis.probes.syntax import (
    DIRECTIONS,
    SyntaxCounts,
    compare_syntax,
    relation_figures,
    tree_figures,
)
from bertjax.analysis.probes.treebank import EncodedTreebank
from bertjax.analysis.probes.word_vectors import WordVectors, word_vectors
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
from bertjax.analysis.report.subject import Progress, Subject, Survey
from bertjax.analysis.report.treebank_plan import Study, TreebankPlan

_TASKS: dict[Literal["upos", "relation"], str] = {
    "upos": "parts of speech", "relation": "relations"
}  # fmt: skip


def survey_syntax(subject: Subject, progress: Progress) -> ReportData:
    """Finds the best head of every relation, and the trees of the heads' attention."""
    plan = subject.treebank
    counts = compare_syntax(subject.body, subject.control, plan.treebank, progress=progress)
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


def survey_probes(subject: Subject, progress: Progress) -> ReportData:
    """Trains the plan's structural probes, linear probes with control tasks, and mixing weights."""
    plan = subject.treebank
    model, random = (
        word_vectors(compared, plan.probed, progress=progress)
        for compared in (subject.body, subject.control)
    )
    curves: list[Curve] = []
    rows: list[tuple[Cell, ...]] = []
    for study in plan.probes:
        curve, row = _probe(study, model, random, plan, subject.layers)
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
    study: Study,
    model: WordVectors,
    random: WordVectors,
    plan: TreebankPlan,
    labels: tuple[str, ...],
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


def _count_syntax(subject: Subject) -> int:
    """Counts each sentence for the model and for its control."""
    plan = subject.treebank
    return 2 * len(plan.treebank.sentences) if plan and plan.syntax else 0


def _count_probes(subject: Subject) -> int:
    """Counts the vectors of each sentence for the model and its control, then each study."""
    plan = subject.treebank
    return 2 * len(plan.probed.sentences) + len(plan.probes) if plan and plan.probes else 0


SURVEYS = (
    Survey("dependencies", _count_syntax, survey_syntax),
    Survey("probes", _count_probes, survey_probes),
)

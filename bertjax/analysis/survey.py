"""What `bertjax analyze` measures: the sections of a report, each with its company.

A section is a `ReportData` without title; `join` puts them together.

survey_attention   what each head attends to, which heads do the same, how far layers look
survey_layers      how alike the layers' hidden states are
survey_words       what the masked-LM head reads at every layer
survey_importance  which heads matter, and how the model bears their loss
survey_syntax      heads that follow dependencies
survey_probes      trees and labels in the hidden states
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertjax.analysis.capture import Body, capture
from bertjax.analysis.company import Figures, bootstrap_ratio
from bertjax.analysis.drawn_units import number_units
from bertjax.analysis.encoding import EncodedText
from bertjax.analysis.head_classes import CLASSES
from bertjax.analysis.importance import draw_pruning_curve, importance_with_company, order_heads
from bertjax.analysis.layer_mixing import study_mixing
from bertjax.analysis.lens import MaskedModel, compare_lenses, logit_lens
from bertjax.analysis.linear_probe import study_linear_probes
from bertjax.analysis.objective import Objective
from bertjax.analysis.patterns import FIGURES, classify_heads, compare_tallies, measure_patterns
from bertjax.analysis.redundancy import Divergences, measure_redundancy
from bertjax.analysis.report_data import (
    Cell,
    Curve,
    Head,
    HeadFigure,
    Matrix,
    Measure,
    ReportData,
    Series,
    Table,
)
from bertjax.analysis.similarity import FOLDS, compare_layers
from bertjax.analysis.structural_probe import RANK, study_structure
from bertjax.analysis.syntax import DIRECTIONS, study_syntax
from bertjax.analysis.targets import FAR
from bertjax.analysis.treebank import EncodedTreebank, split_sentences
from bertjax.analysis.word_vectors import choose_sentences, word_vectors

Progress = Callable[[int], None]

# Points of a pruning curve behind the first.
PRUNING_STEPS = 10

_TITLES = {
    "entropy": "Entropy", "distance": "Distance", "self": "To itself",
    "previous": "To the previous token", "next": "To the next token", "cls": "To [CLS]",
    "sep": "To [SEP]", "punctuation": "To punctuation", "same_word": "Within the word",
    "repeated_word": "To the same word elsewhere", "vertical": "Vertical", "diagonal": "Diagonal",
    "block": "Block",
}  # fmt: skip
_UNITS = {"entropy": "nats", "distance": "tokens"}
_TASKS = {"upos": "parts of speech", "relation": "relations"}


def join(
    title: str, facts: Mapping[str, str | int | float], parts: Sequence[ReportData]
) -> ReportData:
    """One report of several sections."""
    lists = {
        name: [one for part in parts for one in getattr(part, name)]
        for name in ReportData._fields
        if name not in ("title", "facts")
    }
    return ReportData(title, facts, **lists)


def survey_attention(
    body: Body,
    control: Body,
    texts: Sequence[EncodedText],
    shown: Sequence[EncodedText],
    progress: Progress,
) -> ReportData:
    """Figures of every head, far words by layer, heads that do the same, maps to explore.

    Progress counts each of `texts` four times and each of `shown` once.
    """
    tallies = [measure_patterns(one, texts, progress=progress) for one in (body, control)]
    figures = compare_tallies(*tallies)
    heads = [
        HeadFigure(
            name.replace("_", "-"), _TITLES[name], _UNITS.get(name, ""), FIGURES[name],
            figures[name],
        )
        for name in _TITLES
    ]  # fmt: skip
    if all(len(set(text.token_type_ids)) < 2 for text in texts):
        heads = [one for one in heads if one.name != "block"]
    heads.append(
        HeadFigure(
            "class",
            "Class",
            "",
            "vertical, diagonal, both, block or heterogeneous (Kovaleva et al. 2019), by a rule",
            classify_heads(figures).astype(float),
            tuple(name.replace("_", " ") for name in CLASSES),
        )
    )
    divergences = [measure_redundancy(one, texts, progress=progress) for one in (body, control)]
    heads.append(_nearest_head(divergences, figures["entropy"].model.value.shape))
    layers = _layer_labels(body)[1:]
    far = [
        Series(
            f"more than {k}",
            Figures(
                *(
                    bootstrap_ratio(*(part.sum(axis=2) for part in tally[f"beyond_{k}_words"]))
                    for tally in tallies
                )
            ),
        )
        for k in FAR
    ]
    curve = Curve(
        "far-words",
        "How far layers look",
        "share of the attention between words that goes more than so many words away",
        "layer",
        "share of attention",
        layers,
        tuple(far),
    )
    captures = list(capture(body, shown, progress=progress))
    return ReportData("", head_figures=heads, curves=[curve], sentences=captures)


def survey_layers(body: Body, texts: Sequence[EncodedText], progress: Progress) -> ReportData:
    """Linear CKA between all layers. Progress counts each text once."""
    labels = _layer_labels(body)
    units = number_units(text.source for text in texts)
    folds = min(FOLDS, int(units.max()) + 1)
    matrix = Matrix(
        "cka",
        "Likeness of the layers",
        "linear centred kernel alignment (CKA, unbiased) of the hidden states: 1 = the same up to"
        " rotation and scale",
        "layer",
        "layer",
        labels,
        labels,
        compare_layers(body, body, texts, folds=folds, progress=progress),
    )
    return ReportData("", matrices=[matrix])


def survey_words(
    model: MaskedModel,
    texts: Sequence[EncodedText],
    shown: Sequence[EncodedText],
    progress: Progress,
) -> ReportData:
    """The logit lens. Progress counts each of `texts` twice and each of `shown` once."""
    figures = compare_lenses(model, texts, progress=progress)
    curve = Curve(
        "lens",
        "When the model knows the word",
        "mean reciprocal rank of the true token where it is masked, read by the masked-LM head from"
        " the hidden states of each layer",
        "layer",
        "mean reciprocal rank",
        _layer_labels(model.body),
        (Series("masked token", figures),),
    )
    lenses = []
    for text in shown:
        lenses.append(logit_lens(model, text))
        progress(1)
    return ReportData("", curves=[curve], lenses=lenses)


def survey_importance(
    objective: Objective, params: Any, control_params: Any, what: str, progress: Progress
) -> ReportData:
    """Gradient importance of every head, and a pruning curve in its order.

    Progress counts each example twice, and each of the curve's measurements once.

    Args:
        objective: what heads matter for.
        params: of the model.
        control_params: of the same shape, random.
        what: the objective in words, for instance "masked-LM loss".
        progress: see above.
    """
    figures = importance_with_company(objective, params, control_params, progress=progress)
    head = HeadFigure(
        "importance",
        "Importance",
        "",
        f"expected change of the {what} with the head's gate (Michel et al. 2019)",
        figures,
    )
    order = order_heads(figures.model.value)
    steps = min(PRUNING_STEPS, len(order))
    curve = draw_pruning_curve(objective, params, order, steps=steps, progress=progress)
    share = curve.removed / max(1, curve.removed[-1])
    drawn = Curve(
        "pruning",
        "How the model bears the loss of heads",
        f"{what} as heads are taken away, the least important first; the control takes them in"
        " random order",
        "share of heads removed",
        what,
        tuple(f"{part:.0%}" for part in share),
        (Series("least important first", curve.losses),),
    )
    return ReportData("", head_figures=[head], curves=[drawn])


def survey_syntax(
    body: Body, control: Body, treebank: EncodedTreebank, progress: Progress
) -> ReportData:
    """The best head of every relation, and the trees of the heads' attention.

    Progress counts each sentence twice.
    """
    relations, trees = study_syntax(body, control, treebank, progress=progress)
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
        " direction and offset were chosen on one half of the sentences, the figures are of the"
        " other (Clark et al. 2019). Where 0 lies in the interval of the gain, the head may do no"
        " more than attend so many words further on",
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
    best = Table(
        "trees",
        "Trees of attention",
        "share of the undirected dependencies in the maximum spanning tree of a head's attention"
        " (UUAS); the chain joins every word to the next",
        ("head", "UUAS", "chain"),
        ((Head(*trees.head), Measure.of(trees.best), Measure.of(trees.chain)),),
    )
    figure = HeadFigure(
        "spanning-tree",
        "Trees",
        "",
        "UUAS of the maximum spanning tree of its attention",
        trees.by_head,
    )
    notes = list(treebank.notes)
    if relations.left_out:
        notes.append(
            f"{len(relations.left_out)} relations are too rare in the treebank to be measured:"
            f" {', '.join(relations.left_out)}"
        )
    return ReportData("", head_figures=[figure], tables=[table, best], notes=notes)


def survey_probes(
    body: Body, control: Body, treebank: EncodedTreebank, progress: Progress
) -> ReportData:
    """Structural probes, linear probes with control tasks, mixing weights.

    Progress counts each sentence twice, and then each of the four studies once.
    """
    treebank, notes = choose_sentences(treebank, body.model.config)
    model, random = (word_vectors(one, treebank, progress=progress) for one in (body, control))
    splits = split_sentences(treebank.sentences)
    labels = _layer_labels(body)
    rank = min(RANK, body.model.config.hidden_size)
    structure = study_structure(model, random, treebank.sentences, splits, rank=rank)
    progress(1)
    curves = [
        Curve(
            "structure",
            "Trees in the hidden states",
            "structural probes (Hewitt & Manning 2019): share of the dependencies that distances"
            " tell (UUAS), rank correlations of distances and depths, roots found",
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
    ]
    rows: list[tuple[Cell, ...]] = [
        (
            "trees (structural probe), UUAS",
            labels[structure.distance_layer],
            Measure.of(structure.uuas, structure.distance_layer),
            Measure.of(structure.chain),
            None,
        )
    ]
    for name in ("upos", "relation"):
        linear = study_linear_probes(name, model, random, treebank.sentences, splits)
        progress(1)
        curves.append(
            Curve(
                f"probe-{name}",
                f"Linear probe: {_TASKS[name]}",
                "accuracy of a linear classifier of the hidden states, and how much of it is not"
                " learning words by heart (selectivity, Hewitt & Liang 2019)",
                "layer",
                "accuracy",
                labels,
                (
                    Series("accuracy", linear.accuracy),
                    Series("control task", linear.control_accuracy),
                    Series("selectivity", linear.selectivity),
                ),
            )
        )
        rows.append(
            (
                f"{_TASKS[name]}, accuracy",
                labels[linear.layer],
                Measure.of(linear.accuracy, linear.layer),
                Measure.of(linear.by_type),
                Measure.of(linear.selectivity, linear.layer),
            )
        )
    mixing = study_mixing("upos", model, random, treebank.sentences, splits)
    progress(1)
    curves.append(
        Curve(
            "mixing",
            "Where parts of speech are drawn from",
            "weights of the layers in a mixture learnt with the classifier (Tenney et al. 2019)",
            "layer",
            "weight",
            labels,
            (Series("weight", mixing.weights),),
        )
    )
    table = Table(
        "probes",
        "What probes find",
        "at the layer that is best on the validation sentences; the baseline is the chain of words"
        " for trees, and each word's most frequent label otherwise",
        ("probe", "layer", "score", "baseline", "selectivity"),
        tuple(rows),
    )
    return ReportData("", curves=curves, tables=[table], notes=notes)


def _nearest_head(divergences: Sequence[Divergences], shape: tuple[int, ...]) -> HeadFigure:
    """How far each head is from the one that is most like it."""
    nearest = []
    for one in divergences:
        mean = one.sums.sum(axis=0) / one.counts.sum()
        np.fill_diagonal(mean, np.inf)
        # The nearest is chosen once, on all texts; the interval is that of the divergence to it.
        chosen = mean.argmin(axis=1)
        sums = one.sums[:, np.arange(len(chosen)), chosen]
        nearest.append(bootstrap_ratio(sums.reshape(-1, *shape), one.counts[:, None, None]))
    return HeadFigure(
        "nearest",
        "Nearest other head",
        "nats",
        "Jensen-Shannon divergence from the head that attends most alike: near 0, one of the two is"
        " redundant",
        Figures(*nearest),
    )


def _layer_labels(body: Body) -> tuple[str, ...]:
    """Of the hidden states: the embeddings' output, then every layer's, counted from 0."""
    return ("embeddings", *(str(layer) for layer in range(body.model.config.num_hidden_layers)))

"""What a report measures on texts: its sections, each with intervals and control.

A section is a `ReportData` without a title. A new one is a function here, and its line in
`SURVEYS` at the end, which says what its progress adds up to.

survey_attention   what each head attends to, which heads do the same, how far layers look
survey_layers      how similar the layers' hidden states are
survey_words       what the masked-LM head predicts at every layer
survey_importance  which heads matter, and what removing them costs

Analyses of a treebank are in `survey_treebank`.
"""

from collections.abc import Sequence

import numpy as np

from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.heads.classes import CLASSES
from bertjax.analysis.heads.importance import (
    ORDERS,
    draw_pruning_curve,
    importance_with_company,
    order_heads,
)
from bertjax.analysis.heads.patterns import (
    FIGURES,
    classify_heads,
    compare_tallies,
    measure_patterns,
)
from bertjax.analysis.heads.redundancy import Divergences, measure_redundancy
from bertjax.analysis.heads.targets import FAR
from bertjax.analysis.layers.lens import compare_lenses, logit_lens
from bertjax.analysis.layers.similarity import FOLDS, LEAST_TOKENS, compare_layers
from bertjax.analysis.report.data import Curve, HeadFigure, Matrix, ReportData, Series
from bertjax.analysis.report.subject import Progress, Subject, Survey
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.statistics.drawn_units import number_units
from bertjax.statistics.intervals import Figures, bootstrap_ratio

# Points of a pruning curve after the first.
PRUNING_STEPS = 10

_TITLES = {
    "entropy": "Entropy", "distance": "Distance", "self": "To itself",
    "previous": "To the previous token", "next": "To the next token", "cls": "To [CLS]",
    "sep": "To [SEP]", "punctuation": "To punctuation", "same_word": "Within the word",
    "repeated_word": "To the same word elsewhere", "vertical": "Vertical", "diagonal": "Diagonal",
    "block": "Block",
}  # fmt: skip
_UNITS = {"entropy": "nats", "distance": "tokens"}


def survey_attention(subject: Subject, progress: Progress) -> ReportData:
    """Surveys figures of every head, distance by layer, similar heads, and maps to explore."""
    models, texts = (subject.body, subject.control), subject.texts
    tallies = [measure_patterns(model, texts, progress=progress) for model in models]
    figures = compare_tallies(*tallies)
    heads = [
        HeadFigure(
            name.replace("_", "-"), _TITLES[name], _UNITS.get(name, ""), FIGURES[name],
            figures[name],
        )
        for name in _TITLES
    ]  # fmt: skip
    if all(len(set(text.token_type_ids)) < 2 for text in texts):
        heads = [head for head in heads if head.name != "block"]
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
    divergences = [measure_redundancy(model, texts, progress=progress) for model in models]
    heads.append(_nearest_head(divergences, figures["entropy"].model.value.shape))
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
        "share of the attention between words that goes more than this many words away",
        "layer",
        "share of attention",
        subject.layers[1:],
        tuple(far),
    )
    captures = list(capture(subject.body, subject.shown, progress=progress))
    return ReportData("", head_figures=heads, curves=[curve], sentences=captures)


def survey_layers(subject: Subject, progress: Progress) -> ReportData:
    """Computes linear CKA between all layers."""
    body, texts = subject.body, subject.texts
    units = number_units(text.source for text in texts)
    folds = min(FOLDS, int(units.max()) + 1)
    matrix = Matrix(
        "cka",
        "Similarity of the layers",
        "linear centred kernel alignment (CKA, unbiased) of the hidden states: 1 = the same up to"
        " rotation and scale",
        "layer",
        "layer",
        subject.layers,
        subject.layers,
        compare_layers(body, body, texts, folds=folds, progress=progress),
    )
    return ReportData("", matrices=[matrix])


def survey_words(subject: Subject, progress: Progress) -> ReportData:
    """Applies the logit lens."""
    figures = compare_lenses(subject.model, subject.texts, progress=progress)
    curve = Curve(
        "lens",
        "When the model knows the word",
        "mean reciprocal rank of the true, masked token, predicted by the masked-LM head from"
        " the hidden states of each layer",
        "layer",
        "mean reciprocal rank",
        subject.layers,
        (Series("masked token", figures),),
    )
    lenses = []
    for text in subject.shown:
        lenses.append(logit_lens(subject.model, text))
        progress(1)
    return ReportData("", curves=[curve], lenses=lenses)


def survey_importance(subject: Subject, progress: Progress) -> ReportData:
    """Computes the gradient importance of every head, and a pruning curve in that order."""
    objective, params = subject.objective, subject.model.params
    random = randomize(subject.model, subject.seed).params
    figures = importance_with_company(objective, params, random, progress=progress)
    head = HeadFigure(
        "importance",
        "Importance",
        "",
        f"expected change of the {subject.loss} with the head's gate (Michel et al. 2019)",
        figures,
    )
    order = order_heads(figures.model.value)
    steps = min(PRUNING_STEPS, len(order))
    curve = draw_pruning_curve(objective, params, order, steps=steps, progress=progress)
    share = curve.removed / max(1, curve.removed[-1])
    drawn = Curve(
        "pruning",
        "The effect of removing heads",
        f"{subject.loss} as heads are removed, the least important first; the control removes them"
        " in random order",
        "share of heads removed",
        subject.loss,
        tuple(f"{part:.0%}" for part in share),
        (Series("least important first", curve.losses),),
    )
    return ReportData("", head_figures=[head], curves=[drawn])


def _nearest_head(divergences: Sequence[Divergences], shape: tuple[int, ...]) -> HeadFigure:
    """Computes each head's distance from the most similar head."""
    nearest = []
    for divergence in divergences:
        mean = divergence.sums.sum(axis=0) / divergence.counts.sum()
        np.fill_diagonal(mean, np.inf)
        # The nearest is chosen once, on all texts; the interval is that of its divergence.
        chosen = mean.argmin(axis=1)
        sums = divergence.sums[:, np.arange(len(chosen)), chosen]
        nearest.append(bootstrap_ratio(sums.reshape(-1, *shape), divergence.counts[:, None, None]))
    return HeadFigure(
        "nearest",
        "Nearest other head",
        "nats",
        "Jensen-Shannon divergence from the head with the closest maps: near 0, one of the two is"
        " redundant",
        Figures(*nearest),
    )


def _count_attention(subject: Subject) -> int:
    """Counts patterns and similar heads of the model and its control, then the maps."""
    return 4 * len(subject.texts) + len(subject.shown)


def _count_layers(subject: Subject) -> int:
    """Counts each text; raises where they are too few to compare layers on."""
    texts, tokens = len(subject.texts), sum(int((~text.special).sum()) for text in subject.texts)
    if texts < 2 or tokens < LEAST_TOKENS:
        raise UserError(
            f"it needs two texts and {LEAST_TOKENS} tokens at least, and there are"
            f" {counted(texts, 'text')} and {counted(tokens, 'token')}"
        )
    return texts


def _count_words(subject: Subject) -> int:
    """Counts the lens of the model and its control, then the texts that are shown."""
    restores_words = subject.model.restores_words
    return 2 * len(subject.texts) + len(subject.shown) if restores_words else 0


def _count_importance(subject: Subject) -> int:
    """Counts derivatives of the model and its control, then the measurements of the curve."""
    if subject.objective is None:
        return 0
    # The curve is drawn in the order of importance and in random ones.
    measurements = (1 + ORDERS) * (min(PRUNING_STEPS, subject.objective.open_gates.size) + 1)
    return 2 * subject.objective.examples + measurements


SURVEYS = (
    Survey("attention", _count_attention, survey_attention),
    Survey("similarity of the layers", _count_layers, survey_layers),
    Survey("words", _count_words, survey_words),
    Survey("importance of the heads", _count_importance, survey_importance),
)

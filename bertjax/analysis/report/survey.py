"""What `bertjax analyze` measures: the sections of a report, each with intervals and control.

A section is a `ReportData` without a title; `join` combines them.

survey_attention   what each head attends to, which heads do the same, how far layers look
survey_layers      how similar the layers' hidden states are
survey_words       what the masked-LM head predicts at every layer
survey_importance  which heads matter, and what removing them costs

Analyses of a treebank are in `survey_treebank`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.heads.classes import CLASSES
from bertjax.analysis.heads.importance import (
    draw_pruning_curve,
    importance_with_company,
    order_heads,
)
from bertjax.analysis.heads.objective import Objective
from bertjax.analysis.heads.patterns import (
    FIGURES,
    classify_heads,
    compare_tallies,
    measure_patterns,
)
from bertjax.analysis.heads.redundancy import Divergences, measure_redundancy
from bertjax.analysis.heads.targets import FAR
from bertjax.analysis.layers.lens import compare_lenses, logit_lens
from bertjax.analysis.layers.similarity import FOLDS, compare_layers
from bertjax.analysis.report.data import (
    Curve,
    HeadFigure,
    Matrix,
    ReportData,
    Series,
)
from bertjax.loaded import Model
from bertjax.statistics.drawn_units import number_units
from bertjax.statistics.intervals import Figures, bootstrap_ratio

Progress = Callable[[int], None]

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


def join(
    title: str, facts: Mapping[str, str | int | float], parts: Sequence[ReportData]
) -> ReportData:
    """Joins sections into one report."""
    lists = {
        name: [one for part in parts for one in getattr(part, name)]
        for name in ReportData._fields
        if name not in ("title", "facts")
    }
    return ReportData(title, facts, **lists)


def survey_attention(
    body: Model,
    control: Model,
    texts: Sequence[EncodedText],
    shown: Sequence[EncodedText],
    progress: Progress,
) -> ReportData:
    """Surveys figures of every head, distance by layer, similar heads, and maps to explore.

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
    layers = layer_labels(body)[1:]
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
        layers,
        tuple(far),
    )
    captures = list(capture(body, shown, progress=progress))
    return ReportData("", head_figures=heads, curves=[curve], sentences=captures)


def survey_layers(body: Model, texts: Sequence[EncodedText], progress: Progress) -> ReportData:
    """Computes linear CKA between all layers. Progress counts each text once."""
    labels = layer_labels(body)
    units = number_units(text.source for text in texts)
    folds = min(FOLDS, int(units.max()) + 1)
    matrix = Matrix(
        "cka",
        "Similarity of the layers",
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
    model: Model,
    texts: Sequence[EncodedText],
    shown: Sequence[EncodedText],
    progress: Progress,
) -> ReportData:
    """Applies the logit lens. Progress counts each of `texts` twice and each of `shown` once."""
    figures = compare_lenses(model, texts, progress=progress)
    curve = Curve(
        "lens",
        "When the model knows the word",
        "mean reciprocal rank of the true, masked token, predicted by the masked-LM head from"
        " the hidden states of each layer",
        "layer",
        "mean reciprocal rank",
        layer_labels(model),
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
    """Computes the gradient importance of every head, and a pruning curve in that order.

    Progress counts each example twice, and each of the curve's measurements once.

    Args:
        objective: what importance is measured by.
        params: the model's.
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
        "The effect of removing heads",
        f"{what} as heads are removed, the least important first; the control removes them in"
        " random order",
        "share of heads removed",
        what,
        tuple(f"{part:.0%}" for part in share),
        (Series("least important first", curve.losses),),
    )
    return ReportData("", head_figures=[head], curves=[drawn])


def _nearest_head(divergences: Sequence[Divergences], shape: tuple[int, ...]) -> HeadFigure:
    """Computes each head's distance from the most similar head."""
    nearest = []
    for one in divergences:
        mean = one.sums.sum(axis=0) / one.counts.sum()
        np.fill_diagonal(mean, np.inf)
        # The nearest is chosen once, on all texts; the interval is that of its divergence.
        chosen = mean.argmin(axis=1)
        sums = one.sums[:, np.arange(len(chosen)), chosen]
        nearest.append(bootstrap_ratio(sums.reshape(-1, *shape), one.counts[:, None, None]))
    return HeadFigure(
        "nearest",
        "Nearest other head",
        "nats",
        "Jensen-Shannon divergence from the head with the closest maps: near 0, one of the two is"
        " redundant",
        Figures(*nearest),
    )


def layer_labels(body: Model) -> tuple[str, ...]:
    """Labels the hidden states: the embeddings' output, then every layer's, from 0."""
    return ("embeddings", *(str(layer) for layer in range(body.config.num_hidden_layers)))

"""An answer explained: what each word adds to it, by any of the methods."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.explain.answers import answer
from bertjax.analysis.explain.attribution import METHODS, Attribution, Method, attribute
from bertjax.analysis.explain.faithfulness import Faithfulness, measure_faithfulness
from bertjax.analysis.explain.named_targets import NamedTarget
from bertjax.loaded import Model
from bertjax.program.errors import UserError

# Colours of words that speak for the answer and against it, as red, green, blue.
_FOR, _AGAINST = "86, 140, 220", "240, 150, 60"


class Explanation(NamedTuple):
    """One answer to a text.

    Attributes:
        encoded: the text.
        named: the answer.
        probability: of the answer; None where it is no probability.
        attributions: what each token and word adds to the answer, by method.
        faithful: how the answer falls when words are taken away, by method; empty where it was not
            asked for.
    """

    encoded: EncodedText
    named: NamedTarget
    probability: float | None
    attributions: Mapping[str, Attribution]
    faithful: Mapping[str, Faithfulness]

    def __repr__(self) -> str:
        methods = "; ".join(map(repr, self.attributions.values()))
        return f"Explanation({self.summary}; {methods})"

    @property
    def summary(self) -> str:
        """What is explained, in words: the place, the answer and its probability."""
        said = " = ".join(filter(None, (self.named.place, self.named.answer))) or "the answer"
        return said + (
            f", probability {self.probability:.2%}" if self.probability is not None else ""
        )

    def _repr_html_(self) -> str:
        """Returns a table for a notebook: the words, coloured by what each adds to the answer."""
        rows = []
        for name, attribution in self.attributions.items():
            largest = np.abs(attribution.word_scores).max() or 1.0
            cells = "".join(
                f'<td style="background: rgba({_FOR if score > 0 else _AGAINST},'
                f' {abs(score) / largest:.2f}); text-align: center">{html.escape(word)}<br>'
                f"<small>{score:+.3f}</small></td>"
                for word, score in zip(
                    self.encoded.words, attribution.word_scores.tolist(), strict=True
                )
            )
            rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
        return f"<table><caption>{html.escape(self.summary)}</caption>{''.join(rows)}</table>"

    def to_json(self) -> dict[str, Any]:
        """Returns all numbers, of words and of tokens."""
        first = next(iter(self.attributions.values()))
        methods = {}
        for name, attribution in self.attributions.items():
            methods[name] = {
                "word_scores": attribution.word_scores.tolist(),
                "token_scores": attribution.scores.tolist(),
            }
            if attribution.gap is not None:
                methods[name] |= {
                    "baseline_value": attribution.baseline_value,
                    "gap": attribution.gap,
                }
            if name in self.faithful:
                ranges = self.faithful[name].random_range()
                methods[name]["faithfulness"] = {
                    curve: {"area": area, "random": random, "random_range": list(ranges[curve])}
                    for curve, (area, random) in self.faithful[name].areas().items()
                }
        return {
            "place": self.named.place,
            "answer": self.named.answer,
            "output": self.named.target.output,
            "position": self.named.target.position,
            "value": first.value,
            "probability": self.probability,
            "words": list(self.encoded.words),
            "tokens": list(self.encoded.tokens),
            "methods": methods,
        }


def explain(
    whole: Model,
    encoded: EncodedText,
    named: NamedTarget,
    methods: Sequence[Method] = METHODS[:1],
    *,
    faithfulness: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Explanation:
    """Explains an answer to a text.

    Args:
        whole: the model.
        encoded: the text.
        named: of `choose_targets`.
        methods: of `METHODS`.
        faithfulness: whether words are taken away in the order of the scores and in random ones.
        progress: is called after each method.

    Raises:
        UserError: there is no method.
    """
    if not methods:
        raise UserError(f"methods is empty; name at least one of {', '.join(METHODS)}")
    likely = named.target._replace(probability=named.has_probability)
    probability = float(answer(whole, encoded, likely)[0]) if named.has_probability else None
    attributions, faithful = {}, {}
    for method in methods:
        attributions[method] = attribute(whole, encoded, named.target, method)
        if faithfulness:
            scores = attributions[method].scores
            faithful[method] = measure_faithfulness(whole, encoded, likely, scores)
        progress(1)
    return Explanation(encoded, named, probability, attributions, faithful)

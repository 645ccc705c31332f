"""Why a model answers as it does: what each token of a text adds to one number of the output.

Methods that take the model at its word (integrated gradients, gradient x input) and methods that
follow attention (rollout, flow, class-specific relevance). None of them is the truth: see
`faithfulness` for how to tell which one to trust on a model.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.explain.answers import (
    Target,
    check_target,
    differentiate_by_attention,
    differentiate_by_embeddings,
    embed_tokens,
)
from bertjax.analysis.explain.attention_flow import flow_attention, propagate_relevance, roll_out
from bertjax.loaded import Model
from bertjax.program.errors import UserError

Baseline = Literal["mask", "pad", "zero"]
Rule = Literal["gauss-legendre", "middle"]
Method = Literal["integrated-gradients", "gradient-x-input", "rollout", "flow", "relevance"]
METHODS: tuple[Method, ...] = (
    "integrated-gradients", "gradient-x-input", "rollout", "flow", "relevance"
)  # fmt: skip


class Attribution(NamedTuple):
    """What each token adds to a number of the output.

    Attributes:
        encoded: the text.
        target: the number.
        method: how it was found.
        scores: of each token; those of rollout, flow and relevance are never negative.
        value: the number.
        baseline_value: the number at the baseline; None but for integrated gradients.
        gap: sum of scores - (value - baseline_value), which is 0 for an exact integral; None but
            for integrated gradients.
    """

    encoded: EncodedText
    target: Target
    method: Method
    scores: Float[np.ndarray, " T"]
    value: float
    baseline_value: float | None = None
    gap: float | None = None

    def __repr__(self) -> str:
        scores = zip(self.encoded.words, self.word_scores, strict=True)
        shown = ", ".join(f"{word} {score:+.3f}" for word, score in scores)
        return f"Attribution({self.method}, value {self.value:.3f}: {shown})"

    @property
    def word_scores(self) -> Float[np.ndarray, " W"]:
        """Of each word of the text: the sum over its tokens."""
        return np.add.reduceat(self.scores, self.encoded.first_tokens)

    @property
    def relative_gap(self) -> float | None:
        """`|gap| / |value - baseline_value|`: above some percent, more steps are needed."""
        if self.gap is None or self.baseline_value is None:
            return None
        return abs(self.gap) / max(abs(self.value - self.baseline_value), np.finfo(float).tiny)


def attribute(
    whole: Model, encoded: EncodedText, target: Target, method: Method = METHODS[0]
) -> Attribution:
    """Computes what each token adds to the target, by any of `METHODS` at its defaults.

    Args:
        whole: the model with the head that answers.
        encoded: the text.
        target: the number whose parts are asked for.
        method: one of `METHODS`.

    Raises:
        UserError: a number that the model has not, or an unknown method.
    """
    if method == "integrated-gradients":
        return integrate_gradients(whole, encoded, target)
    if method == "gradient-x-input":
        return multiply_gradient_by_input(whole, encoded, target)
    if method not in METHODS:
        raise UserError(f"method {method!r} is not one of {', '.join(METHODS)}")
    return follow_attention(whole, encoded, target, method)


def integrate_gradients(
    whole: Model,
    encoded: EncodedText,
    target: Target,
    *,
    baseline: Baseline = "mask",
    steps: int = 32,
    rule: Rule = "gauss-legendre",
) -> Attribution:
    """Computes integrated gradients over the embeddings' output, summed over D.

    [CLS] and [SEP] are the same in the baseline, so that they get exactly 0: the question is what
    the text's own tokens add.

    Args:
        whole: the model.
        encoded: the text.
        target: the number to explain.
        baseline: what the text is compared with: the same text with every token [MASK], or [PAD]
            (visible to the model), or with zero vectors.
        steps: points of the integral, each a forward and a backward pass.
        rule: which points: Gauss-Legendre's, or the middles of equal parts.

    Returns:
        Scores that sum to value - baseline_value but for the gap, which falls with more steps.

    Raises:
        UserError: a number that the model has not, or no step.

    Source: Sundararajan et al. 2017, eq. 1 and proposition 1 (completeness).
    """
    check_target(whole, encoded, target)
    points, weights = quadrature(steps, rule)
    embedded = embed_tokens(whole, encoded)
    start = embed_baseline(whole, encoded, baseline)
    # Both ends are wanted, too, and weigh nothing in the integral.
    shares = np.array([*points, 0.0, 1.0], embedded.dtype)
    path = start + shares[:, None, None] * (embedded - start)
    values, gradients = differentiate_by_embeddings(whole, encoded, target, path)
    mean = np.tensordot(weights, gradients[:-2].astype(np.float64), axes=1)
    scores = ((embedded.astype(np.float64) - start) * mean).sum(axis=-1)
    first, last = float(values[-2]), float(values[-1])
    gap = float(scores.sum() - (last - first))
    return Attribution(encoded, target, "integrated-gradients", scores, last, first, gap)


def multiply_gradient_by_input(whole: Model, encoded: EncodedText, target: Target) -> Attribution:
    """Computes gradient x input over the embeddings' output, summed over D.

    It can miss what matters: the first layer normalises a token's vector after attention has been
    added, so that where attention adds little, the answer does not change with the vector's length,
    and the slope along it is near 0. Integrated gradients do not have this fault.

    Args:
        whole: the model with the head that answers.
        encoded: the text.
        target: the number whose parts are asked for.

    Source: Shrikumar et al. 2016.
    """
    embedded = embed_tokens(whole, encoded)
    values, gradients = differentiate_by_embeddings(whole, encoded, target, embedded[None])
    scores = (embedded.astype(np.float64) * gradients[0]).sum(axis=-1)
    return Attribution(encoded, target, "gradient-x-input", scores, float(values[0]))


def follow_attention(
    whole: Model,
    encoded: EncodedText,
    target: Target,
    method: Literal["rollout", "flow", "relevance"] = "relevance",
) -> Attribution:
    """Computes rollout, flow or relevance to the token that the target is read at.

    Rollout and flow know nothing of the target but its position: they are the same for every class.

    Args:
        whole: the model with the head that answers.
        encoded: the text.
        target: the number whose parts are asked for.
        method: which of the three.

    Source: see `attention_flow`.
    """
    value, probs, gradients = differentiate_by_attention(whole, encoded, target)
    if method == "rollout":
        scores = roll_out(probs)[-1, target.position]
    elif method == "flow":
        scores = flow_attention(probs, [target.position])[0]
    else:
        scores = propagate_relevance(probs, gradients)[target.position]
    return Attribution(encoded, target, method, scores, value)


def embed_baseline(
    whole: Model, encoded: EncodedText, baseline: Baseline
) -> Float[np.ndarray, "T D"]:
    """Computes the embeddings' output with every token masked but [CLS] and [SEP].

    Args:
        whole: the model.
        encoded: the text.
        baseline: what stands for a token that is not there: the mask, padding, or zeros.
    """
    if baseline == "zero":
        return np.where(encoded.special[:, None], embed_tokens(whole, encoded), 0)
    blank = whole.tokenizer.mask_id if baseline == "mask" else whole.tokenizer.pad_id
    return embed_tokens(whole, encoded, np.where(encoded.special, encoded.token_ids, blank))


def quadrature(
    steps: int, rule: Rule
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Points in (0, 1) and their weights, which sum to 1.

    Args:
        steps: how many points.
        rule: where they are: in the middle of equal parts, or Gauss and Legendre's.

    Raises:
        UserError: fewer steps than 1.
    """
    if steps < 1:
        raise UserError(f"steps={steps} must be at least 1")
    if rule == "middle":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2

"""Whether an attribution is true to its model: deletion and insertion against random orders."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.explain.answers import Target, answer
from bertjax.loaded import Model
from bertjax.program.errors import UserError


class Faithfulness(NamedTuple):
    """How a model's answer changes as tokens go, or come, in the order of their scores.

    Attributes:
        shares: of the text's tokens that are gone (deletion) or there (insertion), from 0 to 1.
        deletion: the answer, the tokens with the highest scores going first.
        insertion: the answer, the tokens with the highest scores coming first.
        random_deletion, random_insertion: the same in random orders.
    """

    shares: Float[np.ndarray, " points"]
    deletion: Float[np.ndarray, " points"]
    insertion: Float[np.ndarray, " points"]
    random_deletion: Float[np.ndarray, "orders points"]
    random_insertion: Float[np.ndarray, "orders points"]

    def areas(self) -> dict[str, tuple[float, float]]:
        """Returns the mean answer along each curve: (in the order of the scores, in random orders).

        A faithful attribution has a small area of deletion and a large one of insertion.
        """
        return {
            "deletion": (self._area(self.deletion), self._area(self.random_deletion)),
            "insertion": (self._area(self.insertion), self._area(self.random_insertion)),
        }

    def random_range(self) -> dict[str, tuple[float, float]]:
        """Returns the smallest and the largest area of a random order, for each curve.

        A mean of random orders says little without it: one of them may be as good as the scores.
        """
        areas = {
            "deletion": np.trapezoid(self.random_deletion, self.shares, axis=-1),
            "insertion": np.trapezoid(self.random_insertion, self.shares, axis=-1),
        }
        return {name: (float(own.min()), float(own.max())) for name, own in areas.items()}

    def _area(self, curves: Float[np.ndarray, "... points"]) -> float:
        return float(np.mean(np.trapezoid(curves, self.shares, axis=-1)))


def measure_faithfulness(
    whole: Model,
    encoded: EncodedText,
    target: Target,
    scores: Float[np.ndarray, " T"],
    *,
    blank: Literal["mask", "pad"] = "mask",
    points: int = 11,
    random_orders: int = 10,
    seed: int = 0,
) -> Faithfulness:
    """Measures deletion and insertion curves of an attribution, beside those of random orders.

    A token that is gone is replaced by a blank; [CLS] and [SEP] always stay, and so does the token
    at `target.position` where that is the [MASK] to be filled.

    Args:
        whole: the model.
        encoded: the text.
        target: the number; a probability, so that texts can be compared.
        scores: of each token, by any method.
        blank: the token in place of one that is gone.
        points: of each curve, at most one more than there are tokens.
        random_orders: to compare with.
        seed: of these.

    Raises:
        UserError: the text has no token that could go.

    Source: Petsiuk et al. 2018, section 3.2 (deletion, insertion); for text: DeYoung et al. 2020,
        section 5.
    """
    mask_id = whole.tokenizer.mask_id
    places = np.flatnonzero(~encoded.special)
    if target.output == "token" and encoded.token_ids[target.position] == mask_id:
        places = places[places != target.position]
    if not len(places):
        raise UserError("the text has no token that could be taken away; give a longer one")
    blank_id = mask_id if blank == "mask" else whole.tokenizer.pad_id
    random = np.random.default_rng(seed)
    orders = np.stack(
        [
            places[np.argsort(-scores[places], kind="stable")],
            *(random.permutation(places) for _ in range(random_orders)),
        ]
    )
    counts = np.unique(np.rint(np.linspace(0, len(places), points)).astype(int))
    variants = np.concatenate(
        [take_away(encoded, orders, counts, blank_id, keep=keep) for keep in (False, True)]
    )
    values = answer(whole, encoded, target, variants.reshape(-1, variants.shape[-1]))
    deletion, insertion = values.reshape(2, len(orders), len(counts))
    return Faithfulness(
        counts / len(places), deletion[0], insertion[0], deletion[1:], insertion[1:]
    )


def take_away(
    encoded: EncodedText,
    orders: Int[np.ndarray, "orders places"],
    counts: Int[np.ndarray, " points"],
    blank_id: int,
    *,
    keep: bool,
) -> Int[np.ndarray, "orders points T"]:
    """Blanks the first words of each order, or with `keep` all the others."""
    variants = np.empty((len(orders), len(counts), len(encoded.token_ids)), np.int64)
    variants[:] = encoded.token_ids
    for number, order in enumerate(orders):
        for point, count in enumerate(counts):
            gone = order[count:] if keep else order[:count]
            variants[number, point, gone] = blank_id
    return variants

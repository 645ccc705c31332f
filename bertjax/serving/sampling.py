"""Which calls are logged, and what is kept of one until its line is written.

A call is chosen by a hash of its id, so that the same ids choose the same calls. Of a call with
several texts one is kept, drawn by the same hash: lines are independent of each other, as the tests
of `bertjax drift` need them.
"""

import contextvars
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from bertjax.loaded import Model
from bertjax.program.strict_json import to_json
from bertjax.serving.programs import SKETCH_NUMBERS, Asked
from bertjax.tasks.task import softmax

if TYPE_CHECKING:
    from bertjax.serving.served import Served


class Observed(NamedTuple):
    """A sequence that a model has read, and what came out.

    Attributes:
        served: the model.
        program: that ran.
        texts: sequences of the call, of which this is one.
        asked: the sequence.
        output: of the program for it, as `reduce_output` keeps it.
        sketch: the random projection of its mean hidden state; None where the model, an exported
            one with a head, does not give that.
    """

    served: "Served"
    program: str
    texts: int
    asked: Asked
    output: Float[np.ndarray, "..."] | None
    sketch: Float[np.ndarray, " numbers"] | None


class SampledCall:
    """A call that is logged.

    Attributes:
        id: its own.
        observed: what is kept of it; None until a model has run.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.observed: Observed | None = None

    def observe(
        self,
        served: "Served",
        program: str,
        asked: Sequence[Asked],
        outputs: Sequence[np.ndarray],
        sketches: Sequence[np.ndarray | None],
    ) -> None:
        """Keeps one of the sequences that a program has run on, the first time that one has."""
        if self.observed is None and asked:
            drawn = _hash(self.id)[1] % len(asked)
            output = reduce_output(program, outputs, drawn)
            self.observed = Observed(
                served, program, len(asked), asked[drawn], output, sketches[drawn]
            )


# The call that is being answered, where it is logged.
SAMPLED: contextvars.ContextVar[SampledCall | None] = contextvars.ContextVar(
    "sampled", default=None
)


def sample_call(id: str, share: float) -> SampledCall | None:
    """Returns the call where it is one of those that are logged.

    Args:
        id: of the call.
        share: of all calls that are logged, 0 to 1.
    """
    return SampledCall(id) if _hash(id)[0] < share * 2**64 else None


def _hash(id: str) -> tuple[int, int]:
    """Returns two independent numbers below 2^64."""
    digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def reduce_output(
    program: str, outputs: Sequence[np.ndarray], number: int
) -> Float[np.ndarray, "..."] | None:
    """Returns what is kept of an output: nothing that is as large as a vocabulary.

    Of masked words it is the probability of the likeliest word at each mask, of choices the
    probability of the best one; of vectors, which have a sketch, it is nothing.
    """
    if program in ("vector", "hidden"):
        return None
    if program == "choice":
        return softmax(np.array(outputs, np.float64)).max(keepdims=True)
    if program == "token":
        return outputs[number].max(axis=-1)
    return outputs[number]


def fingerprint_model(model: Model) -> str:
    """Returns 16 hexadecimal digits that tell a model from others: shape, labels, tokens, weights.

    It reads all parameters, or an exported model's files, about a second for each gigabyte.
    """
    about = [model.architecture, model.config.to_dict(), model.tokenizer.fingerprint]
    digest = hashlib.sha256(to_json(about, sort_keys=True).encode())
    if model.is_exported:
        for file in model.module.session.files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    tree: Any = (dict(model.params), dict(model.spare))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8))
    return digest.hexdigest()[:16]


def make_projection(fingerprint: str, width: int) -> Float[np.ndarray, "width numbers"]:
    """Returns the random projection of hidden states that belongs to a model, float32.

    Distances between projected vectors are those between the vectors, within some 20 %.

    Source: Johnson & Lindenstrauss 1984.
    """
    random = np.random.default_rng(int(fingerprint, 16))
    drawn = random.standard_normal((width, SKETCH_NUMBERS)) / np.sqrt(SKETCH_NUMBERS)
    return drawn.astype(np.float32)

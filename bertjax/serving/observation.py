"""A line of the log of requests: what drift needs of a text and of its answer, and no text.

The same function describes the texts of a file, to which `bertjax drift` compares a log.
"""

import base64
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bertjax.config import BertConfig
from bertjax.serving.heads.classes import activate, activation_of
from bertjax.serving.sampling import Observed
from bertjax.tasks.task import softmax
from bertjax.text.tokenizer import Tokenizer

# A label whose probability is at least this is one of a text's several labels.
LEAST_LABEL = 0.5
# Digits that numbers of a line have behind the point.
DIGITS = 6


def describe(observed: Observed) -> dict[str, Any]:
    """Returns the fields of a line that tell of a text and its answer, null for what it has not.

    Returns:
        `model` and `fingerprint`; `program`, what ran; `texts`, sequences of the call; what
        `describe_tokens`, `describe_characters` and `describe_answer` return; `max_length`, the
        most tokens of a text; `sketch`, 32 float16 numbers in base64, null of an exported model
        with a head.
    """
    served, sketch = observed.served, observed.sketch
    if sketch is not None:
        sketch = base64.b64encode(sketch.astype("<f2").tobytes()).decode()
    return {
        "model": served.name,
        "fingerprint": served.fingerprint,
        "program": observed.program,
        "texts": observed.texts,
        "max_length": served.max_length,
        **describe_tokens(served.tokenizer, observed.asked.sequence.token_ids),
        **describe_characters(observed.asked.text),
        **describe_answer(observed.program, observed.output, served.model.config),
        "sketch": sketch,
    }


def read_sketch(sketch: str) -> Float[np.ndarray, " numbers"]:
    """Returns the numbers of a sketch."""
    return np.frombuffer(base64.b64decode(sketch), "<f2").astype(np.float64)


def describe_tokens(tokenizer: Tokenizer, token_ids: np.ndarray) -> dict[str, Any]:
    """Describes the tokens of a text or pair as the model reads it.

    Returns:
        `tokens`, special ones included; `unknown`, the share of the words that are [UNK]; `pieces`,
        tokens a word.
    """
    special = set(tokenizer.special_ids) - {tokenizer.unk_id, tokenizer.mask_id}
    own = token_ids[~np.isin(token_ids, list(special))]
    known = own[own < len(tokenizer.continues_word)]
    words = len(own) - int(tokenizer.continues_word[known].sum())
    return {
        "tokens": len(token_ids),
        "unknown": round(float((own == tokenizer.unk_id).sum()) / words, DIGITS) if words else None,
        "pieces": round(len(own) / words, DIGITS) if words else None,
    }


def describe_characters(texts: Sequence[str] | None) -> dict[str, Any]:
    """Describes the characters of a text or pair as it was sent; null where token ids were sent.

    Returns:
        `characters`, their number, and the shares of them that are `digits`, `capitals`,
        `punctuation` (symbols, too) and `beyond_ascii`.
    """
    names = ("digits", "capitals", "punctuation", "beyond_ascii")
    whole = "".join(texts or ())
    if not whole:
        return dict.fromkeys(("characters", *names))
    kinds = [unicodedata.category(letter) for letter in whole]
    counts = (
        sum(kind == "Nd" for kind in kinds),
        sum(kind in ("Lu", "Lt") for kind in kinds),
        sum(kind[0] in "PS" for kind in kinds),
        sum(letter > "\x7f" for letter in whole),
    )
    shares = [round(count / len(whole), DIGITS) for count in counts]
    return {"characters": len(whole), **dict(zip(names, shares, strict=True))}


def describe_answer(
    program: str, output: Float[np.ndarray, "..."] | None, config: BertConfig
) -> dict[str, Any]:
    """Describes what a program has answered to a text, as `sampling.reduce_output` keeps it.

    Returns:
        `labels`, each with its share: of a class 1, of several labels 1 each, of tags the share of
        the tokens; `confidence`, the probability of what was answered, the mean where it has
        parts; `number`, the answer of a model with a single output.
    """
    labels = confidence = number = None
    if program == "class" and config.num_labels == 1:
        number = float(activate(output, activation_of(config))[0])
    elif program == "class" and activation_of(config) == "softmax":
        scores = activate(output, "softmax")
        labels, confidence = {config.id2label[int(scores.argmax())]: 1}, scores.max()
    elif program == "class" and activation_of(config) == "sigmoid":
        scores = activate(output, "sigmoid")
        chosen = np.flatnonzero(scores >= LEAST_LABEL)
        labels = {config.id2label[place]: 1 for place in chosen}
        confidence = np.maximum(scores, 1 - scores).mean()
    elif program == "tag":
        scores = softmax(output[1:-1])
        tags, counts = np.unique(scores.argmax(axis=-1), return_counts=True)
        shares = (counts / max(1, len(scores))).round(DIGITS).tolist()
        labels = {config.id2label[tag]: share for tag, share in zip(tags, shares, strict=True)}
        confidence = scores.max(axis=-1).mean() if len(scores) else None
    elif program == "span":
        confidence = softmax(output.T).max(axis=-1).prod()
    elif program == "next-sentence":
        scores = softmax(output)
        follows = bool(scores.argmax() == 0)
        labels, confidence = {"follows" if follows else "does not follow": 1}, scores.max()
    elif program in ("token", "choice") and output.size:
        confidence = output.mean()
    return {
        "labels": labels,
        "confidence": None if confidence is None else round(float(confidence), DIGITS),
        "number": None if number is None else round(number, DIGITS),
    }

"""Examples from documents: next-sentence pairs, sentence-order pairs, or single passages."""

import bisect
import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from bertjax.program.errors import UserError
from bertjax.text.framing import Frame
from bertjax.text.spool import DocumentTokens, SpoolReader

Pairing = Literal["nsp", "sop", "none"]

IS_NEXT, IS_OTHER, NO_PAIR = 0, 1, -1

# A cut within a word moves back to its beginning, unless that is more than this many tokens away.
_LONGEST_WAY_BACK = 8


@dataclasses.dataclass
class PairConfig:
    """How documents become examples.

    Attributes:
        pairing: nsp (two passages; the second is the next one or comes from another document), sop
            (two passages in their order or swapped, as in ALBERT), none (one passage).
        duplicate_factor: How many times the train split is made into examples, each time
            differently; validation and test are made into examples once.
        short_sequence_probability: The share of examples with a random shorter length, in [0, 1].
    """

    pairing: Pairing = "nsp"
    duplicate_factor: int = 1
    short_sequence_probability: float = 0.1

    def __post_init__(self) -> None:
        if self.duplicate_factor < 1:
            raise UserError(f"duplicate_factor={self.duplicate_factor} must be at least 1")
        if not 0 <= self.short_sequence_probability <= 1:
            raise UserError(
                f"short_sequence_probability={self.short_sequence_probability!r} must be in [0, 1]"
            )

    def room(self, frame: Frame, max_length: int) -> int:
        """Returns how many tokens of text an example may have in a row of `max_length`.

        Args:
            frame: of the tokenizer.
            max_length: of a row, in tokens.
        """
        return max_length - frame.size(pair=self.pairing != "none")


class Example(NamedTuple):
    """One example without special tokens.

    `second` is empty and `label` is `NO_PAIR` for a single passage. Otherwise label 0 means that
    `second` is the next passage (nsp) or that both are in order (sop), and 1 that it is not.

    Attributes:
        first: ids of the first passage.
        second: ids of the second one.
        label: of the pair.
    """

    first: np.ndarray
    second: np.ndarray
    label: int


def make_examples(
    number: int,
    document: DocumentTokens,
    corpus: SpoolReader,
    config: PairConfig,
    room: int,
    continues_word: np.ndarray,
    generator: np.random.Generator,
) -> Iterator[Example]:
    """Makes the examples of one document.

    The document is walked once, in stretches of as many tokens as fit (or, for a share of
    `short_sequence_probability`, of a random smaller number). A stretch is split at a random end
    of a sentence into A and the rest. Then B is the rest, or, half of the time, a passage from
    another document; the rest is then put back and the walk continues after A.

    No token is lost and none is used twice as A or as a true B. A stretch without a sentence end
    inside (the last sentence of a document, a very long one) is an example of one passage
    with the label `NO_PAIR`: it has no next sentence, so it says nothing about that task.

    The label cannot be read off lengths or punctuation: the other document's passage has the
    length of the rest that it replaces, and ends with a sentence where that does.

    Args:
        number: the document's number in `corpus`.
        document: its tokens.
        corpus: where other documents come from, all of the same split; at least 2 for nsp.
        config: the pairing and its shares.
        room: how many tokens an example may have besides its frame (`PairConfig.room`).
        continues_word: [V]; stretches are not cut within a word.
        generator: the only source of randomness.

    Source: Devlin et al. 2019, appendix A.2; `create_instances_from_document` in
    google-research/bert. Sentence order: Lan et al. 2020, section 3.1.

    Differs: Google's stretches consist of whole sentences and any excess is cut off, at the
    front or the back, and lost: a tenth of the text at T = 128. Here the stretch is cut at the
    exact length and the next one starts with what was cut, which also fills the rows.
    Google makes a random pair from a stretch of one sentence, so that more than half of the pairs
    are random. Google tries ten times to find another document; here it always is another.
    """
    token_ids = document.token_ids
    ends = document.sentence_ends.tolist()
    empty = token_ids[:0]
    start = 0
    sentence = 0  # the first sentence that ends after `start`
    while start < len(token_ids):
        length = room
        if generator.random() < config.short_sequence_probability:
            length = 2 + int(generator.random() * (room - 1))
        end = min(start + length, len(token_ids))
        if end < len(token_ids):
            end = _word_start(token_ids, start, end, continues_word)
        while ends[sentence] <= start:
            sentence += 1
        last = sentence
        while ends[last] < end:
            last += 1
        if config.pairing == "none" or last == sentence:
            yield Example(token_ids[start:end], empty, NO_PAIR)
            start = end
            continue
        middle = ends[sentence + int(generator.random() * (last - sentence))]
        first, second = token_ids[start:middle], token_ids[middle:end]
        other = generator.random() < 0.5
        if other and config.pairing == "nsp":
            whole = ends[last] == end
            passage = _other_passage(
                number, corpus, len(second), room - len(first), whole, continues_word, generator
            )
            yield Example(first, passage, IS_OTHER)
            start = middle
        elif other:
            yield Example(second, first, IS_OTHER)
            start = end
        else:
            yield Example(first, second, IS_NEXT)
            start = end


def _other_passage(
    number: int,
    corpus: SpoolReader,
    length: int,
    most: int,
    whole: bool,
    continues_word: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Returns a passage of another document that starts with a sentence.

    Args:
        number: the document that it must not be from.
        corpus: all documents of the split.
        length: tokens to return; fewer only where the other document is shorter.
        most: the most tokens that fit.
        whole: end with a sentence, as near to `length` as possible.
        continues_word: [V].
        generator: the source of randomness.
    """
    other = int(generator.random() * (len(corpus) - 1))
    starts = corpus.sentence_starts(other + (other >= number))
    last = int(starts[-1])
    # Only sentences with enough text after them, where there are any.
    candidates = max(1, bisect.bisect_right(starts, last - length, hi=len(starts) - 1))
    begin = int(generator.random() * candidates)
    start = int(starts[begin])
    if whole:
        after = bisect.bisect_left(starts, start + length, begin + 1, len(starts) - 1)
        near = [int(end) - start for end in starts[max(after - 1, begin + 1) : after + 1]]
        fitting = [size for size in near if size <= most]
        if fitting:
            size = min(fitting, key=lambda size: abs(size - length))
            return corpus.tokens(start, start + size)
    token_ids = corpus.tokens(start, min(start + length + 1, last))
    if len(token_ids) <= length:
        return token_ids
    return token_ids[: _word_start(token_ids, 0, length, continues_word)]


def _word_start(token_ids: np.ndarray, start: int, end: int, continues_word: np.ndarray) -> int:
    """Returns the nearest place to cut at or before `end` that is not within a word, or `end`."""
    for place in range(end, max(end - _LONGEST_WAY_BACK, start), -1):
        if not continues_word[token_ids[place]]:
            return place
    return end

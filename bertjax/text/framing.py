"""How texts are framed for a model: `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`, `<s> A </s></s> B
</s>`.

Everything that must know a frame (where a text begins, how many tokens are left for it) asks the
`Frame` of the tokenizer.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int

from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.text.tokenizer import Tokenizer


class TokenSequence(NamedTuple):
    """A text or a pair of texts with its frame.

    Attributes:
        token_ids: all of them, special tokens included.
        second_start: where B begins; the length if there is none.
    """

    token_ids: Int[np.ndarray, " t"]
    second_start: int


class Frame(NamedTuple):
    """The special tokens around a text, `before A after`, and a pair, `before A between B after`.

    What stands before the first token of B belongs to A's segment (0), B and what follows to B's
    (1). With two separators between A and B (RoBERTa) both are thus A's; these models have one
    token type only, and ignore it.

    Attributes:
        before, between, after: ids.

    Source: Devlin et al. 2019, section 3, "input/output representations"; Liu et al. 2019
        (`roberta.encode` of fairseq doubles the separator between A and B).
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    def size(self, pair: bool) -> int:
        """Returns how many special tokens a text, or a pair of them, takes.

        Args:
            pair: whether it is of two texts.
        """
        return len(self.before) + len(self.after) + (len(self.between) if pair else 0)

    def starts(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Returns where each text begins, by the lengths of A, or of A and B.

        Args:
            lengths: in tokens, of one or two texts.
        """
        first = len(self.before)
        return (first, first + lengths[0] + len(self.between))[: len(lengths)]

    def parts(
        self, first: Int[np.ndarray, " a"], second: Int[np.ndarray, " b"] | None = None
    ) -> tuple[Int[np.ndarray, " part"], ...]:
        """Returns the ids in order: special tokens and texts in turn, the former first.

        Args:
            first: the ids of A.
            second: the ids of B; None = there is no B.
        """
        before, between, after = (np.array(ids, np.int32) for ids in self)
        alone = (before, first)
        return (*alone, after) if second is None else (*alone, between, second, after)


def read_frame(post_processor: Mapping[str, Any] | None, name: str) -> Frame | None:
    """Returns the frame of a tokenizer.json's post-processor; None where it has none.

    Args:
        post_processor: of that name in the file.
        name: the file's, for messages.

    Raises:
        UserError: a text or a pair is framed in a way that bertjax does not know.
    """
    part = post_processor or {"type": None}
    if part["type"] == "Sequence":
        frames = (read_frame(one, name) for one in part["processors"])
        return next((frame for frame in frames if frame is not None), None)
    if part["type"] in ("BertProcessing", "RobertaProcessing"):
        cls, sep = part["cls"][1], part["sep"][1]
        doubled = part["type"] == "RobertaProcessing"
        return Frame((cls,), (sep, sep) if doubled else (sep,), (sep,))
    if part["type"] != "TemplateProcessing":
        return None
    ids = {token: special["ids"] for token, special in part["special_tokens"].items()}
    single, pair = (_split_template(part[form], ids) for form in ("single", "pair"))
    if not any(single):
        return None
    before, after = single
    if not before or len(pair) != 3 or (pair[0], pair[2]) != single:
        raise UserError(
            f"{name}: its post-processor frames texts as {_spell_template(part['single'])} and"
            f" pairs as {_spell_template(part['pair'])}; bertjax needs a special token before a"
            " text, and the same before and after a pair, as in [CLS] A [SEP] and"
            " [CLS] A [SEP] B [SEP]"
        )
    return Frame(before, pair[1], after)


def frame(
    tokenizer: "Tokenizer",
    first: Int[np.ndarray, " a"],
    second: Int[np.ndarray, " b"] | None,
    max_length: int,
) -> tuple[TokenSequence, bool]:
    """Frames a text or a pair, and returns whether something had to be cut.

    Tokens are cut from the end of the longer text until both fit.

    Args:
        tokenizer: which has the frame.
        first: the ids of A.
        second: the ids of B; None = there is no B.
        max_length: tokens of the whole, at most.

    Source: google-research/bert `_truncate_seq_pair`.
    """
    room = max_length - tokenizer.frame.size(second is not None)
    both = len(first) + (0 if second is None else len(second))
    if both > room and second is None:
        first = first[:room]
    elif both > room:
        shorter = min(len(first), len(second))
        kept = min(shorter, room // 2)
        if len(first) <= len(second):
            first, second = first[:kept], second[: room - kept]
        else:
            first, second = first[: room - kept], second[:kept]
    ids = np.concatenate(tokenizer.frame.parts(first, second)).astype(np.int32)
    start = len(ids) if second is None else tokenizer.frame.starts((len(first), len(second)))[1]
    return TokenSequence(ids, start), both > room


def _split_template(
    template: Sequence[Mapping[str, Any]], ids: Mapping[str, Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Returns the ids before, between and after the texts of a template."""
    split: list[list[int]] = [[]]
    for item in template:
        if "Sequence" in item:
            split.append([])
        else:
            split[-1] += ids[item["SpecialToken"]["id"]]
    return tuple(map(tuple, split))


def _spell_template(template: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(next(iter(item.values()))["id"] for item in template) or "nothing"

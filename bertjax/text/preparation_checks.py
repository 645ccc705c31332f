"""Whether what was read is enough for the splits, and what to change if it is not."""

from collections.abc import Mapping
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.text.framing import Frame
from bertjax.text.preparation_options import PreparationOptions
from bertjax.text.splits import TOLERANCE
from bertjax.text.tokenizer import Tokenizer

# The share of unknown tokens that is reported: with a tokenizer made for the language of a text,
# fewer than one in a thousand are unknown.
_MUCH_UNKNOWN = 0.01


def check_splits(
    options: PreparationOptions,
    counts: Mapping[str, int],
    splits: Mapping[str, Mapping[str, Any]],
    frame: Frame,
) -> None:
    """Checks that each split has what pairs and rows need.

    Args:
        options: the preparation's.
        counts: counts of documents: read_documents, too_short, without_sentences, new.
        splits: documents and text_tokens of each.
        frame: the tokenizer's.

    Raises:
        UserError: there is too little text; says what to change.
    """
    if not counts["new"]:
        raise UserError(
            f"nothing is left of {counted(counts['read_documents'], 'document')} after cleaning:"
            f" {counts['too_short']:,} shorter than minimum_characters="
            f"{options.cleaning.minimum_characters}, {counts['without_sentences']:,}"
            " without a sentence; give other text, or pass --cleaning.minimum_characters 0"
        )
    fractions, least = options.rows.fractions, options.least_documents
    wanted = [split for split in splits if fractions.get(split, 1)]
    if any(splits[split]["documents"] < least for split in wanted):
        new, needed = counts["new"], least * len(wanted)
        why = " (a random next sentence comes from another one)" if least > 1 else ""
        each = f": {least} in each of {len(wanted)} splits" if len(wanted) > 1 else ""
        single = f", or pass --pairing none, which needs {len(wanted)}"
        raise UserError(
            f"the text has {counted(new, 'document')}, too short to cut, and {needed} are"
            f" needed{each}{why}. Give more text"
            + (single if least > 1 and new >= len(wanted) else "")
        )
    tokens = splits["train"]["text_tokens"]
    if tokens < options.pairs.room(frame, options.rows.max_length):
        raise UserError(
            f"the train split has {tokens} tokens, less than one row of max_length="
            f"{options.rows.max_length}; give more text, or pass a smaller --max-length"
        )


def describe_unknown(counts: Mapping[str, int], tokenizer: Tokenizer) -> list[str]:
    """Reports text that the tokenizer has no tokens for.

    Args:
        counts: totals over all tokenized documents: tokens, unknown_tokens.
        tokenizer: it.
    """
    share = counts["unknown_tokens"] / max(1, counts["tokens"])
    if share < _MUCH_UNKNOWN:
        return []
    return [
        f"{share:.1%} of the tokens ({counts['unknown_tokens']:,}) are"
        f" {tokenizer.special_tokens.unk}, because {tokenizer.name} has no tokens for that text,"
        " and nothing can be learned from it: use the tokenizer of this language, or make one from"
        " this text with `bertjax tokenizer`"
    ]


def describe_lost_shares(
    options: PreparationOptions, splits: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Reports a split that has another share of the tokens than was asked for."""
    return [
        f"the {split} split has {share:.2%} of the tokens instead of {asked:.2%}: each"
        f" split needs {counted(options.least_documents, 'document')}, and the text is too short"
        " to be cut more finely"
        for split, asked in options.rows.fractions.items()
        if abs((share := splits[split]["share_of_tokens"]) - asked) > TOLERANCE * asked
    ]

"""How often each word occurs in texts, and how a tokenizer cuts them."""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bertjax.text.cleaning import TextCleaningConfig, clean
from bertjax.text.readers import DocumentConfig, list_sources, read_documents
from bertjax.text.tokenizer import Tokenizer

# A word is a run of letters and digits, whatever the tokenizer takes for one.
_WORD = re.compile(r"[^\W_]+")
# Distinct words that are counted at once, which take some 100 MB; then the rarest are dropped.
_MOST_WORDS = 1 << 20
# Words with many tokens that are shown.
_MOST_SHOWN = 10


def count_words(texts: Iterable[str]) -> collections.Counter[str]:
    """Counts the words of texts; of very many distinct ones, those that occur once are dropped."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(_WORD.findall(text))
        if len(counts) > _MOST_WORDS:
            counts = collections.Counter({word: n for word, n in counts.items() if n > 1})
    return counts


def read_clean_texts(reader: DocumentConfig, cleaning: TextCleaningConfig) -> Iterator[str]:
    """Yields the documents that a preparation reads, cleaned as there."""
    for source in list_sources(reader):
        for document in read_documents(source, reader, lambda note: None):
            yield clean(document.text, cleaning)


class CutWord(NamedTuple):
    """A word, how often it occurs, and the tokens that it is cut into."""

    word: str
    count: int
    tokens: tuple[str, ...]


class Cuts(NamedTuple):
    """How a tokenizer cuts the words of a text.

    Attributes:
        words: of the text; all shares are of them.
        tokens_per_word: 1 where every word is a token.
        unknown: share of the words with a part that the vocabulary cannot spell.
        in_two, in_three, in_more: shares of the words that are cut into so many tokens.
        most_cut: the words that cost the most tokens beyond one for each, those first.
    """

    words: int
    tokens_per_word: float
    unknown: float
    in_two: float
    in_three: float
    in_more: float
    most_cut: tuple[CutWord, ...]

    def describe(self) -> dict[str, Any]:
        """Describes it as a JSON object."""
        return self._asdict() | {"most_cut": [word._asdict() for word in self.most_cut]}


def measure_cuts(tokenizer: Tokenizer, counts: Mapping[str, int]) -> Cuts:
    """Measures how a tokenizer cuts the words of a text."""
    words = list(counts)
    number = np.array([counts[word] for word in words], np.int64)
    encoded = tokenizer.encode_batch([tokenizer.word_space + word for word in words])
    tokenizer.forget_words()
    tokens = np.array([len(ids) for ids in encoded], np.int64)
    unknown = np.array([tokenizer.unk_id in ids for ids in encoded], bool)
    total = max(1, int(number.sum()))

    def share(those: np.ndarray) -> float:
        return float(number[those].sum() / total)

    costly = np.argsort(-number * (tokens - 1), kind="stable")[:_MOST_SHOWN]
    return Cuts(
        int(number.sum()),
        float((number * tokens).sum() / total),
        share(unknown),
        share(tokens == 2),
        share(tokens == 3),
        share(tokens > 3),
        tuple(
            CutWord(words[at], int(number[at]), _spell(tokenizer, encoded[at]))
            for at in costly.tolist()
            if tokens[at] > 1
        ),
    )


def _spell(tokenizer: Tokenizer, ids: np.ndarray) -> tuple[str, ...]:
    return tuple(tokenizer.spell(id, begins_word=not place) for place, id in enumerate(ids))


def describe_cuts(columns: Mapping[str, Cuts]) -> str:
    """Returns the table of several cuts side by side."""
    rows = {
        "words": [f"{cuts.words:,}" for cuts in columns.values()],
        "tokens per word": [f"{cuts.tokens_per_word:.3f}" for cuts in columns.values()],
    }
    for name, field in (
        ("words with unknown parts", "unknown"),
        ("words cut in 2", "in_two"),
        ("words cut in 3", "in_three"),
        ("words cut in 4 or more", "in_more"),
    ):
        rows[name] = [f"{getattr(cuts, field):.2%}" for cuts in columns.values()]
    width = max(map(len, rows)) + 2
    wide = max(10, *map(len, columns)) + 2
    lines = ["vocabulary".ljust(width) + "".join(name.rjust(wide) for name in columns)]
    lines += [
        name.ljust(width) + "".join(cell.rjust(wide) for cell in cells)
        for name, cells in rows.items()
    ]
    return "\n".join(lines)


def describe_most_cut(cuts: Cuts) -> str:
    """Names the words that cost the most tokens; "" where no word is cut."""
    shown = [f"{word.word} ({word.count:,} x {' '.join(word.tokens)})" for word in cuts.most_cut]
    return f"most cut: {', '.join(shown)}" if shown else ""

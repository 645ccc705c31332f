"""Whether what is read from .txt files looks like documents, reported as soon as it is clear."""

import itertools
import statistics
from collections.abc import Callable

from bertjax.text.readers import Document, ReaderConfig

# Judged after this many documents or lines, and again at the end; fewer than the last number of
# either prove nothing.
SOON, SOON_LINES, FEWEST = 1000, 5000, 50
# Documents of one paragraph are paragraphs of a longer text if nearly all are like that, and short.
NEARLY_ALL, SHORT_DOCUMENT = 0.9, 1000
# Of lines wrapped at a fixed width, more than this share continue in lower case on the next line:
# 30 to 85 % in thirty books of Project Gutenberg (except verse), at most 1 % where a line is a
# paragraph.
WRAPPED_SHARE = 0.2
# A longer document than this many lines, alone in its file, may be one document per line.
MANY_LINES = 200

_SENTENCE_ENDS = tuple(".!?:…”’»\"')]")


class ShapeWatch:
    """Looks at the documents of a run as they are read, and says once what they look like.

    Attributes:
        one_paragraph: how many documents so far have one line.
    """

    def __init__(self, config: ReaderConfig, note: Callable[[str], None]) -> None:
        self._config = config
        self._note = note
        self._said = False
        self._documents = 0
        self.one_paragraph = 0
        self._lengths: list[int] = []  # of the first documents
        self._inner_lines = self._wrapped_lines = 0

    def look(self, document: Document) -> None:
        """Takes a document from a .txt file."""
        self._documents += 1
        self.one_paragraph += "\n" not in document.text
        if self._documents <= SOON:
            self._lengths.append(len(document.text))
        before = self._inner_lines
        if self._documents <= SOON and before < SOON_LINES:
            lines = document.text.split("\n")
            self._inner_lines += len(lines) - 1
            self._wrapped_lines += sum(
                after.lstrip()[:1].islower() and not line.rstrip().endswith(_SENTENCE_ENDS)
                for line, after in itertools.pairwise(lines)
            )
        if self._documents == SOON or before < SOON_LINES <= self._inner_lines:
            self.judge()

    def finish_file(self, only: Document) -> None:
        """Takes the only document of a .txt file, at its end."""
        if self._config.document_separator != "blank-line" or self._config.sentence_per_line:
            return
        lines = only.text.count("\n") + 1
        if lines > MANY_LINES and not self._said:
            self._said = True
            self._note(
                f"{only.source}: no blank line, so its {lines:,} lines are one document. If"
                " each line is a document, pass --document-separator line; if the file is one,"
                " --document-separator file says so"
            )

    def judge(self) -> None:
        """Says what the documents so far look like, unless that was said before."""
        if self._said:
            return
        wrapped = (
            not (self._config.unwrap_lines or self._config.sentence_per_line)
            and self._inner_lines >= FEWEST
            and self._wrapped_lines > WRAPPED_SHARE * self._inner_lines
        )
        if wrapped:
            self._said = True
            share = self._wrapped_lines / self._inner_lines
            self._note(
                f"{share:.0%} of the lines continue in lower case on the next one: this text"
                " looks wrapped at a fixed width, but line ends are read as sentence ends; pass"
                " --unwrap-lines true"
            )
        if self._config.document_separator != "blank-line" or self._documents < FEWEST:
            return
        middle = statistics.median(self._lengths)
        share = 1 if wrapped else self.one_paragraph / self._documents
        if share >= NEARLY_ALL and middle < SHORT_DOCUMENT:
            self._said = True
            what = "sentence" if self._config.sentence_per_line else "paragraph"
            single = self._documents if wrapped else self.one_paragraph
            self._note(
                f"{single:,} of the first {self._documents:,} documents are one {what} each, with"
                f" a median of {middle:,.0f} characters: blank lines here seem to separate"
                f" {what}s, not documents, so that train and test would share texts, and"
                " next sentences would come from few places. If each file is a document, pass"
                " --document-separator file; if these are documents, all is well"
            )

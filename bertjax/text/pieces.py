"""A document in pieces: where it could be cut without cutting a paragraph or a sentence.

Only a corpus of a few long documents is cut (`bertjax.text.splits`), and whether it is one becomes
clear at the end; so every document is laid out in pieces, most of them in one.
"""

from collections.abc import Callable
from typing import NamedTuple

# Characters. Held-out parts are whole pieces, and 5 % of a small corpus is little text.
SHORTEST_PIECE = 512
# Of a document: enough for shares of a percent.
MOST_PIECES = 1024
# A paragraph of this many pieces (a book on one line) is cut between its sentences.
LONG_PARAGRAPH = 16


class Piece(NamedTuple):
    """Consecutive paragraphs of a document, or sentences of a very long one."""

    text: str
    sentences: list[str]


def cut_into_pieces(text: str, split_sentences: Callable[[str], list[str]]) -> list[Piece]:
    """Cuts a clean document into pieces, in order; each of its sentences is in one of them.

    Args:
        text: its lines are paragraphs, and a line's end ends a sentence.
        split_sentences: splits a text into sentences.
    """
    size = max(SHORTEST_PIECE, len(text) // MOST_PIECES)
    if len(text) < 2 * size:
        return [Piece(text, split_sentences(text))]
    pieces: list[Piece] = []
    lines: list[str] = []
    waiting = 0

    def end_piece() -> None:
        nonlocal waiting
        if lines:
            joined = "\n".join(lines)
            pieces.append(Piece(joined, split_sentences(joined)))
        lines.clear()
        waiting = 0

    for line in text.split("\n"):
        if len(line) > LONG_PARAGRAPH * size:
            end_piece()
            pieces += _cut_paragraph(split_sentences(line), size)
            continue
        lines.append(line)
        waiting += len(line)
        if waiting >= size:
            end_piece()
    end_piece()
    return pieces


def _cut_paragraph(sentences: list[str], size: int) -> list[Piece]:
    pieces: list[Piece] = []
    group: list[str] = []
    waiting = 0
    for sentence in sentences:
        group.append(sentence)
        waiting += len(sentence)
        if waiting >= size:
            pieces.append(Piece(" ".join(group), group))
            group, waiting = [], 0
    if group:
        pieces.append(Piece(" ".join(group), group))
    return pieces

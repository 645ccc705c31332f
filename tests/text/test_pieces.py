"""Pieces: every sentence in one of them, once; cut between paragraphs, or within a long one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.text.pieces import LONG_PARAGRAPH, MOST_PIECES, SHORTEST_PIECE, cut_into_pieces
from bertjax.text.sentences import split_sentences

SENTENCE = "Mr. Smith went to Washington, and he stayed there for a while."


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([SENTENCE, "No.", "¿Qué? «Sí», dijo.", "x" * 700]), min_size=1),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([1, 9, 60]),
)
def test_pieces_have_the_sentences_of_the_whole_text_in_order(paragraphs, times):
    text = "\n".join(" ".join(sentences * times) for sentences in paragraphs)
    pieces = cut_into_pieces(text, split_sentences)
    assert [one for piece in pieces for one in piece.sentences] == split_sentences(text)
    assert len(pieces) <= 2 * MOST_PIECES
    longest = LONG_PARAGRAPH * max(SHORTEST_PIECE, len(text) // MOST_PIECES)
    if max(map(len, text.split("\n"))) <= longest:
        assert "\n".join(piece.text for piece in pieces) == text
    else:
        assert " ".join(piece.text.replace("\n", " ") for piece in pieces) == text.replace(
            "\n", " "
        )


def test_short_document_is_one_piece():
    text = f"{SENTENCE}\n" * 9
    assert [piece.text for piece in cut_into_pieces(text, split_sentences)] == [text]


def test_book_in_one_line_is_cut_between_sentences():
    pieces = cut_into_pieces(" ".join([SENTENCE] * 2000), split_sentences)
    assert len(pieces) > 200
    assert {sentence for piece in pieces for sentence in piece.sentences} == {SENTENCE}

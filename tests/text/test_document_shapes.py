"""What does not look like documents is told, and what does is not."""

import pytest

from bertjax.text.document_shapes import ShapeWatch
from bertjax.text.readers import ReaderConfig, list_sources, read_documents

SENTENCE = "This is a sentence that has some words, and it goes on for a while to be long enough."


def notes_of(tmp_path, text: str, **fields) -> list[str]:
    (tmp_path / "text.txt").write_text(text)
    config = ReaderConfig([str(tmp_path / "text.txt")], **fields)
    notes = []
    watch = ShapeWatch(config, notes.append)
    [source] = list_sources(config)
    documents = list(read_documents(source, config, pytest.fail))
    for document in documents:
        watch.look(document)
    if len(documents) == 1:
        watch.finish_file(documents[0])
    watch.judge()
    return notes


PARAGRAPHS = "\n\n".join([SENTENCE] * 60)
WRAPPED_BOOK = "\n\n".join(
    ["This is a sentence\nthat is wrapped, and\nso is the next. It\nends."] * 90
)


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        (PARAGRAPHS, {}, ["60 of the first 60 documents are one paragraph"]),
        (PARAGRAPHS * 30, {}, ["1,000 of the first 1,000 documents are one paragraph"]),
        (PARAGRAPHS, {"document_separator": "file"}, []),
        (
            PARAGRAPHS,
            {"sentence_per_line": True},
            ["60 of the first 60 documents are one sentence"],
        ),
        ("\n\n".join(["\n".join([SENTENCE] * 5)] * 60), {}, []),
        ("\n\n".join([SENTENCE * 20] * 60), {}, []),
        ("\n\n".join([SENTENCE] * 20), {}, []),
        (WRAPPED_BOOK, {}, ["--unwrap-lines true", "90 of the first 90 documents are one"]),
        (WRAPPED_BOOK, {"document_separator": "file"}, ["--unwrap-lines true"]),
        (
            WRAPPED_BOOK,
            {"unwrap_lines": True},
            ["90 of the first 90 documents are one paragraph"],
        ),
        (WRAPPED_BOOK, {"unwrap_lines": True, "document_separator": "file"}, []),
        ("\n".join([SENTENCE] * 300), {}, ["300 lines are one document. If each line"]),
        ("\n".join([SENTENCE] * 300), {"document_separator": "file"}, []),
        ("\n".join([SENTENCE] * 300), {"document_separator": "line"}, []),
        ("\n".join(["A short verse,", "Another one"] * 300), {"document_separator": "file"}, []),
    ],
)
def test_what_looks_like_no_documents_is_told_once(tmp_path, text, fields, expected):
    notes = notes_of(tmp_path, text, **fields)
    assert len(notes) == len(expected)
    for note, part in zip(notes, expected, strict=True):
        assert part in note


def test_every_line_can_be_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("One. Two.\n\nThree.\nFour.")
    config = ReaderConfig([str(tmp_path / "a.txt")], document_separator="line")
    [source] = list_sources(config)
    texts = [document.text for document in read_documents(source, config, pytest.fail)]
    assert texts == ["One. Two.", "Three.", "Four."]

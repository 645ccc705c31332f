"""Texts that a Python program gives, checked before anything is computed from them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bertjax.program.errors import UserError

Text = str | tuple[str, str]


def read_texts(texts: Any, *, pairs: bool = True) -> list[Text]:
    """Returns texts as a list.

    Args:
        texts: any iterable of texts (a list, a generator, an array, a column of a table), or a
            text.
        pairs: whether two texts may stand in the place of one.

    Raises:
        UserError: a table, files, bytes, or something in the list that is not a text.
    """
    texts = _as_list(texts, pairs)
    return [_read_text(text, f"text {number}", pairs) for number, text in enumerate(texts, 1)]


def read_tuples(texts: Any, called: str = "text") -> list[tuple[str, tuple[str, ...]]]:
    """Returns texts as tuples of one, and tuples of any number of texts, each with its place.

    Args:
        texts: any iterable of them, or a text.
        called: what messages call each, before its number.

    Raises:
        UserError: what `read_texts` raises, the name of a file, or an empty tuple.
    """
    given = _as_list(texts, True)
    for text in given:
        _refuse_file(text)
    places = ((f"{called} {number}", text) for number, text in enumerate(given, start=1))
    return [(place, read_parts(text, place)) for place, text in places]


def read_text(text: Any) -> Text:
    """Returns the text, or the pair of texts (a tuple), that a call takes one at a time.

    Raises:
        UserError: something else, for instance a list.
    """
    if isinstance(text, list):
        raise UserError(
            f"{text!r:.60} is a list, and this takes a text, or a pair of texts in a tuple; give"
            " one at a time"
        )
    return _read_text(text, "the text", pairs=True)


def place_texts(texts: Any) -> list[tuple[str, Text]]:
    """Returns texts or pairs of them, each with what messages call it.

    Raises:
        UserError: what `read_texts` raises, and the name of a file.
    """
    read = read_texts(texts)
    for text in read:
        _refuse_file(text)
    return [(f"text {number}", text) for number, text in enumerate(read, 1)]


def _refuse_file(text: Any) -> None:
    if isinstance(text, str) and len(text) < 256 and Path(text).is_file():
        raise UserError(f"{_not_texts(text, pairs=True)} but a file; {_way_out(Path(text))}")


def read_parts(text: Any, place: str, kind: str = "a text") -> tuple[str, ...]:
    """Returns a text, or all of several that belong together.

    Args:
        text: a text, or a tuple or list of any number but none.
        place: what messages call it.
        kind: what messages say that it is not.

    Raises:
        UserError: what `check_text` raises, or no text at all.
    """
    parts = text if isinstance(text, tuple | list) else (text,)
    if not parts:
        raise UserError(f"{place}: is empty, and not {kind}")
    try:
        return tuple(check_text(part, kind) for part in parts)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def check_text(text: Any, kind: str = "a text") -> str:
    """Returns a text as a string of Python itself.

    Raises:
        UserError: it is not `kind`, or has half of a surrogate pair, which no file can hold.
    """
    if not isinstance(text, str):
        raise UserError(f"{text!r:.60} ({type(text).__name__}) is not {kind}; {_way_out(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start + 1} is U+{ord(text[error.start]):04X}, half of a surrogate"
            " pair, which is no character; read the text with errors='replace'"
        ) from None
    return str(text)


def _as_list(texts: Any, pairs: bool) -> list[Any]:
    """Returns what is to be read as texts; a text is a list of one."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise UserError(
            f"{type(texts).__name__} is not a list of texts; give one of its columns, for instance"
            " table['text']"
        )
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise UserError(f"{_not_texts(texts, pairs)}; {_way_out(texts)}")
    return list(texts)


def _read_text(text: Any, place: str, pairs: bool) -> Text:
    """Returns a text or a pair of texts; `place` is what messages call it."""
    kind = "a text, or a pair of texts" if pairs else "a text"
    if isinstance(text, tuple | list) and not (pairs and len(text) == 2):
        raise UserError(f"{place}: {text!r:.60} is not {kind}; {_way_out(text)}")
    parts = read_parts(text, place, kind)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _not_texts(given: Any, pairs: bool) -> str:
    return f"{given!r:.60} is not a list of texts{', or of pairs of them' * pairs}"


def _way_out(given: Any) -> str:
    """Returns what is to be done with something that is not a text."""
    if isinstance(given, bytes):
        return "decode it first: .decode('utf-8')"
    if isinstance(given, Path):
        return "read files first, for instance with Path(name).read_text().splitlines()"
    if isinstance(given, tuple | list):
        return "give each text by itself"
    if isinstance(given, Mapping):
        return "give the text alone, for instance row['text']"
    if given is None or isinstance(given, float):
        return "leave it out where there is none"
    return "give strings"

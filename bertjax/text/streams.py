"""A file's text in pieces or lines, decompressed and decoded while reading, in bounded memory."""

import codecs
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.text.sources import Source

# Characters. A longer line is not a paragraph but a mistake (minified data, a file without line
# ends), and is refused before it is read to its end.
MAXIMUM_LINE = 16 << 20

_PIECE = 1 << 18  # bytes read at a time

# What Python counts among its encodings although it does not turn bytes into text.
_NOT_OF_TEXT = frozenset(
    f"{name}_codec" for name in ("base64", "bz2", "hex", "quopri", "uu", "zlib")
)


class Decoding(Protocol):
    """A config that says how bytes become text.

    encoding: A name that Python knows.
    errors: strict, replace or ignore.
    """

    encoding: str
    errors: str


def check_encoding(encoding: str) -> None:
    """Raises a UserError unless Python knows this as a text encoding."""
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        known = False
    if not known:
        from encodings.aliases import aliases

        names = sorted({*aliases.values(), "latin-1", "utf-8", "utf-16"} - _NOT_OF_TEXT)
        raise UserError(f"encoding={encoding!r} is not a text encoding{nearest(encoding, names)}")


def open_bytes(source: Source) -> IO[bytes]:
    """Opens a file's bytes, decompressed as they are read."""
    return gzip.open(source.path, "rb") if source.compressed else source.path.open("rb")


def open_seekable(source: Source) -> IO[bytes]:
    """Opens a file's bytes for random access; compressed ones are first written to a temporary
    file.
    """
    if not source.compressed:
        return source.path.open("rb")
    whole = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with open_bytes(source) as stream:
        _guard(source, lambda: shutil.copyfileobj(stream, whole))
    whole.seek(0)
    return whole


def _guard(source: Source, read: Callable[[], Any]) -> Any:
    """Calls `read()` and reports what is wrong with a gzip file in our words."""
    try:
        return read()
    except EOFError:
        raise UserError(f"{source.name}: the gzip data is cut off; copy the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{source.name}: damaged gzip data ({error}); copy the file again"
        ) from None


def pieces(source: Source, config: Decoding) -> Iterator[str]:
    """Yields the text of a file in pieces of some 100,000 characters, every line end as "\\n",
    without a byte order mark.

    Raises:
        UserError: with line and column, where bytes are invalid in `config.encoding`; a NUL
            character; damaged gzip data.
    """
    encoding = "utf-8-sig" if codecs.lookup(config.encoding).name == "utf-8" else config.encoding
    decoder = codecs.getincrementaldecoder(encoding)(config.errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    line = 1
    column = 0  # characters of the current line in earlier pieces
    with open_bytes(source) as stream:
        while True:
            data = _guard(source, lambda: stream.read(_PIECE))
            try:
                text = newlines.decode(decoder.decode(data, final=not data), final=not data)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(encoding, "replace")
                raise _bad_byte(source, config, error, line, column, good) from None
            if "\0" in text:
                line += text.count("\n", 0, text.index("\0"))
                raise UserError(
                    f"{source.name}:{line}: a NUL character; "
                    f"this is not text, or not in {config.encoding}"
                )
            if text:
                yield text
            if not data:
                return
            line += text.count("\n")
            column = len(text) - text.rfind("\n") - 1 + (0 if "\n" in text else column)


def _bad_byte(
    source: Source,
    config: Decoding,
    error: UnicodeDecodeError,
    line: int,
    column: int,
    good: str,
) -> UserError:
    good = good.replace("\r\n", "\n").replace("\r", "\n")
    line += good.count("\n")
    column = len(good) - good.rfind("\n") if "\n" in good else column + len(good) + 1
    byte = (
        f"byte 0x{error.object[error.start]:02x}" if error.start < len(error.object) else "cut off"
    )
    other = "utf-8" if codecs.lookup(config.encoding).name != "utf-8" else "cp1252"
    prefix = getattr(config, "option_prefix", "--")
    return UserError(
        f"{source.name}:{line}: not {config.encoding.upper()} ({byte} at column {column}); "
        f"pass {prefix}encoding {other} or {prefix}errors replace"
    )


def lines(source: Source, config: Decoding) -> Iterator[str]:
    """Yields the lines of a file without their ends.

    Raises:
        UserError: a line of more than MAXIMUM_LINE characters, before it is read to its end; and
            where `pieces` raises.
    """
    parts: list[str] = []
    size, number = 0, 1
    for piece in pieces(source, config):
        first, *rest = piece.split("\n")
        parts.append(first)
        size += len(first)
        if size > MAXIMUM_LINE:
            raise UserError(
                f"{source.name}:{number}: a line of more than {MAXIMUM_LINE >> 20} million "
                "characters; break it into lines, one per paragraph or sentence"
            )
        if rest:
            yield "".join(parts)
            yield from rest[:-1]
            number += len(rest)
            parts = [rest[-1]]
            size = len(parts[0])
    if size:
        yield "".join(parts)

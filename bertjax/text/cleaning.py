"""Clean text: broken Unicode mended, one normal form, no control characters, plain white space, no
boilerplate lines.

Almost every line of ordinary text is already clean. `clean` proves that cheaply (which characters
occur, which of them are adjacent) and gives only the rest to ftfy, which would take a hundred
times as long; the result is the same.
"""

import dataclasses
import functools
import hashlib
import itertools
import re
import unicodedata
from typing import Literal

import numpy as np

from bertjax.program.errors import UserError

# Unicode normal forms to bring a text into; none leaves it as it is.
Form = Literal["NFC", "NFKC", "none"]


@dataclasses.dataclass
class TextCleaningConfig:
    """How a text is cleaned, whatever the other texts are.

    Attributes:
        fix_unicode: Mend mojibake, HTML entities, ligatures and the like with ftfy. Curly quotation
            marks stay, and so does the full width of Chinese and Japanese punctuation.
        normalization: The Unicode normal form of the text: NFC, NFKC (which also narrows full-width
            characters and turns 10³ into 103), or none.
        minimum_characters: Documents with fewer characters than this after cleaning are left out.
    """

    fix_unicode: bool = True
    normalization: Form = "NFC"
    minimum_characters: int = 20

    def __post_init__(self) -> None:
        if self.minimum_characters < 0:
            raise UserError(f"minimum_characters={self.minimum_characters} must be at least 0")


@dataclasses.dataclass
class CleaningConfig(TextCleaningConfig):
    """How a corpus is cleaned: each text by itself, then what many texts have in common.

    Attributes:
        boilerplate_documents: A line that occurs in at least this many documents is boilerplate and
            is removed everywhere; 0 keeps all lines.
    """

    boilerplate_documents: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boilerplate_documents < 0 or self.boilerplate_documents == 1:
            raise UserError(
                f"boilerplate_documents={self.boilerplate_documents} must be 0 (off) or "
                "at least 2: every line occurs in one document"
            )


# Mending can uncover something new (an escaped entity, say), so it is repeated until nothing
# changes. It is bounded, because nothing proves that ftfy never goes round in circles.
_MAXIMUM_ROUNDS = 8

_PLAIN_ASCII = bytes(range(0x20, 0x7F)) + b"\n"

# Characters beyond ASCII that no step changes next to each other or to ASCII: ftfy's signs of
# mojibake need an accented letter, a symbol or a control character beside them.
_PLAIN_CHARACTERS = frozenset("‘’“”–—•")

# What is removed before ftfy sees the text, and which it needs no evidence of mojibake for.
_ASCII_SPACES = dict.fromkeys("\r\x0b\x0c\x1c\x1d\x1e", "\n") | dict.fromkeys("\t\x1f", " ")

# Invisible characters out of place in text: soft hyphen, zero-width space, word joiner, marks of
# direction, byte order mark.
_INVISIBLE = "\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_REMOVED = re.compile(f"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f{_INVISIBLE}]")
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")

_ENTITY = re.compile(r"&#?\w{1,24};")
# ftfy takes these for mojibake beside ordinary letters or alone, so that only itself can judge
# them.
_ONLY_FTFY_CAN_TELL = frozenset("ÂÃЂ")


def clean(text: str, config: TextCleaningConfig) -> str:
    """Returns the text mended, normalized, without control characters, with plain white space.

    Line by line: mended by ftfy, normalized; control characters and invisible format characters are
    removed (the joiners U+200C and U+200D stay: Persian and the Indic scripts need them); runs of
    white space become one space, and none is left at a line's ends; empty lines are removed. A line
    stays a line, since it is a paragraph or a sentence. Curly quotation marks stay: they say more
    than straight ones.

    Args:
        text: any.
        config: what is done.

    Returns:
        The clean text; cleaning it again changes nothing.
    """
    characters = _characters(text)
    for space in characters & _ASCII_SPACES.keys():
        text = text.replace(space, _ASCII_SPACES[space])
    characters -= _ASCII_SPACES.keys()
    if not _is_plain(text, characters, config):
        return "\n".join(filter(None, (_clean_line(line, config) for line in text.split("\n"))))
    return _join_spaces(text, characters)


def _clean_line(line: str, config: TextCleaningConfig) -> str:
    """Cleans a line; it may have become several, or none."""
    for _ in range(_MAXIMUM_ROUNDS):
        characters = _characters(line)
        if _is_plain(line, characters, config):
            return _join_spaces(line, characters)
        mended = _mend(line, config.fix_unicode, config.normalization)
        mended = _join_spaces(mended, _characters(mended))
        if mended == line:
            break
        if "\n" in mended:
            return clean(mended, config)
        line = mended
    return line


def _mend(line: str, fix_unicode: bool, normalization: str) -> str:
    """Mends a line, white space apart. Everything else here only finds the lines that this would
    not change.
    """
    form = None if normalization == "none" else normalization
    if fix_unicode:
        import ftfy

        line = ftfy.fix_text(
            line,
            uncurl_quotes=False,
            fix_character_width=False,
            normalization=form,
            explain=False,
        )
    elif form:
        line = unicodedata.normalize(form, line)
    line = _LINE_ENDS.sub("\n", line)
    return _REMOVED.sub("", _SURROGATES.sub("\ufffd", line))


def _join_spaces(text: str, characters: set[str]) -> str:
    """Turns every run of white space within a line into a space, and drops empty lines.

    Replacing is many times as fast as splitting and joining every line, since there is usually
    nothing to replace.

    Args:
        text: Any number of lines.
        characters: `_characters(text)`.
    """
    for space in filter(str.isspace, characters):
        text = text.replace(space, " ")
    for run, single in (("  ", " "), (" \n", "\n"), ("\n ", "\n"), ("\n\n", "\n")):
        while run in text:
            text = text.replace(run, single)
    return text.strip()


def _characters(text: str) -> set[str]:
    """Returns the characters of a text that are not in `_PLAIN_ASCII`. Bytes, because `translate`
    drops a million in a millisecond.
    """
    rest = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN_ASCII)
    return set(rest.decode("utf-8", "surrogatepass"))


def _is_plain(text: str, characters: set[str], config: TextCleaningConfig) -> bool:
    """Returns whether `_mend` changes no line of the text; False may mean that only ftfy knows.

    Args:
        text: Any number of lines.
        characters: `_characters(text)`.
    """
    if config.fix_unicode and "&" in text and _ENTITY.search(text):
        return False
    if characters <= _PLAIN_CHARACTERS:
        return True
    if not all(_is_harmless(character, config.fix_unicode) for character in characters):
        return False
    if config.normalization != "none" and not unicodedata.is_normalized(config.normalization, text):
        return False
    return not (config.fix_unicode and _has_mojibake(text))


@functools.lru_cache(maxsize=1 << 16)
def _is_harmless(character: str, fix_unicode: bool) -> bool:
    """Returns whether `_mend` leaves a character as it is on its own, normalization apart."""
    if fix_unicode and character in _ONLY_FTFY_CAN_TELL:
        return False
    return _mend(character, fix_unicode, "none") == character


def _has_mojibake(text: str) -> bool:
    """Returns whether ftfy sees signs of mojibake in a text without `_ONLY_FTFY_CAN_TELL` and
    control characters.

    Each of its signs has an accented letter, a symbol or a quotation mark next to another
    character beyond ASCII, or œ, and is at most four characters long. So it is given only the
    surroundings of such pairs, which are few and repeat.
    """
    code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    suspects = _suspects()[np.minimum(code_points, 0xFFFF)]
    beyond_ascii = code_points > 0x7F
    pairs = (suspects[1:] & beyond_ascii[:-1]) | (beyond_ascii[1:] & suspects[:-1])
    pairs |= (code_points[:-1] | 1) == 0x153  # Œ is 0x152, œ is 0x153
    return any(
        _looks_broken(text[max(0, at - 4) : at + 6]) for at in np.flatnonzero(pairs).tolist()
    )


@functools.cache
def _suspects() -> np.ndarray:
    """Returns, for each code point below 0x10000, whether it occurs in ftfy's signs of mojibake."""
    from ftfy.badness import MOJIBAKE_CATEGORIES

    # Greek and Cyrillic letters are signs only beside one of the others.
    letters = ("lower_common", "upper_common")
    ranges = "".join(
        MOJIBAKE_CATEGORIES[name] for name in MOJIBAKE_CATEGORIES if name not in letters
    )
    suspects = re.compile(f"[{ranges}]")
    return np.array([bool(suspects.match(chr(code_point))) for code_point in range(0x10000)])


@functools.lru_cache(maxsize=1 << 16)
def _looks_broken(surroundings: str) -> bool:
    from ftfy.badness import is_bad

    return is_bad(surroundings)


def line_hashes(text: str) -> np.ndarray:
    """Returns the hash (uint64) of each distinct line of a clean document, ascending, for
    `LineCounts.add`.
    """
    return np.unique(_hash_lines(text.split("\n")))


def _hash_lines(lines: list[str]) -> np.ndarray:
    digests = [hashlib.blake2b(line.encode(), digest_size=8).digest() for line in lines]
    return np.frombuffer(b"".join(digests), "<u8")


class LineCounts:
    """How many documents each line occurs in, in 32 MB whatever the number of lines: a count-min
    sketch.

    Counts only add up, so neither the order of the documents nor their distribution over workers
    matters.

    Source: Cormode and Muthukrishnan 2005. Differs: the count that chance collisions add on average
        is subtracted, so that rare lines do not look common in a corpus of billions of
        lines.
    """

    _ROWS = 4
    _WIDTH_BITS = 21
    # Odd numbers without a pattern: each row sends a line to another cell.
    _FACTORS = np.array(
        [[0x9E3779B97F4A7C15], [0xC2B2AE3D27D4EB4F], [0xD6E8FEB86659FD93], [0xFF51AFD7ED558CCD]],
        np.uint64,
    )

    def __init__(self) -> None:
        self._table = np.zeros((self._ROWS, 1 << self._WIDTH_BITS), np.uint32)
        self._total = 0

    def add(self, hashes: np.ndarray) -> None:
        """Counts the `line_hashes` of a document, or those of several documents, concatenated."""
        for row, slots in zip(self._table, self._slots(hashes), strict=True):
            np.add.at(row, slots, 1)
        self._total += len(hashes)

    def merge(self, other: "LineCounts") -> None:
        """Adds what another sketch has counted."""
        self._table += other._table
        self._total += other._total

    def count(self, hashes: np.ndarray) -> np.ndarray:
        """Returns how many documents each line occurs in (int64): exact, except for collisions,
        which are rare and small.
        """
        slots = self._slots(hashes)
        counts = self._table[np.arange(self._ROWS)[:, None], slots].min(axis=0).astype(np.int64)
        return np.maximum(counts - (self._total >> self._WIDTH_BITS), 0)

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return ((hashes * self._FACTORS) >> np.uint64(64 - self._WIDTH_BITS)).astype(np.int64)


def remove_boilerplate(text: str, counts: LineCounts, config: CleaningConfig) -> tuple[str, int]:
    """Removes the lines that occur in `config.boilerplate_documents` documents or more from a text.
    Returns:
        The text that is left, and how many lines were removed.
    """
    if not config.boilerplate_documents:
        return text, 0
    lines = text.split("\n")
    kept = counts.count(_hash_lines(lines)) < config.boilerplate_documents
    if kept.all():
        return text, 0
    return "\n".join(itertools.compress(lines, kept)), int((~kept).sum())

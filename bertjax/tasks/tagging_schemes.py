"""How tags mark entities: IOB1, IOB2, IO, BIOES, BILOU and BMES, recognised and converted to IOB2.

scheme   New York Times in Paris   (two entities; a third would begin right after the first as)
IOB2     B-ORG I-ORG I-ORG O B-LOC   B-ORG
IOB1     I-ORG I-ORG I-ORG O I-LOC   B-ORG
IO       I-ORG I-ORG I-ORG O I-LOC   I-ORG, or without I-: it runs into the first
BIOES    B-ORG I-ORG E-ORG O S-LOC   S-ORG or B-ORG
BILOU    B-ORG I-ORG L-ORG O U-LOC   U-ORG or B-ORG
BMES     B-ORG M-ORG E-ORG O S-LOC   S-ORG or B-ORG
none     tags that mark no entities, such as parts of speech

The letter may come before or after the type, in upper or lower case, with another separator
(B_ORG, ORG-B, b:org), or alone if entities have no types (B I O, for example in key phrases).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from bertjax.program.errors import UserError

Scheme = Literal["IOB1", "IOB2", "IO", "BIOES", "BILOU", "BMES", "none"]

OUTSIDE = "O"
# The type of entities whose tags name none, as in seqeval.
NO_TYPE = "_"

_SEPARATORS = "-_.:/|"
_LETTERS = {
    "IOB1": "BI",
    "IOB2": "BI",
    "IO": "I",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
}
_LETTER = "(?P<letter>[BIESLUMbieslum])"
# How a tag is written -> its pattern, in the order in which they are tried.
_FORMS = {
    **{f"B{mark}TYPE": rf"{_LETTER}{re.escape(mark)}(?P<type>.+)" for mark in _SEPARATORS},
    **{f"TYPE{mark}B": rf"(?P<type>.+){re.escape(mark)}{_LETTER}" for mark in _SEPARATORS},
    "B": f"{_LETTER}(?P<type>)",
}
# A type that contains another tag.
_SEVERAL = re.compile(r"[|,;/+ ][BIESLUM][-_]")


class TagError(UserError):
    """A tag that does not fit the scheme.

    Attributes:
        tag: the tag that is probably wrong.
    """

    def __init__(self, message: str, tag: str) -> None:
        super().__init__(message)
        self.tag = tag


class Span(NamedTuple):
    """An entity: its type, and its characters `text[start:end]`.

    Attributes:
        type: for instance PER.
        start: its first character.
        end: past its last character.
    """

    type: str
    start: int
    end: int


class _Mark(NamedTuple):
    """What a tag says: the letter, upper case, and the type."""

    letter: str
    type: str


class TagReading(NamedTuple):
    """How tags are read.

    Attributes:
        scheme: see above.
        form: how they are written: B-TYPE, TYPE_B and so on; B for letters alone; TYPE for types
            alone.
    """

    scheme: Scheme
    form: str = "B-TYPE"

    @property
    def is_weak(self) -> bool:
        """Returns whether fewer tags of the same kind might be read differently."""
        return self.scheme == "none" or self.form == "TYPE"

    def describe(self) -> str:
        """Describes the reading, with the actual tags."""
        if self.scheme == "none":
            return "none: they mark no entities"
        letters = _LETTERS[self.scheme]
        if self.form == "TYPE":
            tags = "TYPE"
        elif self.form.startswith("B"):
            tags = ", ".join(letter + self.form[1:] for letter in letters)
        else:
            tags = ", ".join(self.form[:-1] + letter for letter in letters)
        return f"{self.scheme}: {tags}, {OUTSIDE}"

    def to_iob2(self, tags: Sequence[str]) -> tuple[str, ...]:
        """Returns the tags of one sentence in IOB2 as B-TYPE; in the scheme none, as they are.

        A tag that continues an entity that was not begun begins one, as in conlleval.

        Args:
            tags: in the scheme.

        Raises:
            TagError: the scheme does not have a tag.
        """
        return self._convert(tags)[0]

    def count_lone(self, tags: Sequence[str]) -> int:
        """Counts a sentence's tags that continue an entity that was not begun, which the scheme
        does not allow.

        Args:
            tags: in the scheme.
        """
        return 0 if self.scheme in ("none", "IO", "IOB1") else self._convert(tags)[1]

    def from_iob2(self, tags: Sequence[str]) -> tuple[str, ...]:
        """Writes the IOB2 tags of a sentence in this scheme.

        Args:
            tags: in IOB2.
        """
        if self.scheme == "none":
            return tuple(tags)
        written = []
        for tag, after in zip(tags, [*tags[1:], OUTSIDE], strict=True):
            if tag == OUTSIDE or tag[:2] not in ("B-", "I-"):  # the latter mark no entity
                written.append(tag)
                continue
            letter, kind = tag[0], tag[2:]
            ends = after != f"I-{kind}"
            if self.scheme == "IO":
                letter = "I"
            elif self.scheme in ("BIOES", "BILOU", "BMES") and ends:
                letter = ("UL" if self.scheme == "BILOU" else "SE")[letter == "I"]
            elif self.scheme == "BMES" and letter == "I":
                letter = "M"
            written.append(self._write(letter, kind))
        return tuple(written)

    def _write(self, letter: str, kind: str) -> str:
        if self.form in ("B", "TYPE"):
            return letter if self.form == "B" else kind
        mark = self.form.strip("BTYPE")
        return f"{letter}{mark}{kind}" if self.form[0] == "B" else f"{kind}{mark}{letter}"

    def _convert(self, tags: Sequence[str]) -> tuple[tuple[str, ...], int]:
        if self.scheme == "none":
            return tuple(tags), 0
        converted, lone = [], 0
        running = None  # the type of the entity that the next tag may continue
        for tag in tags:
            if tag.upper() == OUTSIDE:
                running = None
                converted.append(OUTSIDE)
                continue
            letter, kind = self._read(tag)
            begins = letter in "BSU" or kind != running
            lone += begins and letter not in "BSU"
            converted.append(f"{'B' if begins else 'I'}-{kind}")
            running = None if letter in "ESLU" else kind
        return tuple(converted), lone

    def _read(self, tag: str) -> _Mark:
        form = "B-TYPE" if self.form == "TYPE" else self.form
        match = re.fullmatch(_FORMS[form], tag)
        letters = _LETTERS[self.scheme]
        if match and match["letter"].upper() in letters:
            return _Mark(match["letter"].upper(), match["type"] or NO_TYPE)
        if self.form == "TYPE" and not match:
            return _Mark("I", tag)
        shown = "".join(f", {letter}-TYPE" for letter in letters)
        raise TagError(
            f"the tag {tag!r} is not one of {self.scheme}: O{shown}; correct it, or name another"
            " scheme",
            tag,
        )


def are_entity_tags(tags: Iterable[str]) -> bool:
    """Returns whether these are IOB2 tags as B-TYPE, at least one of them other than O.

    Args:
        tags: any.
    """
    marked = {tag for tag in tags if tag != OUTSIDE}
    return bool(marked) and all(tag[:2] in ("B-", "I-") and len(tag) > 2 for tag in marked)


def recognise_scheme(
    sentences: Sequence[Sequence[str]], scheme: Scheme | None = None
) -> TagReading:
    """Recognises how to read the tags of all sentences together.

    Tags without a letter are the types of entities (IO) if O is among them and is the tag of more
    than half of the tokens; if O is not even the most frequent tag, they mark no entities (none).

    Args:
        sentences: the tags of each.
        scheme: the given scheme; the form in which they are written is still recognised.

    Raises:
        TagError: tags of several schemes, with the first of the rarer ones, or tags that cannot be
            recognised.
    """
    counts = Counter(tag for tags in sentences for tag in tags)
    tags = [tag for tag in counts if tag.upper() != OUTSIDE]
    if scheme == "none":
        return TagReading("none", "TYPE")
    if not tags:
        return TagReading(scheme or "IOB2")
    form = next(
        (form for form, pattern in _FORMS.items() if all(re.fullmatch(pattern, t) for t in tags)),
        None,
    )
    if form is None:
        if scheme is not None:
            return TagReading(scheme, "TYPE" if scheme == "IO" else "B-TYPE")
        return _read_types(counts, tags)
    marks = {tag: re.fullmatch(_FORMS[form], tag) for tag in tags}
    letters = {mark["letter"].upper() for mark in marks.values()}
    if scheme is None and form == "B" and not letters & {"B", "I"}:
        raise TagError(
            f"the tags {', '.join(sorted(tags))} may be letters that mark entities, or types;"
            " name the scheme (none: tags that mark no entities; IO: types)",
            tags[0],
        )
    for tag, mark in marks.items():
        if _SEVERAL.search(mark["type"]):
            raise TagError(
                f"the tag {tag!r} contains several tags, and a token has one; keep one of them", tag
            )
    if scheme is None:
        scheme = _scheme_of(counts, marks, letters, sentences)
    elif scheme == "IO" and letters != {"I"}:
        form = "TYPE"  # the letter is wrong, or is a type
    return TagReading(scheme, form)


def _scheme_of(
    counts: Counter[str],
    marks: dict[str, re.Match],
    letters: set[str],
    sentences: Sequence[Sequence[str]],
) -> Scheme:
    """Returns the scheme with these letters."""
    kinds = {"BIOES": {"E", "S"}, "BILOU": {"L", "U"}, "BMES": {"M"}}
    fitting = [name for name, own in kinds.items() if letters & own]
    if "BMES" in fitting and "I" not in letters and "BILOU" not in fitting:
        return "BMES"
    if "BMES" in fitting:
        kinds = {"BMES": {"M"}, "BIOES": {"I", "L", "U"}}
        fitting = ["BMES", "BIOES"]
    if len(fitting) > 1:
        some, others = (
            [tag for tag, mark in marks.items() if mark["letter"].upper() in kinds[name]]
            for name in fitting
        )
        raise TagError(
            f"the prefixes {sorted(letters)} of the tags are of {fitting[0]} and of"
            f" {'others' if fitting[0] == 'BMES' else fitting[1]}",
            _first_of_rarer(counts, some, others),
        )
    if fitting:
        return fitting[0]
    if letters == {"I"}:
        return "IO"
    # Before each tag, the type of the entity that it may continue.
    before = {tag: mark["type"] for tag, mark in marks.items()}
    pairs = [
        (marks[tag]["letter"].upper(), marks[tag]["type"] == before.get(last))
        for tags in sentences
        for last, tag in zip([OUTSIDE, *tags], tags, strict=False)
        if tag in marks
    ]
    begun = all(continues for letter, continues in pairs if letter == "I")
    only_between = all(continues for letter, continues in pairs if letter == "B")
    return "IOB2" if begun or not only_between else "IOB1"


def _read_types(counts: Counter[str], tags: list[str]) -> TagReading:
    """Reads tags that are not all written in one form."""
    matching = {
        form: [tag for tag in tags if re.fullmatch(pattern, tag)]
        for form, pattern in _FORMS.items()
    }
    form = max(matching, key=lambda name: sum(counts[tag] for tag in matching[name]))
    marked = matching[form]
    letters = {re.fullmatch(_FORMS[form], tag)["letter"].upper() for tag in marked}
    others = [tag for tag in tags if tag not in marked]
    outside = counts[OUTSIDE]
    is_io = 2 * outside > counts.total()
    marks_something = form != "B" if outside else bool(letters & {"B", "I"})
    if marked and (marks_something or (is_io and letters & {"B", "I"})):
        hint = "" if outside else f", or write O for {others[0]!r} where it is outside entities"
        raise TagError(
            f"the tags {marked[0]!r} and {others[0]!r} are of different schemes; correct one of"
            f" them{hint}, or name the scheme (none: tags that mark no entities)",
            _first_of_rarer(counts, marked, others),
        )
    if is_io:
        return TagReading("IO", "TYPE")
    if outside > max(counts[tag] for tag in tags):
        raise TagError(
            f"O is at {outside / counts.total():.0%} of the tokens, more often than any other"
            f" tag: are {', '.join(map(repr, tags[:3]))} types of entities, or tags that mark none?"
            " Name the scheme: IO, or none",
            OUTSIDE,
        )
    return TagReading("none", "TYPE")


def _first_of_rarer(counts: Counter[str], some: list[str], others: list[str]) -> str:
    return min(some, others, key=lambda tags: sum(counts[tag] for tag in tags))[0]


def spans_of(tags: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[Span]:
    """Returns the entities that IOB2 tags mark, as characters of the text.

    Args:
        tags: the tokens' tags; an I- without a beginning counts as a B-.
        offsets: the characters of each token.
    """
    spans: list[Span] = []
    before = OUTSIDE
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if tag.startswith("I-") and before != OUTSIDE and before[2:] == tag[2:]:
            spans[-1] = spans[-1]._replace(end=end)
        elif tag != OUTSIDE:
            spans.append(Span(tag[2:], start, end))
        before = tag
    return spans

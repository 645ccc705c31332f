"""How tags mark entities: IOB1, IOB2, IO, BIOES and BILOU, recognised and made IOB2.

scheme   New York Times in Paris   (two entities; a third would begin right behind the first as)
IOB2     B-ORG I-ORG I-ORG O B-LOC   B-ORG
IOB1     I-ORG I-ORG I-ORG O I-LOC   B-ORG
IO       I-ORG I-ORG I-ORG O I-LOC   I-ORG, or without I-: it runs into the first
BIOES    B-ORG I-ORG E-ORG O S-LOC   S-ORG or B-ORG
BILOU    B-ORG I-ORG L-ORG O U-LOC   U-ORG or B-ORG
none     tags that mark no entities, such as parts of speech
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from bertjax.errors import UserError

Scheme = Literal["IOB1", "IOB2", "IO", "BIOES", "BILOU", "none"]

OUTSIDE = "O"

_PREFIXED = re.compile(r"([BIESLU])-(.+)")
_LETTERS = {"IOB1": "BI", "IOB2": "BI", "IO": "I", "BIOES": "BIES", "BILOU": "BILU"}


class TagError(UserError):
    """A tag that does not fit.

    Attributes:
        tag: the one that is probably wrong.
    """

    def __init__(self, message: str, tag: str) -> None:
        super().__init__(message)
        self.tag = tag


class Span(NamedTuple):
    """An entity: its type, and its characters `text[start:end]`."""

    type: str
    start: int
    end: int


class _Mark(NamedTuple):
    """What a tag says: the letter before the type, and the type."""

    letter: str
    type: str


def are_entity_tags(tags: Iterable[str]) -> bool:
    """Whether these are IOB2 tags, at least one of them other than O."""
    marked = {tag for tag in tags if tag != OUTSIDE}
    return bool(marked) and all(tag[:2] in ("B-", "I-") and len(tag) > 2 for tag in marked)


def recognise_scheme(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme that the tags of all sentences together are of.

    Tags without a prefix are the types of entities (IO) where O is among them and stands at more
    than half of the tokens; otherwise they stand for themselves (none).

    Raises:
        TagError: tags of several schemes; it has the first of the rarer ones.
    """
    counts = Counter(tag for tags in sentences for tag in tags)
    marks = {tag: match for tag in counts if (match := _PREFIXED.fullmatch(tag))}
    bare = [tag for tag in counts if tag != OUTSIDE and tag not in marks]
    if not marks:
        return "IO" if 2 * counts[OUTSIDE] > counts.total() else "none"
    if bare and OUTSIDE not in counts:
        return "none"
    if bare:
        raise TagError(
            f"the tags {next(iter(marks))!r} and {bare[0]!r} are of different schemes; correct one "
            "of them, or name the scheme (none: tags that mark no entities)",
            _first_of_rarer(counts, list(marks), bare),
        )
    letters = {match[1] for match in marks.values()}
    if letters & {"E", "S"} and letters & {"L", "U"}:
        ends, last = ([tag for tag in marks if tag[0] in some] for some in ("ES", "LU"))
        raise TagError(
            f"the prefixes {sorted(letters)} of the tags are of BIOES and of BILOU",
            _first_of_rarer(counts, ends, last),
        )
    if letters & {"E", "S"}:
        return "BIOES"
    if letters & {"L", "U"}:
        return "BILOU"
    if letters == {"I"}:
        return "IO"
    begun = all(
        tag[0] != "I" or (before != OUTSIDE and before[1:] == tag[1:])
        for tags in sentences
        for before, tag in zip([OUTSIDE, *tags], tags, strict=False)
    )
    return "IOB2" if begun else "IOB1"


def _first_of_rarer(counts: Counter[str], some: list[str], others: list[str]) -> str:
    return min(some, others, key=lambda tags: sum(counts[tag] for tag in tags))[0]


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """The tags of one sentence in IOB2; those of the scheme none as they are.

    What continues an entity that nothing began begins one, as conlleval has it.

    Raises:
        TagError: a tag that the scheme does not have.
    """
    if scheme == "none":
        return tuple(tags)
    converted = []
    running = ""  # the type of the entity that the next tag may continue
    for tag in tags:
        if tag == OUTSIDE:
            running = ""
            converted.append(tag)
            continue
        letter, kind = _read(tag, scheme)
        begins = letter in "BSU" or kind != running
        converted.append(f"{'B' if begins else 'I'}-{kind}")
        running = "" if letter in "ESLU" else kind
    return tuple(converted)


def spans_of(tags: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[Span]:
    """The entities that IOB2 tags mark, as characters of the text.

    Args:
        tags: of the tokens; an I- that nothing begins counts as a B-.
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


def _read(tag: str, scheme: Scheme) -> _Mark:
    match = _PREFIXED.fullmatch(tag)
    if match and match[1] in _LETTERS[scheme]:
        return _Mark(match[1], match[2])
    if scheme == "IO" and not match:
        return _Mark("I", tag)
    raise TagError(
        f"the tag {tag!r} is not one of {scheme}: O"
        + "".join(f", {letter}-TYPE" for letter in _LETTERS[scheme])
        + "; correct it, or name another scheme",
        tag,
    )

"""The classes of examples, their counts, and which of them differ only in spelling."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.tasks.tagging_schemes import NO_TYPE, OUTSIDE

# The most classes that a line names; the rest are counted.
_MOST_NAMED = 30

# How missing values are written in tables.
# Source: pandas, `pandas._libs.parsers.STR_NA_VALUES`.
MISSING = frozenset(
    (
        "#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "NAN",
        "None", "n/a", "nan", "null", "Null",
    )
)  # fmt: skip


def count_labels(examples: Iterable[Any]) -> Counter[str]:
    """Counts the examples of each class; for tagged sentences the entities by type, or the tags."""
    counts: Counter[str] = Counter()
    for example in examples:
        tags, label = getattr(example, "tags", None), getattr(example, "label", None)
        if isinstance(label, str):
            counts[label] += 1
        elif isinstance(label, tuple):
            counts.update(label)
        elif tags is not None:
            counts.update(tags)
    return counts


def count_kinds(counts: Mapping[str, int]) -> Counter[str]:
    """Counts the entities of each type, from the counts of IOB2 tags."""
    kinds: Counter[str] = Counter()
    for tag, number in counts.items():
        if tag != OUTSIDE:
            kinds[tag[2:]] += number if tag.startswith("B-") else 0
    return kinds


def describe_labels(splits: Mapping[str, Sequence[Any]], *, entities: bool = False) -> list[str]:
    """Returns a line with the classes and how many examples of them each split has.

    Args:
        splits: each split's examples, by its name; empty ones are not named.
        entities: whether tags are IOB2, so that whole entities are counted.
    """
    counts = {name: count_labels(examples) for name, examples in splits.items() if examples}
    if entities:
        counts = {name: count_kinds(of) for name, of in counts.items()}
    labels = dict.fromkeys(label for of in counts.values() for label, _ in of.most_common())
    if not labels:
        return []
    named = [
        f"{'(no type)' if entities and label == NO_TYPE else _on_one_line(label)}"
        f" {' / '.join(f'{of[label]:,}' for of in counts.values())}"
        for label in list(labels)[:_MOST_NAMED]
    ]
    more = f" and {len(labels) - _MOST_NAMED:,} more" if len(labels) > _MOST_NAMED else ""
    kinds = ("entity type", "entity types") if entities else ("class", "classes")
    what = counted(len(labels), *kinds)
    return [f"{what} ({' / '.join(counts)}): {'; '.join(named)}{more}"]


def _on_one_line(label: str) -> str:
    """Returns the label, written as JSON if it has tabs or line ends."""
    return label if label.isprintable() else to_json(label)


def spelling_key(label: str) -> Any:
    """Returns what labels have in common that differ only in spelling: letter case, the width of
    characters, spaces or hyphens between words, the way a number is written.
    """
    text = unicodedata.normalize("NFKC", label).strip().casefold()
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text):
        return float(text)
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text)


def find_twins(counts: Mapping[str, int]) -> list[dict[str, int]]:
    """Groups labels that differ only in spelling, the most frequent spelling first."""
    groups: dict[Any, dict[str, int]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        groups.setdefault(spelling_key(label), {})[label] = counts[label]
    return [group for group in groups.values() if len(group) > 1]


def describe_twins(counts: Mapping[str, int], way_out: str) -> list[str]:
    """Warns of labels that differ only in spelling.

    Args:
        counts: the labels' counts.
        way_out: how to make them one.
    """
    if not (twins := find_twins(counts)):
        return []
    groups = "; ".join(
        " and ".join(f"{label!r} ({number:,})" for label, number in group.items())
        for group in twins[:_MOST_NAMED]
    )
    return [
        f"WARNING: classes that differ only in spelling stay apart: {groups}. If they are"
        f" the same, {way_out}"
    ]


def merge_spellings(counts: Mapping[str, int], labels: Sequence[str]) -> dict[str, str]:
    """Maps each label to one spelling of those that differ only in spelling.

    Args:
        counts: the labels' counts.
        labels: the names to keep; without any, the most frequent spelling of each.
    """
    kept: dict[Any, str] = {spelling_key(label): label for label in labels}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        kept.setdefault(spelling_key(label), label)
    return {label: label if label in labels else kept[spelling_key(label)] for label in counts}

"""The names of the classes and tags of a task, in the order of their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.tagged_sentences import TaggedSentence
from bertjax.tasks.tagging_schemes import (
    NO_TYPE,
    OUTSIDE,
    Scheme,
    TagError,
    TagReading,
    are_entity_tags,
    recognise_scheme,
)


def check_labels(
    train: Sequence[TextExample],
    validation: Sequence[TextExample] = (),
    test: Sequence[TextExample] = (),
    labels: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their numbers.

    Args:
        train: examples with classes or with sets of labels.
        validation: examples whose labels must all occur in train.
        test: the same.
        labels: the names in order, if given; each needs a training example.

    Returns:
        The given names; else those of train, sorted, numbers by value.

    Raises:
        UserError: train lacks a label, which is named with its place; a class has no training
            example; there are fewer than two classes.
    """
    seen = {label: example.place for example in reversed(train) for label in _labels_of(example)}
    if labels is not None:
        if unknown := [label for label in seen if label not in labels]:
            raise UserError(
                f"{seen[unknown[0]]}: the label {unknown[0]!r} is not among labels={list(labels)}"
                f"{nearest(unknown[0], list(labels))}; name it there, or correct it here"
            )
        if empty := [label for label in labels if label not in seen]:
            raise UserError(
                f"empty class: no training example has the label {empty[0]!r} of labels; "
                "add examples of it, or remove it from the list"
            )
    for name, examples in (("validation", validation), ("test", test)):
        for example in examples:
            for label in _labels_of(example):
                if label not in seen:
                    raise UserError(
                        f"{example.place}: the label {label!r} is in {name} but in no training "
                        f"example{nearest(label, list(seen))}; add examples of it to train, leave "
                        "this one out, or correct the label"
                    )
    one_each = all(isinstance(example.label, str) for example in train)
    if len(seen) < (2 if one_each else 1):
        only = "".join(f", {label!r}" for label in seen)
        raise UserError(
            f"a single class{only}: at least two classes need "
            "training examples (is the label column the right one?)"
            if one_each
            else "no training example has a label (are the label columns the right ones?)"
        )
    return tuple(labels) if labels is not None else tuple(sorted(seen, key=_by_size(seen)))


def _labels_of(example: TextExample) -> tuple[str, ...]:
    return (example.label,) if isinstance(example.label, str) else example.label or ()


def _by_size(labels: Mapping[str, str]) -> Any:
    """Returns the key to sort by: the number if every label is one, else the name."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return str
    return lambda label: (numbers[label], label)


def check_tags(
    train: Sequence[TaggedSentence],
    validation: Sequence[TaggedSentence] = (),
    test: Sequence[TaggedSentence] = (),
    labels: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Returns the names of the tags, in the order of their numbers.

    Returns:
        The given labels; else, for entities, O and then B- and I- of each type of train, by name;
        for other tags those of train, sorted.

    Raises:
        UserError: train lacks a type or tag, which is named with its place; one is not among the
            given labels; some files mark entities and others do not.
    """
    splits = (train, validation, test)
    every = {tag for split in splits for sentence in split for tag in sentence.tags}
    if every == {OUTSIDE}:
        raise UserError(
            "every tag is O: no sentence marks an entity, and there is nothing to learn (is the"
            " tag column the right one?)"
        )
    entities = are_entity_tags(every)

    def kinds(sentence: TaggedSentence) -> TextExample:
        tags = sentence.tags
        if entities:
            tags = tuple(tag[2:] for tag in tags if tag != OUTSIDE)
        return TextExample(sentence.place, sentence.text, None, tuple(dict.fromkeys(tags)))

    names = check_labels(*([kinds(sentence) for sentence in split] for split in splits))
    if entities and names == (NO_TYPE,):
        names = (OUTSIDE, "B", "I")
    elif entities:
        names = (OUTSIDE, *(f"{letter}-{name}" for name in names for letter in "BI"))
    if labels is None:
        return names
    reading = read_label_names(labels, None if entities else "none")
    for split in splits:
        for sentence in split:
            for tag in reading.from_iob2(sentence.tags):
                if tag not in labels:
                    raise UserError(
                        f"{sentence.place}: the tag {tag!r} is not among labels={list(labels)}"
                        f"{nearest(tag, list(labels))}; name it there (entities are IOB2: B-TYPE, "
                        "I-TYPE, O), or correct it in this sentence"
                    )
    return tuple(labels)


def read_label_names(labels: Sequence[str], scheme: Scheme | None = None) -> TagReading:
    """Finds how the names of a model's tags mark entities.

    Names without a letter are the types of entities where O is among them and each of the others is
    a word: sets of parts of speech that have an O (Gimpel et al. 2011) have letters alone.

    Args:
        labels: the names.
        scheme: which names without a letter are said to have.
    """
    types = [label for label in labels if label.upper() != OUTSIDE]
    try:
        reading = recognise_scheme([labels])
    except TagError:
        return TagReading("none", "TYPE")
    if not types:
        return TagReading("none", "TYPE")
    if reading.is_weak:
        are_types = len(types) < len(labels) and all(len(label) > 1 for label in types)
        if scheme in ("IO", "none"):
            are_types = scheme == "IO"
        return TagReading("IO" if are_types else "none", "TYPE")
    # B- and I- alone: names alone do not distinguish IOB1 from IOB2.
    return reading._replace(scheme="IOB2") if reading.scheme == "IOB1" else reading

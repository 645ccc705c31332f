"""Multiple choice: questions with several answers, one of them right, as in SWAG, RACE and
others.

    read_choice_questions(names, config)  -> the questions of some files
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.record_config import Record, RecordConfig, shown
from bertjax.text.records import find_record_files, read_records

# Names of the parts, in the order of preference.
CONTEXTS = ("context", "premise", "passage", "article")
CHOICES = ("choices", "options", "endings")
LABELS = ("label", "answer")

# What a question of RACE has in place of the choice.
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")


class ChoiceQuestion(NamedTuple):
    """A question with several choices.

    place: `file:line`, for messages.
    context: the first text for the model.
    choices: the second texts, one at a time: each with the question that it answers.
    label: the right one, from 0; None in a file that is read without labels.
    record: everything the file has of it, for output.
    """

    place: str
    context: str
    choices: tuple[str, ...]
    label: int | None
    record: Mapping[str, Any] | None = None


def read_choice_questions(
    names: Sequence[str], config: RecordConfig, labelled: bool = True
) -> list[ChoiceQuestion]:
    """Reads the questions of files, in order.

    Three forms are recognised by their fields:

        SWAG      sent1, sent2, ending0, ending1, ..., label      choice: sent2, ending
        RACE      article, question, options, answer A to D       choice: question, option
        others    context, premise or passage; question where there is one;
                  choices, options or endings; label or answer

    A choice replaces a word `_` of its question, otherwise it follows the question.
    A label is a number from 0 or a letter from A.

    Args:
        names: files, folders, globs, `dataset:NAME`.
        config: how the files are read.
        labelled: False: labels are not read.

    Raises:
        UserError: with file and line, where a field is missing or of another kind, a question has
            fewer than two choices, or a label is none of them; and where `read_records` raises.

    Source: Zellers et al. 2018 (SWAG); Lai et al. 2017 (RACE); Devlin et al. 2019, section 4.4.
    """
    streams.check_encoding(config.encoding)
    questions = [
        _question(record, labelled)
        for source in find_record_files(names, config)
        for record in read_records(source, config)
    ]
    if not questions:
        raise UserError(f"{', '.join(names)}: no questions")
    return questions


def _question(record: Record, labelled: bool) -> ChoiceQuestion:
    place, values = record
    if "sent1" in values:
        context = _text(place, values, "sent1")
        question = _text(place, values, "sent2")
        choices = _endings(place, values)
    else:
        context = _text(place, values, _present(place, values, CONTEXTS))
        question = _text(place, values, "question") if "question" in values else ""
        choices = _list(place, values, _present(place, values, CHOICES))
    if len(choices) < 2:
        raise UserError(f"{place}: a question needs at least two choices, this has {len(choices)}")
    joined = tuple(_join(question, choice) for choice in choices)
    label = None
    if labelled:
        label = _label(place, values, _present(place, values, LABELS), len(choices))
    return ChoiceQuestion(place, context, joined, label, values)


def _present(place: str, values: Mapping[str, Any], known: tuple[str, ...]) -> str:
    """Returns the one of the known names that the record has."""
    given = [name for name in known if name in values]
    if len(given) != 1:
        what = f"both {' and '.join(map(repr, given))}" if given else f"none of {', '.join(known)}"
        raise UserError(
            f"{place}: a question has one of {', '.join(known)}; this record has {what}, its "
            f"fields are {', '.join(map(repr, values))}"
        )
    return given[0]


def _text(place: str, values: Mapping[str, Any], name: str) -> str:
    if not isinstance(values.get(name), str):
        raise UserError(f"{place}: {name!r} is {shown(values.get(name))}, not text")
    return values[name]


def _endings(place: str, values: Mapping[str, Any]) -> list[str]:
    names = sorted(
        (name for name in values if name.startswith("ending") and name[6:].isdecimal()),
        key=lambda name: int(name[6:]),
    )
    if names != [f"ending{number}" for number in range(len(names))]:
        raise UserError(f"{place}: the endings are {', '.join(names)}; they count from ending0")
    return [_text(place, values, name) for name in names]


def _list(place: str, values: Mapping[str, Any], name: str) -> list[str]:
    value = values[name]
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise UserError(f"{place}: {name!r} is {shown(value)}, not a list of texts")
    return value


def _join(question: str, choice: str) -> str:
    if _BLANK.search(question):
        return _BLANK.sub(lambda _: choice, question)
    return f"{question} {choice}".strip()


def _label(place: str, values: Mapping[str, Any], name: str, choices: int) -> int:
    value = values[name]
    number = value
    if isinstance(value, str):
        word = value.strip().upper()
        number = int(word) if word.isdecimal() else [*string.ascii_uppercase, word].index(word)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < choices:
        raise UserError(
            f"{place}: {name!r} is {shown(value)}, none of the {choices} choices: a number from 0 "
            f"to {choices - 1}, or a letter from A"
        )
    return number

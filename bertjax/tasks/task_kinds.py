"""The supervised tasks there are: how each is read, made and trained."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

from bertjax.config import BertConfig
from bertjax.tasks import choice_questions, conll, label_counts, label_names, labelled, squad
from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.columns import ColumnsConfig
from bertjax.tasks.data_config import DataConfig, TaskName, field_names
from bertjax.tasks.label_values import LabelKind
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.question_answering import QuestionAnswering
from bertjax.tasks.regression import Regression
from bertjax.tasks.tagged_sentences import TaggedConfig
from bertjax.tasks.tagging import Tagging
from bertjax.tasks.tagging_schemes import Scheme
from bertjax.tasks.task import Task
from bertjax.text.delimiters import describe_delimiters
from bertjax.text.record_config import RecordConfig
from bertjax.text.records import find_record_files
from bertjax.text.tables import is_quoted, quoting_way_out

_TSV_LINE = re.compile(r"\.tsv(\.gz)?:\d+$", re.IGNORECASE)


class ReadExamples(NamedTuple):
    """Examples, notes on them, and how other files of the same kind are to be read."""

    examples: list[Any]
    notes: list[str]
    config: DataConfig


def _read_tags(files: Sequence[str], config: DataConfig, with_labels: bool) -> ReadExamples:
    read = conll.read_sentences(files, config, with_labels)
    weak = {reading.scheme for reading in read.readings.values() if reading.is_weak}
    if config.scheme is None and len(weak) == 1:
        config = dataclasses.replace(config, scheme=weak.pop())
    notes = [*conll.describe_readings(read.readings), *read.notes]
    return ReadExamples(read.sentences, notes, config)


def _read_questions(files: Sequence[str], config: DataConfig, with_labels: bool) -> ReadExamples:
    questions, report = squad.read_questions(files, config, with_labels)
    return ReadExamples(questions, report.sentences(), config)


def _read_choices(files: Sequence[str], config: DataConfig, with_labels: bool) -> ReadExamples:
    questions = choice_questions.read_choice_questions(files, config, with_labels)
    return ReadExamples(
        questions, describe_delimiters(find_record_files(files, config), config), config
    )


def _read_texts(
    kind: LabelKind, files: Sequence[str], config: DataConfig, with_labels: bool
) -> ReadExamples:
    examples = labelled.read_examples(files, config, kind, with_labels)
    notes = describe_delimiters(find_record_files(files, config), config)
    notes += [*_tell_quoted(examples, config), *_tell_empty(examples, kind, with_labels)]
    if config.spelling == "merge" and with_labels:
        examples, config, more = _merge(examples, config)
        notes += more
    return ReadExamples(examples, notes, config)


def _merge(
    examples: list[TextExample], config: DataConfig
) -> tuple[list[TextExample], DataConfig, list[str]]:
    """Returns the examples with one spelling for each class, which the config then names."""
    counts = label_counts.count_labels(examples)
    names = label_counts.merge_spellings(counts, config.labels)
    merged = [
        example._replace(
            label=names[example.label]
            if isinstance(example.label, str)
            else tuple(dict.fromkeys(names[label] for label in example.label))
        )
        for example in examples
    ]
    changed = [f"{old!r} to {new!r}" for old, new in sorted(names.items()) if old != new]
    notes = [f"classes are made one that differ in spelling only: {', '.join(changed)}"]
    if not config.labels:
        config = dataclasses.replace(config, labels=list(label_names.check_labels(merged)))
    return merged, config, notes if changed else []


def _tell_empty(examples: Sequence[TextExample], kind: LabelKind, with_labels: bool) -> list[str]:
    """Notes about examples without a text, or without any of several labels."""
    notes = []
    texts = [example for example in examples if not example.first.strip() or example.second == ""]
    if texts:
        notes.append(
            f"{texts[0].place}: here, and in {len(texts):,} of {len(examples):,} examples together,"
            " a text is empty"
        )
    bare = [each for each in examples if with_labels and not each.label] if kind == "set" else []
    if bare:
        notes.append(
            f"{bare[0].place}: here, and in {len(bare):,} of {len(examples):,} examples together,"
            " there is no label; they are learned as examples of none"
        )
    return notes


def _tell_quoted(examples: Sequence[TextExample], config: DataConfig) -> list[str]:
    """Notes quotation marks around texts and labels, of .tsv files of which nobody said
    whether they belong to them.
    """
    if config.quoting is not None:
        return []
    cells = [(example, (example.first, example.second, example.label)) for example in examples]
    quoted = [
        example.place
        for example, parts in cells
        if any(isinstance(part, str) and is_quoted(part.strip()) for part in parts)
        and _TSV_LINE.search(example.place)
    ]
    if not quoted:
        return []
    return [
        f"{quoted[0]}: here, and in {len(quoted):,} of {len(examples):,} examples together, a text"
        " or label is in quotation marks, which are characters like any in .tsv and were kept;"
        f" {quoting_way_out(config)} (none: they belong to the texts)"
    ]


class TaskKind(NamedTuple):
    """A supervised task: how it is read, made and trained.

    Attributes:
        options: the fields of a `DataConfig` that say how its files are read.
        read: of files, a config, and whether labels are read.
        texts_of: what distinguishes examples when they are split: texts, sentences, contexts.
        make: the task that the examples of train, validation and test ask for.
        of_model: the task that a model with this config is for, and the scheme of its tags.
        smooth: the task with a share of each target spread over the labels; None where there are no
            labels.
    """

    options: Set[str]
    read: Callable[[Sequence[str], DataConfig, bool], ReadExamples]
    texts_of: Callable[[Any], Sequence[str | None]]
    make: Callable[[Sequence[Sequence[Any]], DataConfig], Task]
    of_model: Callable[[BertConfig, Scheme | None], Task]
    smooth: Callable[[Any, float], Task] | None = None


def _both_texts(example: TextExample) -> Sequence[str | None]:
    return example.first, example.second


def _context(question: Any) -> Sequence[str | None]:
    return (question.context,)


def _labels(splits: Sequence[Sequence[Any]], config: DataConfig) -> tuple[str, ...]:
    return label_names.check_labels(*splits, config.labels or None)


# Beside it: the task's name (`data_config.TaskName`), and which class of model is fitted to it
# (`architectures`).
TASK_KINDS: dict[TaskName, TaskKind] = {
    "classification": TaskKind(
        field_names(ColumnsConfig) - {"label_separator"},
        functools.partial(_read_texts, "class"),
        _both_texts,
        lambda splits, config: Classification(_labels(splits, config)),
        lambda config, scheme: Classification(config.id2label),
        lambda task, smoothing: Classification(task.labels, smoothing=smoothing),
    ),
    "multi-label": TaskKind(
        field_names(ColumnsConfig),
        functools.partial(_read_texts, "set"),
        _both_texts,
        lambda splits, config: MultiLabelClassification(_labels(splits, config)),
        lambda config, scheme: MultiLabelClassification(config.id2label),
        lambda task, smoothing: MultiLabelClassification(task.labels, smoothing),
    ),
    "regression": TaskKind(
        field_names(ColumnsConfig) - {"label_separator", "spelling", "labels"},
        functools.partial(_read_texts, "number"),
        _both_texts,
        lambda splits, config: Regression(),
        lambda config, scheme: Regression(config.id2label[0]),
    ),
    "tokens": TaskKind(
        field_names(TaggedConfig),
        _read_tags,
        lambda sentence: (sentence.text,),
        lambda splits, config: Tagging(
            label_names.check_tags(*splits, config.labels or None), scheme=config.scheme
        ),
        lambda config, scheme: Tagging(config.id2label, scheme=scheme),
        lambda task, smoothing: Tagging(task.labels, smoothing, task.scheme),
    ),
    "question-answering": TaskKind(
        {"encoding", "errors"},
        _read_questions,
        _context,
        lambda splits, config: QuestionAnswering(
            not any(question.is_impossible for split in splits for question in split)
        ),
        lambda config, scheme: QuestionAnswering(config.answerable),
    ),
    "multiple-choice": TaskKind(
        field_names(RecordConfig),
        _read_choices,
        _context,
        lambda splits, config: MultipleChoice(),
        lambda config, scheme: MultipleChoice(),
        lambda task, smoothing: MultipleChoice(smoothing),
    ),
}

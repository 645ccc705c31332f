"""Labelled data of any task: from the options of a program to examples in three splits."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.program.wording import counted, with_article
from bertjax.tasks import label_counts
from bertjax.tasks.classification import Classification
from bertjax.tasks.data_config import DataConfig, TaskName, check_options
from bertjax.tasks.hash_splits import split_by_hash
from bertjax.tasks.scores import scoring_library
from bertjax.tasks.tagging import Tagging
from bertjax.tasks.tagging_schemes import Scheme
from bertjax.tasks.task import Task
from bertjax.tasks.task_kinds import TASK_KINDS, ReadExamples

# The share of train that is held out, and how many examples it has to be. Fewer say next to
# nothing, and what they would have taught is lost. From fewer validation examples the loss, too,
# chooses badly: it prefers a model that has hardly begun to one that is sometimes too sure.
DEFAULT_SHARE, LEAST_HELD_OUT = 0.1, {"validation": 25, "test": 10}


class TaskData(NamedTuple):
    """A task and its examples.

    Attributes:
        task: with the labels of the examples.
        train, validation, test: the examples; validation and test may be empty.
        notes: a sentence for everything that is not as the files have it, and the classes.
        config: how other files are to be read as these were.
    """

    task: Task
    train: list[Any]
    validation: list[Any]
    test: list[Any]
    notes: list[str]
    config: DataConfig

    def fingerprint(self) -> str:
        """Computes the sha256 of what is learned from, wherever and beside whatever it is."""
        splits = [[_content_of(example) for example in split] for split in self[1:4]]
        content = repr((self.task.name, self.task.model_fields(), *splits))
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def task_to_train(
        self, smoothing: float = 0.0, class_weights: Literal["none", "balanced"] = "none"
    ) -> Task:
        """Returns the task as it is trained; `task` itself, which is scored, has the plain loss.

        Args:
            smoothing: label smoothing.
            class_weights: balanced = inversely proportional to the number of a class's examples.

        Raises:
            UserError: one of the two is not for this task.
        """
        task = self.task
        if class_weights != "none" and not isinstance(task, Classification):
            raise UserError(
                f"class_weights={class_weights} is for task=classification, not for"
                f" task={task.name}; leave it out"
            )
        smooth = TASK_KINDS[task.name].smooth
        if smoothing and smooth is None:
            raise UserError(
                f"label_smoothing={smoothing} spreads the target over labels, and"
                f" task={task.name} has none; leave it out"
            )
        if class_weights == "balanced":
            compute = scoring_library("sklearn.utils.class_weight").compute_class_weight
            given = [example.label for example in self.train]
            weights = compute("balanced", classes=np.array(task.labels), y=given)
            return Classification(task.labels, weights, smoothing)
        return smooth(task, smoothing) if smoothing else task

    def describe(self, config: DataConfig) -> list[str]:
        """Describes each split in a line: where it comes from, how many examples.

        Args:
            config: that it was read by.
        """
        lines = []
        for split in ("train", "validation", "test"):
            files = getattr(config, split)
            if not files and not getattr(self, split):
                lines.append(f"{split}: none")
                continue
            where = ", ".join(files) if files else f"a share of {', '.join(config.train)}, by hash"
            lines.append(f"{split}: {len(getattr(self, split)):,} examples ({where})")
        return lines


def _content_of(example: Any) -> Any:
    """Returns the example without its place and what else its file has of it."""
    rest = {name: None for name in ("record",) if hasattr(example, name)}
    return example._replace(place="", **rest)


def read_task_data(name: TaskName, config: DataConfig) -> TaskData:
    """Reads the files of all splits and makes the task that they ask for.

    Args:
        name: of the task.
        config: the files.

    Raises:
        UserError: what the readers raise; labels that do not fit together; an option that this task
            does not read.
    """
    if not config.train:
        raise UserError("data.train is empty; name the file to learn from with --data.train FILE")
    train, notes, config = _read(name, config.train, config)
    others: dict[str, list[Any]] = {}
    for split in ("validation", "test"):
        files = getattr(config, split)
        others[split], more = read_task_examples(name, files, config) if files else ([], [])
        notes += [note for note in more if note not in notes]
    shares, more = _choose_shares(config, len(train))
    notes += more
    if sum(shares) >= 1:
        raise UserError(
            f"data.validation_share={shares[0]} and data.test_share={shares[1]} leave nothing to"
            " learn from; their sum must be below 1"
        )
    if any(shares):
        splits = split_by_hash(
            train, (1 - sum(shares), *shares), texts_of=TASK_KINDS[name].texts_of
        )
        train = splits.train
        others["validation"] = others["validation"] or splits.validation
        others["test"] = others["test"] or splits.test
    task = TASK_KINDS[name].make((train, others["validation"], others["test"]), config)
    classes = describe_classes(task, {"train": train, **others}, config)
    return TaskData(task, train, others["validation"], others["test"], [*notes, *classes], config)


def describe_classes(
    task: Task, splits: Mapping[str, Sequence[Any]], config: DataConfig
) -> list[str]:
    """Describes the classes of the examples, their counts, and which may be the same."""
    entities = isinstance(task, Tagging) and task.main_score == "f1"
    lines = label_counts.describe_labels(splits, entities=entities)
    counts = label_counts.count_labels(example for part in splits.values() for example in part)
    way_out = "write them alike in the files"
    if entities:
        counts = label_counts.count_kinds(counts)
    elif not isinstance(task, Tagging):
        way_out += f", or make one of them with {config.option('spelling')} merge"
    return [*lines, *label_counts.describe_twins(counts, way_out)]


def _choose_shares(config: DataConfig, examples: int) -> tuple[list[float], list[str]]:
    """Chooses the shares of train for validation and test; notes where they are unusual."""
    splits = [split for split in LEAST_HELD_OUT if not getattr(config, split)]
    asked = {split: getattr(config, f"{split}_share") for split in splits}
    few = [
        split
        for split, share in asked.items()
        if share is None and DEFAULT_SHARE * examples < LEAST_HELD_OUT[split]
    ]
    usual = {split: 0.0 if split in few else DEFAULT_SHARE for split in splits}
    chosen = {split: usual[split] if share is None else share for split, share in asked.items()}
    notes = []
    if few:
        notes.append(
            f"{counted(examples, 'example')}: a tenth of them is too few to measure by, so none"
            f" are held out for {' and '.join(few)}, and they are learned from; "
            + " and ".join(f"data.{split}_share" for split in few)
            + ", or files of their own, say otherwise"
        )
    return [chosen.get(split, 0.0) for split in ("validation", "test")], notes


def read_task_examples(
    name: TaskName, files: Sequence[str], config: DataConfig, *, with_labels: bool = True
) -> tuple[list[Any], list[str]]:
    """Returns the examples of some files, and a sentence for everything in them that was mended.

    Args:
        name: of the task.
        files: files, folders or globs.
        config: how they are read.
        with_labels: whether labels are read.

    Raises:
        UserError: what the readers raise; a field of the config that this task does not read.
    """
    examples, notes, _ = _read(name, files, config, with_labels=with_labels)
    return examples, notes


def _read(
    name: TaskName, files: Sequence[str], config: DataConfig, *, with_labels: bool = True
) -> ReadExamples:
    check_options(name, config, TASK_KINDS[name].options)
    return TASK_KINDS[name].read(files, config, with_labels)


def task_of_model(config: BertConfig, architecture: str, scheme: Scheme | None = None) -> Task:
    """Returns the task that a fine-tuned model is for.

    Args:
        config: of the model.
        architecture: its class.
        scheme: how files with its tags are read, where that is known.

    Raises:
        UserError: it is for none.
    """
    name = ARCHITECTURES[architecture].task_of(config.label_meaning)
    if name is not None:
        return TASK_KINDS[name].of_model(config, scheme)
    raise UserError(
        f"{with_article(architecture)} has no head of a supervised task; fit one with"
        " `bertjax finetune --model.init DIR`"
    )

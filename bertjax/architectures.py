"""The one table of model classes: what each is made of, answers with, and is fitted to."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bertjax.config import BertConfig, Kind
from bertjax.families.registry import FAMILIES
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

if TYPE_CHECKING:
    from flax import linen as nn

Output = Literal[
    "token",
    "next-sentence",
    "sentence-order",
    "replaced",
    "class",
    "tag",
    "start",
    "end",
    "choice",
    "hidden",
    "pooled",
]
# Outputs of one token; the others are of a whole example, read at its [CLS].
OF_A_TOKEN: tuple[Output, ...] = ("token", "replaced", "tag", "start", "end", "hidden")

BODY: Kind = "body"
PRETRAINING: Kind = "pretraining"
MASKED_LM: Kind = "masked-lm"
NEXT_SENTENCE: Kind = "next-sentence"
REPLACED_TOKENS: Kind = "replaced-tokens"


class _KindOfClass(NamedTuple):
    """What the classes of a kind have in common, whatever their family.

    Attributes:
        suffix: what the name of the module ends with, which families share, and of a class unless
            its family calls it otherwise (`BertConfig.SUFFIXES`).
        outputs: what they answer with.
        tasks: the supervised tasks that they are fitted to, by `BertConfig.label_meaning`; by ""
            where there is one, whatever the labels mean.
    """

    suffix: str
    outputs: tuple[Output, ...]
    tasks: Mapping[str, str] = MappingProxyType({})


# Source: transformers' modeling_bert.py.
_KINDS: dict[Kind, _KindOfClass] = {
    BODY: _KindOfClass("Model", ("hidden", "pooled")),
    PRETRAINING: _KindOfClass("ForPreTraining", ("token", "next-sentence")),
    MASKED_LM: _KindOfClass("ForMaskedLM", ("token",)),
    NEXT_SENTENCE: _KindOfClass("ForNextSentencePrediction", ("next-sentence",)),
    "sentence-order": _KindOfClass("ForSentenceOrder", ("token", "sentence-order")),
    REPLACED_TOKENS: _KindOfClass("ForReplacedTokenDetection", ("replaced",)),
    "sequence": _KindOfClass(
        "ForSequenceClassification",
        ("class",),
        {
            "single_label_classification": "classification",
            "multi_label_classification": "multi-label",
            "regression": "regression",
        },
    ),
    "tokens": _KindOfClass("ForTokenClassification", ("tag",), {"": "tokens"}),
    "spans": _KindOfClass("ForQuestionAnswering", ("start", "end"), {"": "question-answering"}),
    "choice": _KindOfClass("ForMultipleChoice", ("choice",), {"": "multiple-choice"}),
}


class Architecture(NamedTuple):
    """A class of model.

    Attributes:
        name: as config.json has it under "architectures".
        family: a key of `FAMILIES`.
        kind: what it is for.
        parts: what stands on the encoder, by the name of its parameters.
    """

    name: str
    family: str
    kind: Kind
    parts: tuple[str, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What it answers with; a body without a pooler has no pooled vector."""
        lacking = "pooled" if "pooler" not in self.parts else None
        return tuple(output for output in _KINDS[self.kind].outputs if output != lacking)

    @property
    def module(self) -> type["nn.Module"]:
        """The class of `model.bert`, which all families share."""
        from bertjax.model import bert  # flax takes seconds, and most who ask here want names

        return getattr(bert, f"Bert{_KINDS[self.kind].suffix}")

    @property
    def head(self) -> str:
        """The part that answers, of several the last; "" for a bare body."""
        return "".join(self.parts[-1:])

    @property
    def is_of_tokens(self) -> bool:
        """Whether its head answers for every token, not for every example."""
        return all(output in OF_A_TOKEN for output in self.outputs)

    def task_of(self, label_meaning: str) -> str | None:
        """Returns the supervised task that a model of this class is for; None for none."""
        tasks = _KINDS[self.kind].tasks
        return tasks.get(label_meaning, tasks.get(""))


ARCHITECTURES = {
    architecture.name: architecture
    for family in FAMILIES.values()
    for kind, parts in family.config.PARTS.items()
    for architecture in [
        Architecture(
            family.prefix + family.config.SUFFIXES.get(kind, _KINDS[kind].suffix),
            family.name,
            kind,
            parts,
        )
    ]
}


def classes_of(config: BertConfig) -> dict[Kind, Architecture]:
    """Returns the classes of a config's family, by kind."""
    return {its.kind: its for its in ARCHITECTURES.values() if its.family == config.MODEL_TYPE}


def find_architecture(name: str, config: BertConfig) -> Architecture:
    """Returns the class of a name or of a kind, of a config's family.

    The kind "pretraining" is, in families that have no such class, the one that is pretrained.

    Raises:
        UserError: the family has no such class.
    """
    classes = classes_of(config)
    if name == PRETRAINING:
        return classes[config.pretraining]
    by_name = {its.name: its for its in classes.values()}
    if name not in classes and name not in by_name:
        raise UserError(
            f"architecture={name!r} is not one of {', '.join(by_name)}"
            f"{nearest(name, list(by_name))}"
        )
    return by_name.get(name) or classes[name]


def kind_of(task: str) -> Kind:
    """Returns the kind of class that is fitted to a supervised task."""
    return next(kind for kind, one in _KINDS.items() if task in one.tasks.values())


def is_exported(module: Any) -> bool:
    """Returns whether this is no class of `model.bert` but an exported model in its place."""
    return getattr(module, "is_exported", False)


def kind_of_module(module: "nn.Module") -> Kind:
    """Returns the kind of a model of `model.bert`, or of an exported one, which says it."""
    if is_exported(module):
        return module.kind
    suffix = type(module).__name__.removeprefix("Bert")
    return next(kind for kind, one in _KINDS.items() if one.suffix == suffix)

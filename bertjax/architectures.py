"""The one table of model classes: what each is made of, answers with, and is fitted to."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from flax import linen as nn

Output = Literal[
    "token", "next-sentence", "class", "tag", "start", "end", "choice", "hidden", "pooled"
]
# Outputs of one token; the others are of a whole example, read at its [CLS].
OF_A_TOKEN: tuple[Output, ...] = ("token", "tag", "start", "end", "hidden")


class Architecture(NamedTuple):
    """A class of model.

    Attributes:
        name: as config.json has it under "architectures", and as the class is called in
            `model.bert`.
        parts: what stands on the encoder, by the name of its parameters.
        outputs: what it answers with.
        tasks: the supervised tasks that it is fitted to, by `BertConfig.label_meaning`; by "" where
            there is one, whatever the labels mean.
    """

    name: str
    parts: tuple[str, ...]
    outputs: tuple[Output, ...]
    tasks: Mapping[str, str] = MappingProxyType({})

    @property
    def module(self) -> type["nn.Module"]:
        """The class itself."""
        from bertjax.model import bert  # flax takes seconds, and most who ask here want names

        return getattr(bert, self.name)

    @property
    def is_of_tokens(self) -> bool:
        """Whether its head answers for every token, not for every example."""
        return all(output in OF_A_TOKEN for output in self.outputs)

    def task_of(self, label_meaning: str) -> str | None:
        """Returns the supervised task that a model of this class is for; None for none."""
        return self.tasks.get(label_meaning, self.tasks.get(""))


BODY = Architecture("BertModel", ("pooler",), ("hidden", "pooled"))
PRETRAINING = Architecture(
    "BertForPreTraining", ("pooler", "mlm_head", "nsp_head"), ("token", "next-sentence")
)
MASKED_LM = Architecture("BertForMaskedLM", ("mlm_head",), ("token",))
NEXT_SENTENCE = Architecture(
    "BertForNextSentencePrediction", ("pooler", "nsp_head"), ("next-sentence",)
)

# Source: transformers' modeling_bert.py.
ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        BODY,
        PRETRAINING,
        MASKED_LM,
        NEXT_SENTENCE,
        Architecture(
            "BertForSequenceClassification",
            ("pooler", "sequence_head"),
            ("class",),
            {
                "single_label_classification": "classification",
                "multi_label_classification": "multi-label",
                "regression": "regression",
            },
        ),
        Architecture("BertForTokenClassification", ("token_head",), ("tag",), {"": "tokens"}),
        Architecture(
            "BertForQuestionAnswering",
            ("span_head",),
            ("start", "end"),
            {"": "question-answering"},
        ),
        Architecture(
            "BertForMultipleChoice",
            ("pooler", "choice_head"),
            ("choice",),
            {"": "multiple-choice"},
        ),
    )
}


def architecture_of(task: str) -> str:
    """Returns the name of the class that is fitted to a supervised task."""
    return next(name for name, one in ARCHITECTURES.items() if task in one.tasks.values())

"""What a report is about, and what a survey of it is: a section with its name and its progress."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import randomize
from bertjax.analysis.heads.objective import Objective, masked_language_objective
from bertjax.analysis.report.data import ReportData
from bertjax.analysis.report.treebank_plan import TreebankPlan
from bertjax.architectures import BODY
from bertjax.loaded import Model

Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and what it is measured on.

    Attributes:
        model: the model, of the class that its checkpoint has.
        texts: what is measured on raw texts is measured on these.
        shown: those whose attention the page shows.
        seed: of the random control.
        treebank: the studies of a treebank; None without one.
        task_objective: the loss of a fine-tuned model on labelled examples; None without them.
        loss: what importance is measured by, for instance "masked-LM loss".
    """

    model: Model
    texts: Sequence[EncodedText]
    shown: Sequence[EncodedText]
    seed: int = 0
    treebank: TreebankPlan | None = None
    task_objective: Objective | None = None
    loss: str = "masked-LM loss"

    @functools.cached_property
    def body(self) -> Model:
        """The encoder alone."""
        return self.model.as_architecture(BODY)

    @functools.cached_property
    def control(self) -> Model:
        """The encoder with random weights, with which figures are compared."""
        return randomize(self.body, self.seed)

    @functools.cached_property
    def objective(self) -> Objective | None:
        """What heads can be important for; None where there is nothing to measure it by.

        Raises:
            UserError: no token of the texts can be masked.
        """
        if self.task_objective is None and self.model.restores_words:
            return masked_language_objective(self.model, self.texts, self.seed)
        return self.task_objective

    @property
    def layers(self) -> tuple[str, ...]:
        """Labels of the hidden states: the embeddings' output, then every layer's, from 0."""
        return ("embeddings", *map(str, range(self.model.config.num_hidden_layers)))


class Survey(NamedTuple):
    """A section of the report.

    Attributes:
        name: for progress and notes.
        total: what the progress of `measure` adds up to; 0 where the subject has nothing for it.
            Raises a UserError where the data are too few.
        measure: returns the section, a `ReportData` without a title.
    """

    name: str
    total: Callable[[Subject], int]
    measure: Callable[[Subject, Progress], ReportData]

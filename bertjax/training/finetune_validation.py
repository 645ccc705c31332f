"""The validation split of a fine-tuning run: scored now and then, its best model kept."""

import sys
import time

import jax

from bertjax.architectures import kind_of
from bertjax.inference.task_outputs import Inference
from bertjax.interop.huggingface import save_model_directory
from bertjax.model.heads import fold_batch_norm
from bertjax.tasks import data_format
from bertjax.tasks.reading import TaskData
from bertjax.tasks.scoring import describe_task_scores, single_scores
from bertjax.tasks.selection import Evaluation, Selection, evaluate_checkpoint, select
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.finetune_plan import Start
from bertjax.training.session import Session
from bertjax.training.state import TrainState


class Validation:
    """Scores states on the validation split, and keeps the best as the run's model.

    Attributes:
        score_name: the score that chooses.
        evaluations: of the run so far, those before it was continued included.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        data: TaskData,
        start: Start,
        inference: Inference,
        session: Session,
    ) -> None:
        self.score_name = config.scoring.score or data.task.main_score
        self.evaluations = [
            Evaluation(*values) for values in session.remembered.get("evaluations", [])
        ]
        session.remembered["evaluations"] = self.evaluations
        self._config, self._data, self._units = config, data, start.validation.units
        self._begun_from = start.model.directory
        self._inference, self._session = inference, session

    @property
    def selection(self) -> Selection | None:
        """Which state is kept; None before the first evaluation."""
        return select(self.evaluations)

    @property
    def ends(self) -> bool:
        """Whether the run's patience is at its end."""
        selection = self.selection
        return bool(selection) and 0 < self._config.scoring.patience <= selection.unimproved

    def __call__(self, state: TrainState) -> bool:
        """Scores a state, and keeps it if it is the best; returns whether the run ends here."""
        session, examples = self._session, self._data.validation
        step, started = int(state.step), time.perf_counter()
        outputs = self._inference.run({"params": state.params, **state.statistics}, self._units)
        task = self._data.task
        predictions = task.decode(examples, self._units, outputs.logits)
        loss, scores = float(outputs.loss.mean()), task.score(examples, predictions)
        self.evaluations.append(
            evaluate_checkpoint(step, self.score_name, loss, scores, task, examples, predictions)
        )
        selection = select(self.evaluations)
        is_kept = selection.kept.step == step
        single = single_scores({"loss": loss, **scores})
        verdict = {"kept": float(is_kept)}
        if self.score_name != "loss" and self.evaluations[-1].error < sys.float_info.max:
            verdict["standard_error"] = self.evaluations[-1].error
        timing = {"seconds": time.perf_counter() - started}
        session.metrics.write(step, "validation", {**single, **verdict}, timing)
        said = describe_task_scores(single)
        session.say(f"step {step}: validation {said}{'; kept as the best' * is_kept}")
        if is_kept:
            self.save(state)
            session.keep(state, float(-selection.changes))
        return self.ends

    def save(self, state: TrainState) -> None:
        """Saves a state as the run's model."""
        model, folder = self._inference.model, self._session.run / "model"
        saved = fold_batch_norm(model.config, jax.device_get(state.params), state.statistics)
        kind = kind_of(self._data.task.name)
        save_model_directory(folder, *saved, self._begun_from, kind)
        data_format.remember(folder, self._data.config)

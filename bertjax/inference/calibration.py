"""A temperature for the probabilities of a fitted model, from labelled examples that it has not
learned from.

    probabilities = softmax(logits / temperature)      of classes, choices and tags
    probability   = sigmoid(logit / temperature)       of each of several labels

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.architectures import ARCHITECTURES
from bertjax.inference.labelled import Labelled
from bertjax.inference.task_outputs import Outputs, check_finite, make_inference
from bertjax.interop.temperature import check_writable, fold_temperature, write_temperature
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.tasks import scores
from bertjax.tasks.scores import scoring_library
from bertjax.tasks.units import Unit

# Temperatures beyond these mean that there is nothing to fit.
LEAST, MOST = 0.05, 20.0
# How far logits may be from those of the temperature, in shares of the largest: ten times what
# products in bfloat16 round.
_MOST_ROUNDED = 0.05
# The tasks whose answers have probabilities that a temperature changes alone.
TASKS = ("classification", "multi-label", "tokens", "multiple-choice")


class Decisions(NamedTuple):
    """The logits of everything that a model decides, and what is right.

    Attributes:
        logits: of each decision; -inf where one has fewer alternatives than others.
        gold: the number of the right alternative.
    """

    logits: Float[np.ndarray, "M C"]
    gold: Int[np.ndarray, " M"]

    def probabilities(self, temperature: float = 1.0) -> Float[np.ndarray, "M C"]:
        """Returns the probability of each alternative.

        Args:
            temperature: above 0.
        """
        return np.exp(self._log_probabilities(temperature))

    def log_loss(self, temperature: float = 1.0) -> float:
        """Returns the mean of -log probability of what is right, in nats.

        Args:
            temperature: above 0.
        """
        logs = self._log_probabilities(temperature)
        return float(-logs[np.arange(len(self.gold)), self.gold].mean())

    def calibration_error(self) -> float:
        """Returns the expected calibration error (`scores.calibration_error`)."""
        return scores.calibration_error(self.gold, self.probabilities())

    def _log_probabilities(self, temperature: float) -> Float[np.ndarray, "M C"]:
        logits = self.logits / temperature
        logits = logits - logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def fit_temperature(decisions: Decisions) -> float:
    """Finds the temperature with the least log loss.

    Args:
        decisions: on examples that the model was not fitted on.

    Raises:
        UserError: no temperature within the bounds is best: the examples say nothing about it.
    """
    optimize = scoring_library("scipy.optimize")
    found = optimize.minimize_scalar(
        lambda logarithm: decisions.log_loss(float(np.exp(logarithm))),
        bounds=(np.log(LEAST), np.log(MOST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    if not LEAST * 1.01 < temperature < MOST / 1.01:
        right = int((decisions.logits.argmax(axis=-1) == decisions.gold).sum())
        raise UserError(
            f"no temperature from {LEAST:g} to {MOST:g} is best for these examples, of which"
            f" {right:,} of {counted(len(decisions.gold), 'answer')} are right; give more examples,"
            " which the model was not fitted on"
        )
    return temperature


def calibrate_directory(
    model: Model,
    labelled: Labelled,
    max_length: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Mapping[str, Any]:
    """Fits a temperature to a model on labelled examples, and keeps it in the model's directory.

    Whatever loads the directory from now on has the calibrated probabilities.

    Args:
        model: from a directory.
        labelled, max_length, progress: as of `calibrate`.

    Returns:
        What the directory has of it (`Model.calibration`).

    Raises:
        UserError: what `calibrate` raises, or the directory cannot be written.
    """
    head, directory = _check(model, labelled), model.directory
    if directory is None:
        raise UserError(
            "a temperature is kept in the directory of a model, and this has none of its own; save"
            " the model first"
        )
    check_writable(directory, model.config, head)
    calibrated, temperature = calibrate(model, labelled, max_length, progress)
    write_temperature(directory, model.config, head, temperature, calibrated.calibration)
    return calibrated.calibration


def calibrate(
    model: Model,
    labelled: Labelled,
    max_length: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Model, float]:
    """Fits a temperature to a model on labelled examples.

    It is folded into the last layer of the head (`interop.temperature`). The most probable answer
    is the same as before. A second time, it is on top of the first.

    Args:
        model: fitted to a task.
        labelled: examples of its task which it was not fitted on (`read_labelled`).
        max_length: longest sequence in tokens; the model's positions when left out.
        progress: called with the number of examples done since the last call, each of them twice.

    Returns:
        The model with it, in memory, and the temperature, on top of one that it had before. Its
        `calibration` has `temperature`, of both; `log_loss` (nats) and `calibration_error`, before
        and after, on these examples; `examples`, `data`.

    Raises:
        UserError: the task has no such probabilities, the model was exported, or the examples say
            nothing about a temperature.
    """
    head = _check(model, labelled)
    decided = _decide(model, labelled, max_length, progress)
    if not len(decided.gold):
        raise UserError(f"{', '.join(labelled.names)}: there is no label to fit a temperature to")
    temperature = fit_temperature(decided)
    params = fold_temperature(model.params, head, temperature)
    # On the devices where it was before.
    on_devices = jax.tree.map(
        lambda new, old: jax.device_put(new, getattr(old, "sharding", None)),
        params[head],
        dict(model.params[head]),
    )
    cooled = model.replace(params={**params, head: on_devices})
    calibrated = _decide(cooled, labelled, max_length, progress)
    expected = decided.logits / temperature
    rounded = _MOST_ROUNDED * np.abs(expected[np.isfinite(expected)]).max()
    if not np.allclose(calibrated.logits, expected, rtol=0, atol=rounded):
        raise RuntimeError("the logits of the calibrated head are not those of the temperature")
    record = {
        "temperature": temperature * model.calibration.get("temperature", 1.0),
        "log_loss": {"before": decided.log_loss(), "after": calibrated.log_loss()},
        "calibration_error": {
            "before": decided.calibration_error(),
            "after": calibrated.calibration_error(),
        },
        "changed_answers": int(
            (decided.logits.argmax(axis=-1) != calibrated.logits.argmax(axis=-1)).sum()
        ),
        "examples": len(labelled.examples),
        "data": labelled.names,
    }
    return cooled.replace(fitted_temperature=record), temperature


def _check(model: Model, labelled: Labelled) -> str:
    """Returns the head of a model that a temperature can be folded into."""
    if labelled.task.name not in TASKS:
        raise UserError(
            f"{model.directory or 'the model'}: a model for {labelled.task.name} has no"
            f" probabilities that a temperature calibrates; those for {', '.join(TASKS)} have"
        )
    if model.is_exported:
        raise UserError(
            f"{model.directory}: was exported, and a temperature is folded into a model; calibrate"
            " that, and export it again"
        )
    return ARCHITECTURES[model.architecture].head


def _decide(
    model: Model, labelled: Labelled, max_length: int | None, progress: Callable[[int], None]
) -> Decisions:
    """Returns what the model decides of all examples."""
    task = labelled.task
    encoded = task.encode(
        labelled.examples, model.tokenizer, max_length or model.config.max_length, training=False
    )
    inference = make_inference(model.module, task, model.tokenizer.pad_id, model.mesh)
    outputs = inference.run({"params": model.params}, encoded.units, progress)
    check_finite(outputs.logits)
    return decisions_of(task.name, encoded.units, outputs)


def decisions_of(task: str, units: Sequence[Unit], outputs: Outputs) -> Decisions:
    """Returns the decisions in the outputs for labelled units of a task, one of `TASKS`.

    Each of several labels is a decision between it and nothing, whose logit is 0.

    Args:
        task: its name.
        units: of the examples.
        outputs: of the model for them.
    """
    logits, gold = [], []
    for unit, output in zip(units, outputs.logits, strict=True):
        known: Bool[np.ndarray, " places"] = unit.weights > 0
        output = output.astype(np.float64)
        if task == "multiple-choice":
            if known.any():
                logits.append(output[None])
                gold.append(np.flatnonzero(known))
        elif task == "multi-label":
            own = output[known].ravel()
            logits.append(np.stack([np.zeros_like(own), own], axis=-1))
            gold.append(unit.labels[known].ravel().astype(np.int64))
        else:
            logits.append(output[known])
            gold.append(unit.labels[known].astype(np.int64))
    most = max((one.shape[-1] for one in logits), default=1)
    padded = [
        np.pad(one, ((0, 0), (0, most - one.shape[-1])), constant_values=-np.inf) for one in logits
    ]
    if not padded:
        return Decisions(np.zeros((0, most)), np.zeros(0, np.int64))
    return Decisions(np.concatenate(padded), np.concatenate(gold))

"""A model without its least important heads: which they are, and what their removal costs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.capture.encoding import encode_stream
from bertjax.analysis.heads.importance import (
    ablation_importance,
    gates_without,
    gradient_importance,
)
from bertjax.analysis.heads.objective import (
    Measured,
    Objective,
    masked_language_objective,
    task_objective,
)
from bertjax.analysis.heads.pruning import (
    check_prunable,
    check_shrinkable,
    choose_heads,
    heads_by_layer,
    name_heads,
    read_heads,
    remove_heads,
)
from bertjax.config import BertConfig
from bertjax.inference.labelled import read_labelled
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.outputs import write_json
from bertjax.program.stages import StageProgress, Stages, ignore_stages
from bertjax.statistics.drawn_units import sum_by_unit
from bertjax.statistics.intervals import bootstrap_ratio
from bertjax.tasks.data_config import DataConfig
from bertjax.text.given_texts import Text, place_texts

REPORT_NAME = "pruning.json"
RANDOM_DRAWS = 5
# What heads are chosen by, where they are not named.
CRITERIA = ("importance", "ablation", "random")


class Examples(NamedTuple):
    """What models are scored on.

    Attributes:
        names: of the files.
        objective: makes the loss and score of a model on them.
        notes: a sentence for everything that was not read as it was given.
    """

    names: Sequence[str]
    objective: Callable[[Model], Objective]
    notes: Sequence[str]


class PruningStudy(NamedTuple):
    """A pruned model beside the one that it was.

    Attributes:
        model: without the heads.
        result: scores before and after, and without random heads, as pruning.json has them.
        notes: a sentence for everything that was not read as it was given.
    """

    model: Model
    result: dict[str, Any]
    notes: list[str]

    def save(self, folder: Path | str) -> None:
        """Writes the pruned model's directory, with the result in pruning.json."""
        self.model.save(folder)
        write_json(Path(folder) / REPORT_NAME, self.result)

    def __repr__(self) -> str:
        before, after = self.result["before"]["score"], self.result["after"]["score"]
        return (
            f"PruningStudy({self.result['removed']} of {self.result['heads']} heads,"
            f" {self.result['score']} {before:.4f} -> {after:.4f})"
        )


def raw_examples(
    model: Model,
    texts: Sequence[tuple[str, Text]],
    names: Sequence[str] = ("memory:texts",),
    *,
    max_length: int | None = None,
    seed: int = 0,
) -> Examples:
    """Takes raw texts, of which 15 % of the tokens are masked, as examples of a masked LM.

    Args:
        model: with a masked-LM head.
        texts: each a place for messages, and a text or a pair.
        names: of their files.
        max_length: of a window, in tokens; the model's positions when left out.
        seed: of the masks.
    """
    length = max_length or model.config.max_length
    notes = model.tokenizer.describe_readings(text for _, text in texts)
    encoded = list(encode_stream(model.tokenizer, texts, length, too_long="windows"))
    return Examples(names, lambda model: masked_language_objective(model, encoded, seed), notes)


def labelled_examples(
    model: Model,
    data: Any,
    reading: DataConfig | None = None,
    *,
    max_examples: int | None = None,
    max_length: int | None = None,
) -> Examples:
    """Takes labelled files or rows as examples of a fine-tuned model.

    Args:
        model: fitted to their task.
        data: files or rows.
        reading: how they are read; left out, as the model was fitted.
        max_examples: of them, the first ones; all when left out.
        max_length: longest sequence in tokens; the model's positions when left out.
    """
    length = max_length or model.config.max_length
    read = read_labelled(model, data, reading)
    some = read.examples[:max_examples]
    return Examples(
        read.names, lambda model: task_objective(model, read.task, some, length), read.notes
    )


def examples_in_memory(
    model: Model, texts: Any, data: Any, test: Any, seed: int = 0
) -> tuple[Examples, Examples | None]:
    """Takes texts of a masked LM, or labelled data, as examples to choose heads on and to test on.

    Args:
        model: the model.
        texts: raw texts; None with data.
        data: labelled files or rows; None with texts.
        test: the same of other examples, or None.
        seed: of the masks.

    Raises:
        UserError: both are given, or neither.
    """
    if (texts is None) == (data is None):
        raise UserError("give texts for a masked LM, or data (labelled) for a fine-tuned model")

    def take(given: Any) -> Examples:
        if data is not None:
            return labelled_examples(model, given)
        return raw_examples(model, place_texts(given), seed=seed)

    return take(texts if data is None else data), None if test is None else take(test)


def study_pruning(
    model: Model,
    heads: str,
    chosen_on: Examples,
    tested_on: Examples | None = None,
    *,
    by: str | None = None,
    normalize_layers: bool = False,
    shrink: bool = False,
    seed: int = 0,
    name: str | None = None,
    progress: StageProgress = ignore_stages,
) -> PruningStudy:
    """Removes the least important heads, and scores the model before and after.

    Args:
        model: with a masked-LM head or fitted to a task.
        heads: how many: a share ("40%") or a number ("58"); or which: layer-head ("1-3,2-5").
        chosen_on: what their importance is measured on.
        tested_on: what the scores are measured on; the same when left out, which flatters them.
        by: "importance" (the gradients of gates, the default), "ablation" or "random".
        normalize_layers: for importance: scale the heads of each layer to length 1.
        shrink: take as many heads out of every layer's tensors, instead of filling them with zeros.
        seed: of the random heads.
        name: of the model in the result; its directory when left out.
        progress: called for every stage as it proceeds.

    Raises:
        UserError: a number, names or options that are not possible.

    Source: Michel et al. 2019, section 4.
    """
    if tested_on and name_heads(heads, model.config, "--heads") is not None:
        raise _of_chosen_heads("test", heads)
    named, number = _read_wanted(heads, by, normalize_layers, shrink, model.config)
    by = "name" if named is not None else by or "importance"
    stages = Stages(1 if by in ("name", "random") else 2, progress)
    objective = chosen_on.objective(model)
    importance = None
    if named is None:
        ranked, importance = _rank(model, objective, by, normalize_layers, seed, stages)
        named = choose_heads(ranked, number, per_layer=shrink)
    tested = tested_on.objective(model) if tested_on else objective
    before = tested.measure(model.params)
    pruned = remove_heads(model, named, shrink=shrink)
    after_on = (tested_on or chosen_on).objective(pruned) if shrink else tested
    after = after_on.measure(pruned.params)
    shape, draws = tested.open_gates.shape, []
    step = stages.begin("removing random heads", RANDOM_DRAWS)
    for draw in range(RANDOM_DRAWS):
        order = _random_importance(shape, seed + 1 + draw)
        others = choose_heads(order, number, per_layer=shrink)
        draws.append(tested.measure(model.params, gates_without(shape, others)))
        step(1)
    result = {
        "model": name or str(model.directory or model.architecture),
        "by": by,
        "heads": tested.open_gates.size,
        "removed": number,
        "removed_heads": heads_by_layer(named),
        "shrunk": shrink,
        "chosen_on": None if by == "name" else list(chosen_on.names),
        "measured_on": list((tested_on or chosen_on).names),
        "examples": tested.examples,
        "score": tested.score_name,
        "loss": tested.loss_name,
        "before": describe_measured(before, tested.units),
        "after": describe_measured(after, tested.units),
        "random_heads": [describe_measured(draw, tested.units) for draw in draws],
        "importance": importance,
    }
    return PruningStudy(pruned, result, [*chosen_on.notes, *(tested_on.notes if tested_on else ())])


def _read_wanted(
    heads: str, by: str | None, normalize_layers: bool, shrink: bool, config: BertConfig
) -> tuple[Int[np.ndarray, "some 2"] | None, int]:
    """Returns the heads that are named, or None, and how many go."""
    if by is not None and by not in CRITERIA:
        raise UserError(f"by={by!r} is not one of {', '.join(CRITERIA)}")
    if normalize_layers and by not in (None, "importance"):
        raise UserError("--normalize-layers applies to --by importance; leave it out")
    check_prunable(config, f"--heads {heads}")
    named = name_heads(heads, config, "--heads")
    if named is None:
        return None, read_heads(heads, config, per_layer=shrink)
    for option, given in (("by", by), ("normalize-layers", normalize_layers)):
        if given:
            raise _of_chosen_heads(option, heads)
    if shrink:
        check_shrinkable(named, config, heads)
    return named, len(named)


def _of_chosen_heads(option: str, heads: str) -> UserError:
    """Returns what to raise where heads are named and an option says how to choose them."""
    scored = " (the model is scored on --data or the texts)" * (option == "test")
    return UserError(
        f"--{option} is for heads that are chosen, and --heads {heads} names them; leave it"
        f" out{scored}"
    )


def _rank(
    model: Model,
    objective: Objective,
    by: str,
    normalize_layers: bool,
    seed: int,
    stages: Stages,
) -> tuple[Float[np.ndarray, "L N"], dict[str, Any]]:
    """Measures the importance of each head; returns also what the result has of it."""
    shape = objective.open_gates.shape
    if by == "random":
        return _random_importance(shape, seed), {}
    more = {}
    if by == "importance":
        step = stages.begin("differentiating", objective.examples)
        importance = gradient_importance(
            objective, model.params, normalize_layers=normalize_layers, progress=step
        )
    else:
        step = stages.begin("removing each head", shape[0] * shape[1])
        importance, changes = ablation_importance(objective, model.params, progress=step)
        more = {"score_changes": changes.tolist()}
    interval = importance.interval(seed)
    parts = {name: part.tolist() for name, part in interval._asdict().items()}
    return importance.heads, {**parts, **more}


def _random_importance(shape: tuple[int, ...], seed: int) -> Float[np.ndarray, "L N"]:
    return np.random.default_rng(seed).random(shape)


def describe_measured(measured: Measured, units: Int[np.ndarray, " examples"]) -> dict[str, Any]:
    """Returns score and loss, the loss with its interval over `units`."""
    sums, counts = (sum_by_unit(part, units) for part in (measured.sums, measured.counts))
    interval = bootstrap_ratio(sums, counts)
    return {
        "score": measured.score,
        "loss": measured.loss,
        # Of one unit there is none.
        "loss_interval": None if len(sums) < 2 else [*map(float, interval[1:])],
    }

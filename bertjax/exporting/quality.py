"""How far the answers of an export have moved from those of its model, and whether that is much."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.exporting.asking import Answer, Question, ask_both
from bertjax.exporting.limits import LEAST_COSINE, MOST_CHANGED, MOST_LOST
from bertjax.inference.exported import ExportedModule
from bertjax.inference.labelled import Labelled, read_labelled, task_of
from bertjax.inference.onnx_session import OnnxSession
from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import HIDDEN, POOLED, SENTENCE
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.tasks.scoring import evaluate_predictions, goodness
from bertjax.tasks.task import frame_texts, softmax
from bertjax.text.given_texts import Text, read_tuples
from bertjax.text.lines import separate_pair

# The share of a text's tokens that are masked where a masked LM is asked.
_MASKED = 0.15


class Quality(NamedTuple):
    """What was compared.

    Attributes:
        figures: for JSON.
        failures: a sentence for every bound that is not held.
    """

    figures: dict[str, Any]
    failures: list[str]


class Gate(NamedTuple):
    """What an export is measured by, and how far it may move.

    Attributes:
        lines: texts, see `encode_questions`; none = the answers are not compared.
        labelled: examples of the model's task; None = scores are not compared.
        most_changed: the share of answers to the texts that may be others.
        least_cosine: of the vector of any text to the model's.
        most_lost: how much of the main score may be lost, as a share of its best value.
    """

    lines: Sequence[tuple[str, str]] = ()
    labelled: Labelled | None = None
    most_changed: float = MOST_CHANGED
    least_cosine: float = LEAST_COSINE
    most_lost: float = MOST_LOST

    def count(self, asked: "Asked | None") -> int:
        """Returns what the progress of `measure` adds up to.

        Args:
            asked: the texts, encoded (`encode_questions`); None = there are none.
        """
        examples = 0 if self.labelled is None else len(self.labelled.examples)
        return 2 * examples + (0 if asked is None else len(asked.questions))

    def measure(
        self,
        model: Model,
        steps: SentenceModel,
        session: OnnxSession,
        asked: "Asked | None",
        progress: Callable[[float], None] = lambda done: None,
    ) -> Quality:
        """Measures an export.

        Args:
            model: the model, in float32.
            steps: how a body makes vectors of texts.
            session: of the exported file.
            asked: the texts, encoded (`encode_questions`); None = there are none.
            progress: called with the number of questions and of examples, these once for each of
                both, that were answered since the call before.
        """
        figures: dict[str, Any] = {}
        failures: list[str] = []
        if asked is not None:
            figures["answers"], own = self._compare_answers(model, steps, session, asked, progress)
            failures += own
        if self.labelled is not None:
            figures["scores"], own = self._compare_scores(model, session, self.labelled, progress)
            failures += own
        return Quality(figures, failures)

    def _compare_answers(
        self,
        model: Model,
        steps: SentenceModel,
        session: OnnxSession,
        asked: "Asked",
        progress: Callable[[float], None],
    ) -> Quality:
        both = ask_both(model, steps, session, asked.questions)
        compared: dict[str, list[np.ndarray]] = {}
        for (expected, actual), places in zip(both, asked.places, strict=True):
            for name, moved in _compare(model, expected, actual, places):
                compared.setdefault(name, []).append(moved)
            progress(1)
        figures: dict[str, Any] = {"questions": len(asked.questions)}
        failures = []
        for name, parts in compared.items():
            figures[name] = described = _describe(name, np.concatenate(parts))
            if "least_cosine" in described and not described["least_cosine"] >= self.least_cosine:
                failures.append(
                    f"the vector of a text has a cosine of {described['least_cosine']:.4f} to the"
                    f" model's, and --least-cosine is {self.least_cosine:g}"
                )
            if "changed" in described and not described["changed"] <= self.most_changed:
                failures.append(
                    f"{described['changed']:.2%} of the answers ({name}) are others than the"
                    f" model's, and --most-changed is {self.most_changed:g}"
                )
        return Quality(figures, failures)

    def _compare_scores(
        self,
        model: Model,
        session: OnnxSession,
        labelled: Labelled,
        progress: Callable[[float], None],
    ) -> Quality:
        exported = ExportedModule(session, model.config, model.architecture)
        before = _score(model, model.module, {"params": model.params}, labelled, progress)
        after = _score(model, exported, {}, labelled, progress)
        task, name = labelled.task, labelled.task.main_score
        lost = goodness(name, before) - goodness(name, after)
        figures = {
            "examples": len(labelled.examples),
            "score": name,
            "model": before[name],
            "export": after[name],
        }
        failures = []
        if not lost <= self.most_lost * task.score_scale:
            failures.append(
                f"{name} falls from {before[name]} to {after[name]}, and --most-lost is"
                f" {self.most_lost:g} of {task.score_scale:g}"
            )
        return Quality(figures, failures)


def _score(
    model: Model,
    module: Any,
    variables: Mapping[str, Any],
    labelled: Labelled,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Returns the scores of a module on examples; not `make_inference`, which would keep it."""
    inference = Inference(module, labelled.task, model.tokenizer.pad_id)
    predicted = predict_examples(
        inference,
        variables,
        labelled.task,
        labelled.examples,
        model.tokenizer,
        model.config.max_length,
        progress,
    )
    return evaluate_predictions(labelled.task, labelled.examples, predicted, resamples=0)["scores"]


def gate_in_memory(model: Model, texts: Any, data: Any) -> Gate | None:
    """Returns the gate of texts or tuples of texts, and of labelled files or rows; None of neither.

    Args:
        model: that is exported.
        texts: any number.
        data: of the model's task; None = none.

    Raises:
        UserError: something else is given, or nothing in its place, or the data are not of the
            model's task.
    """
    if texts is None and data is None:
        return None
    given = [] if texts is None else read_tuples(texts)
    if texts is not None and not given:
        raise UserError("--check: there is no text; give some, or leave it out")
    lines = [
        (place, "\t".join(part.replace("\t", " ") for part in parts)) for place, parts in given
    ]
    return Gate(lines, None if data is None else read_labelled(model, data))


class Asked(NamedTuple):
    """Questions to a model.

    Attributes:
        questions: encoded.
        places: of each question the tokens whose answers count; None = all of them.
        notes: a sentence for everything that was not read as it was given.
    """

    questions: list[Question]
    places: list[np.ndarray | None]
    notes: list[str]


def encode_questions(model: Model, lines: Sequence[tuple[str, str]], steps: SentenceModel) -> Asked:
    """Encodes texts as the model's task takes them; for a masked LM some words are masked.

    Args:
        model: of any class.
        lines: each a text, or several with tabs between them; and before it what messages call it.
        steps: how a body makes vectors of texts.

    Raises:
        UserError: the model does not take such texts.
    """
    config, tokenizer = model.config, model.tokenizer
    architecture = ARCHITECTURES[model.architecture]
    length = steps.max_length or config.max_length
    if architecture.task_of(config.label_meaning) is not None:
        task = task_of(model)
        examples = task.examples_of_lines(
            [line for _, line in lines], [place for place, _ in lines]
        )
        encoded = task.encode(examples, tokenizer, config.max_length, training=False)
        questions = [unit.sequences for unit in encoded.units]
        return Asked(questions, [None] * len(questions), encoded.notes)
    texts: list[Text]
    if model.kind == BODY:  # of which each line has a vector
        tokenizer = tokenizer.lowercased() if steps.lowercase else tokenizer
        texts = [steps.prompt + line for _, line in lines]
    else:
        texts = [separate_pair(place, line) for place, line in lines]
    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    sequences, notes = frame_texts(tokenizer, pairs, length)
    for sequence in sequences:
        config.check_ids(
            sequence.token_ids,
            np.array([len(sequence.token_ids) > sequence.second_start]),
            np.array([len(sequence.token_ids) - 1]),
        )
    if not model.restores_words:
        return Asked([(sequence,) for sequence in sequences], [None] * len(sequences), notes)
    random, questions, places = np.random.default_rng(0), [], []
    for sequence in sequences:
        ids = sequence.token_ids.copy()
        words = np.flatnonzero(~np.isin(ids, tokenizer.special_ids))
        number = min(len(words), max(1, round(_MASKED * len(words))))
        chosen = np.sort(random.choice(words, number, replace=False))
        ids[chosen] = tokenizer.mask_id
        questions.append((sequence._replace(token_ids=ids),))
        places.append(chosen)
    if not any(map(len, places)):
        raise UserError(f"{lines[0][0]}: there is no token to mask, in any of the texts")
    return Asked(questions, places, notes)


def _compare(
    model: Model, expected: Answer, actual: Answer, places: np.ndarray | None
) -> Iterator[tuple[str, Float[np.ndarray, "answers ..."]]]:
    """Yields for each output the cosine of vectors, or for each answer (changed, largest, mean)."""
    architecture, config = ARCHITECTURES[model.architecture], model.config
    for name, values in expected.items():
        both = [one.astype(np.float64) for one in (values, actual[name])]
        if name in (HIDDEN, POOLED):
            continue
        if name == SENTENCE:
            lengths = np.prod([np.linalg.norm(one) for one in both])
            alike = float(not (both[0] - both[1]).any())  # of vectors of zeros
            yield name, np.atleast_1d(both[0] @ both[1] / lengths if lengths else alike)
            continue
        if architecture.kind == "sequence" and config.label_meaning == "regression":
            yield name, np.stack(both)[None]
            continue
        if architecture.kind in ("spans", "choice"):
            both = [one[None] for one in both]  # a text, of which a token or a choice is chosen
        elif places is not None and name in ("prediction_logits", "logits"):
            both = [one[places] for one in both]
        several = architecture.kind == "replaced-tokens" or (
            architecture.kind == "sequence" and config.label_meaning == "multi_label_classification"
        )
        yield name, _move(*both, several=several)


def _move(
    expected: np.ndarray, actual: np.ndarray, *, several: bool
) -> Float[np.ndarray, "answers 3"]:
    """Returns of each answer whether it is another, and how far its probabilities moved.

    Args:
        expected: logits of the model.
        actual: of the export.
        several: whether each number stands for itself; else the largest of the last axis wins.
    """
    classes = expected.shape[-1] if expected.ndim > 1 or not several else 1
    expected, actual = (one.reshape(-1, classes) for one in (expected, actual))
    if not len(expected):
        return np.zeros((0, 3))
    if several:
        changed = ((expected > 0) != (actual > 0)).any(axis=-1)
        probs = [1 / (1 + np.exp(-one)) for one in (expected, actual)]
    else:
        changed = expected.argmax(axis=-1) != actual.argmax(axis=-1)
        probs = [softmax(one) for one in (expected, actual)]
    moved = np.abs(probs[1] - probs[0])
    # A NaN is greater than nothing, and is an answer like none.
    changed = changed | ~np.isfinite(actual).all(axis=-1)
    return np.stack([changed, moved.max(axis=-1), moved.mean(axis=-1)], axis=-1)


def _describe(name: str, values: np.ndarray) -> dict[str, Any]:
    """Returns the figures of what `_compare` gives of an output, of all questions."""
    if name == SENTENCE:
        return {"least_cosine": float(values.min()), "mean_cosine": float(values.mean())}
    if values.ndim == 3:  # numbers [texts, 2, C]
        gap = np.abs(values[:, 1] - values[:, 0])
        spread = values[:, 0].std(axis=0).max() or 1.0
        return {
            "answers": len(values),
            # A number is another where it moved by a tenth of how far those of texts are apart.
            "changed": float((~(gap <= 0.1 * spread)).any(axis=-1).mean()),
            "largest_difference": float(gap.max()),
            "mean_difference": float(gap.mean()),
        }
    return {
        "answers": len(values),
        "changed": float(values[:, 0].mean()),
        "largest_difference": float(values[:, 1].max()),
        "mean_difference": float(values[:, 2].mean()),
    }

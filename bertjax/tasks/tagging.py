"""Token classification: a tag for every word (named entities, parts of speech)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.tasks import conll, scores
from bertjax.tasks.label_names import read_label_names
from bertjax.tasks.prediction_tables import join_rows
from bertjax.tasks.resampling import Resampler, entity_resampler, tag_resampler
from bertjax.tasks.tagged_sentences import TaggedSentence, sentence_of_line
from bertjax.tasks.tagging_schemes import OUTSIDE, Scheme, are_entity_tags, spans_of
from bertjax.tasks.task import (
    Encoded,
    Prediction,
    name_lines,
    softmax,
    write_records,
)
from bertjax.tasks.units import Layout, Unit
from bertjax.text.framing import frame
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import TaskBatch


class TagsPrediction(NamedTuple):
    """The tag of each word, its probability, and the entities where tags mark them.

    Attributes:
        tags: as the model names them.
        probabilities: of each word's tag.
        entities: each a dict of type, text and place; None where tags mark none.
    """

    tags: list[str]
    probabilities: list[float]
    entities: list[dict[str, Any]] | None = None


class Tagging:
    """A tag for every word (`tasks.task.Task`): the first token of a word decides.

    A sentence of more tokens than the model takes is processed in parts, cut between words.

    Args:
        labels: the tags in the order of their numbers, in any scheme and spelling; examples have
            IOB2, from their reader.
        smoothing: share of the target that is spread evenly over the tags.
        scheme: that of labels which do not show it (`conll.read_label_names`).

    Source: Devlin et al. 2019, section 5.3.
    """

    name = "tokens"
    per_token = True
    prediction = TagsPrediction
    score_scale = 1.0

    def __init__(
        self, labels: Sequence[str], smoothing: float = 0.0, scheme: Scheme | None = None
    ) -> None:
        self.labels = tuple(labels)
        self.scheme = scheme
        self._smoothing = smoothing
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._reading = read_label_names(labels, scheme)
        # Entities, or tags such as parts of speech?
        self._entities = self._reading.scheme != "none"
        self._names = {label.casefold(): label for label in labels if self._entities}
        if len(self._names) < len(labels):
            self._names = {}  # types that differ in letter case

    def check_scheme(self, option: str) -> None:
        """Raises a UserError where the tags are not read in the scheme that was given.

        Args:
            option: the option that gave it, for the message.

        Raises:
            UserError: they are not.
        """
        if self.scheme not in (None, self._reading.scheme):
            raise UserError(
                f"{option} {self.scheme}: the model's tags, {', '.join(self.labels[:8])}, are read"
                f" as {self._reading.describe()}, regardless; leave it out"
            )

    def describe_reading(self) -> str | None:
        """Describes how the tags are read, where their names do not show it."""
        outside = any(label.upper() == OUTSIDE for label in self.labels)
        if not self._reading.is_weak or not outside:
            return None
        what = self._reading.describe()
        if self._entities:
            what += ", so entities are scored, and adjacent ones of a type count as one"
        return f"the model's tags, {', '.join(self.labels[:8])}, are read as {what}"

    @property
    def main_score(self) -> str:
        """F1 over entities; the accuracy for tags that mark none."""
        return "f1" if self._entities else "accuracy"

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores of entities, or of tags."""
        if self._entities:
            return ("precision", "recall", "f1", "macro_f1")
        return ("accuracy", "macro_f1")

    @property
    def outcome_name(self) -> str:
        """The name of `main_score` for each sentence by itself."""
        return "F1 of a sentence" if self._entities else "accuracy of a sentence"

    def model_fields(self) -> Mapping[str, Any]:
        """Returns the tags."""
        return {"id2label": self.labels, "problem_type": None}

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[TaggedSentence]:
        """Reads a sentence per line, with words separated by white space; offsets count the line's
        characters, including white space at its ends.
        """
        return [sentence_of_line(place, line) for place, line in name_lines(lines, places)]

    def encode(
        self,
        examples: Sequence[TaggedSentence],
        tokenizer: Tokenizer,
        max_length: int,
        *,
        training: bool,
    ) -> Encoded:
        """Makes units labelled with tag numbers, int32 [t], weight 1 at words' first tokens."""
        words = [word for example in examples for word in example.tokens]
        pieces = iter(tokenizer.encode_batch([tokenizer.word_space + word for word in words]))
        unknown = np.array([tokenizer.unk_id], np.int32)
        units, parted, cut = [], 0, 0
        room = max_length - tokenizer.frame.size(pair=False)
        for number, example in enumerate(examples):
            split = [next(pieces) for _ in example.tokens]
            cut += sum(len(ids) > room for ids in split)
            # A word whose characters the tokenizer drops still needs a place for its tag.
            split = [ids[:room] if len(ids) else unknown for ids in split]
            tags = self._gold(example) or (None,) * len(split)
            numbers = [self._numbers.get(tag, -1) for tag in tags]
            parts = _cut_between_words([len(ids) for ids in split], room)
            parted += len(parts) > 1
            units += [
                self._unit(number, split[part], numbers[part], tokenizer, max_length)
                for part in parts
            ]
        notes = tokenizer.describe_readings(
            (example.tokens for example in examples), noun="sentence"
        )
        if parted:
            notes.append(
                f"{parted:,} of {len(examples):,} sentences have more than {max_length} tokens and"
                " are processed in parts"
            )
        if cut:
            notes.append(f"cut, of more than {room} tokens: {counted(cut, 'word')}")
        return Encoded(units, notes)

    def _unit(
        self,
        example: int,
        words: Sequence[Int[np.ndarray, " t"]],
        numbers: Sequence[int],
        tokenizer: Tokenizer,
        max_length: int,
    ) -> Unit:
        ids = np.concatenate([*words, np.empty(0, np.int32)]).astype(np.int32)
        sequence, _ = frame(tokenizer, ids, None, max_length)
        [start] = tokenizer.frame.starts((len(ids),))
        firsts = start + np.cumsum([0, *(len(word) for word in words)])[:-1]
        # -1 in labels says "no tag known" at a first token; -2 "no first token".
        labels = np.full(len(sequence.token_ids), -2, np.int32)
        labels[firsts] = numbers
        return Unit(example, (sequence,), labels, (labels >= 0).astype(np.float32))

    def loss(self, logits: Float[Array, "B T C"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the cross-entropy in nats at the first token of every word."""
        return losses.cross_entropy(logits, batch.labels, batch.weights, self._smoothing)

    def decode(
        self,
        examples: Sequence[TaggedSentence],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, "t C"]],
    ) -> list[Prediction]:
        """Returns `{"tags", "probabilities", "entities": [{"type", "start", "end", "text"}]}`."""
        predictions: list[Prediction] = [
            {"tags": [], "probabilities": []} for _ in range(len(examples))
        ]
        for unit, output in zip(units, outputs, strict=True):
            probabilities = softmax(output[unit.labels > -2])
            prediction = predictions[unit.example]
            prediction["tags"] += [self.labels[best] for best in probabilities.argmax(axis=-1)]
            prediction["probabilities"] += probabilities.max(axis=-1).tolist()
        if self._entities:
            for example, prediction in zip(examples, predictions, strict=True):
                prediction["entities"] = [
                    {"type": kind, "start": start, "end": end, "text": example.text[start:end]}
                    for kind, start, end in spans_of(
                        self._reading.to_iob2(prediction["tags"]), example.offsets
                    )
                ]
        return predictions

    def score(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes entity precision, recall and F1, also per type; for other tags the accuracy."""
        known, said = self._both(examples, predictions)
        return (
            scores.entity_scores(known, said) if self._entities else scores.tag_scores(known, said)
        )

    def resampler(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples."""
        known, said = self._both(examples, predictions)
        return (entity_resampler if self._entities else tag_resampler)(known, said)

    def outcomes(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns the F1 of each sentence's entities, or the share of right words."""
        known, said = self._both(examples, predictions)
        if self._entities:
            return scores.entity_f1_of_sentences(known, said)
        right = [
            [tag == other for tag, other in zip(*both, strict=True)]
            for both in zip(known, said, strict=True)
        ]
        return np.array([np.mean(words) if words else 1.0 for words in right])

    def labels_of(self, example: TaggedSentence) -> tuple[str, ...]:
        """Returns the tags of a sentence as the model names them.

        Args:
            example: with tags.
        """
        return self._gold(example) or ()

    def _gold(self, example: TaggedSentence) -> tuple[str, ...] | None:
        """Returns the known tags as the model names them, which may be in lower case."""
        if example.tags is None:
            return None
        tags = self._reading.from_iob2(self._known(example))
        return tuple(self._names.get(tag.casefold(), tag) for tag in tags)

    def _known(self, example: TaggedSentence) -> tuple[str, ...]:
        """Returns the known tags, in IOB2 if the model's mark entities: the reader may have
        mistaken types for tags that mark none.
        """
        if self._entities and self._reading.is_weak and not are_entity_tags(example.tags):
            return self._reading.to_iob2(example.tags)
        return example.tags

    def _both(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[Prediction]
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Returns every sentence's known and predicted tags, in IOB2 where they mark entities."""
        said = [list(self._reading.to_iob2(prediction["tags"])) for prediction in predictions]
        return [list(self._known(example)) for example in examples], said

    def write_predictions(
        self,
        directory: Path,
        examples: Sequence[TaggedSentence],
        predictions: Sequence[Prediction],
    ) -> None:
        """Writes `predictions.conll` (word, tag, predicted tag) and `predictions.jsonl`."""
        said = [prediction["tags"] for prediction in predictions]
        gold = [example._replace(tags=self._gold(example)) for example in examples]
        text = conll.to_conll(gold, said)
        (directory / "predictions.conll").write_text(text, encoding="utf-8")
        beside = [
            {"gold": None if example.tags is None else list(self._gold(example)), **prediction}
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        records, _ = join_rows(examples, beside)
        write_records(directory / "predictions.jsonl", records)


def _cut_between_words(lengths: Sequence[int], room: int) -> list[slice]:
    """Cuts words into runs of at most `room` tokens."""
    parts, start, used = [], 0, 0
    for word, length in enumerate(lengths):
        if used + length > room and word > start:
            parts.append(slice(start, word))
            start, used = word, 0
        used += length
    return [*parts, slice(start, len(lengths))]

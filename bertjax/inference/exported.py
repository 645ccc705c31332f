"""An exported model in the place of a class of `model.bert`, for everything that runs one."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer

from bertjax.architectures import ARCHITECTURES, Output, classes_of
from bertjax.config import BertConfig, Kind
from bertjax.families.registry import CONFIG_NAME, load_config
from bertjax.inference.onnx_session import EXPORT_IT, OnnxSession
from bertjax.interop.checkpoint_files import has_weights
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import read_architecture
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.signature import (
    ATTENTION_MASK,
    INPUT_IDS,
    INT8_NAME,
    ONNX_NAME,
    SENTENCE,
    TOKEN_TYPE_IDS,
    input_axes,
    input_names,
    outputs_of,
)
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.types import EncoderOutput, HeadOutput, PreTrainingOutput, SentenceOrderOutput

# Arrays on the host, or on a device of jax.
Ids = Array | np.ndarray


def load_exported(directory: Path | str, threads: int | None = None) -> Model:
    """Loads a directory that `bertjax export` wrote, for whatever only asks a model.

    Of two files it runs the one with weights in eight bits.

    Args:
        directory: with config.json, the tokenizer's files and `onnx/`.
        threads: of onnxruntime; as many as there are cores when left out.

    Raises:
        UserError: there is no such model, onnxruntime is missing or cannot read it, or the file is
            of another model than config.json.
    """
    directory = find_model(directory)
    config = load_config(directory)
    files = [directory / name for name in (INT8_NAME, ONNX_NAME) if (directory / name).is_file()]
    if not files:
        source = directory if has_weights(directory) else "MODEL"
        raise UserError(
            f"{directory}: no {ONNX_NAME}; write it with `bertjax export --model {source}"
            " --output DIR`, and name that directory"
        )
    tokenizer, notes = load_model_tokenizer(directory, config)
    session = OnnxSession(files[0], threads)
    module = ExportedModule(session, config, read_architecture(directory, config))
    module.check()
    notes.append(f"{files[0]}: run by onnxruntime")
    return Model(module, {}, tokenizer, tuple(notes), directory)


def _may_be(actual: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Returns whether axes are as many and as long; a word stands for any length."""
    if not actual:  # a file may leave even their number open
        return True
    lengths = zip(actual, expected, strict=False)
    return len(actual) == len(expected) and all(
        ours == theirs for ours, theirs in lengths if {type(ours), type(theirs)} == {int}
    )


class ExportedModule:
    """Answers packed rows as the class does, by a session that takes a text a row.

    Args:
        session: of the exported file.
        config: of the model.
        architecture: the class that was exported.
        kind: of the class that it answers as, whose outputs are among its own; its own when left
            out.

    Attributes:
        dtype: of the weights in its matrix products, float32 or int8.
    """

    is_exported: ClassVar[bool] = True

    def __init__(
        self,
        session: OnnxSession,
        config: BertConfig,
        architecture: str,
        kind: Kind | None = None,
    ) -> None:
        self.session, self.config = session, config
        self.architecture = ARCHITECTURES[architecture]
        self.kind = kind or self.architecture.kind
        self.dtype = np.int8 if session.is_quantized else np.float32

    def as_kind(self, kind: Kind) -> "ExportedModule":
        """Returns the model that answers as another class, with the same session.

        Args:
            kind: of the class.
        """
        if kind == self.kind:
            return self
        return ExportedModule(self.session, self.config, self.architecture.name, kind)

    def check(self) -> None:
        """Checks that the file takes and gives what the class does, and asks it about one token.

        Raises:
            UserError: it does not, or it cannot be run, or gives no numbers.
        """
        session, its = self.session, self.architecture
        taken = dict.fromkeys(input_names(self.config), input_axes(its.kind))
        given = outputs_of(its, self.config, pooler=False)
        given.pop(SENTENCE, None)  # vectors are pooled of hidden states
        wrong = [f"it asks for {name}" for name in session.inputs if name not in taken]
        wrong += [f"it takes no {name}" for name in taken if name not in session.inputs]
        wrong += [f"it gives no {name}" for name in given if name not in session.outputs]
        for expected, actual in ((taken, session.inputs), (given, session.outputs)):
            wrong += [
                f"its {name} is [{', '.join(map(str, actual[name]))}], not"
                f" [{', '.join(map(str, axes))}]"
                for name, axes in expected.items()
                if name in actual and not _may_be(actual[name], axes)
            ]
        if wrong:
            raise UserError(
                f"{session.path}: not {with_article(its.name)} as {CONFIG_NAME} describes it:"
                f" {'; '.join(wrong)}. {EXPORT_IT}"
            )
        token = np.zeros((1,) * len(input_axes(its.kind)), int)
        answers = session({INPUT_IDS: token, ATTENTION_MASK: token + 1, TOKEN_TYPE_IDS: token})
        for name in given:
            self._check_finite(answers[name])

    def _check_finite(self, answer: np.ndarray) -> None:
        if not np.isfinite(answer).all():
            raise UserError(
                f"{self.session.path}: answers with NaN or infinity: it is damaged, or the training"
                f" that made its model diverged. {EXPORT_IT}"
            )

    @functools.cached_property
    def parameters(self) -> int:
        """How many numbers its class has learned, whatever its file keeps."""
        module = self.architecture.module(self.config)
        drawn = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        return sum(leaf.size for leaf in jax.tree.leaves(drawn["params"]))

    def apply(
        self,
        variables: Mapping[str, Any],
        token_ids: Integer[Ids, "B T"],
        token_type_ids: Integer[Ids, "B T"],
        sequence_ids: Integer[Ids, "B T"],
        position_ids: Integer[Ids, "B T"] | None = None,
        example_starts: Integer[Ids, "B K"] | None = None,
        masked_positions: Integer[Ids, "B P"] | None = None,
    ) -> Any:
        """Returns what the class returns, but the encoder's output where it has a head; 0 in unused
        slots and at places of padding.

        Args:
            variables: not used: weights are in the file.
            token_ids, token_type_ids, sequence_ids, example_starts: of `model.bert.BertModel`.
            position_ids: not used: they start at 0 in every text.
            masked_positions: of `model.bert.BertForMaskedLM`.

        Raises:
            UserError: onnxruntime cannot run the file on them, or an answer is no number.
        """
        token_ids, token_type_ids, sequence_ids = map(
            np.asarray, (token_ids, token_type_ids, sequence_ids)
        )
        slots = 1 if example_starts is None else example_starts.shape[1]
        texts = [
            (row, slot, np.flatnonzero(ids == slot + 1))
            for row, ids in enumerate(sequence_ids)
            for slot in range(slots)
        ]
        texts = [text for text in texts if len(text[2])]
        length = max((len(places) for *_, places in texts), default=1)
        shape = (max(1, len(texts)), length)
        inputs = {
            INPUT_IDS: np.full(shape, self.config.pad_token_id),
            ATTENTION_MASK: np.zeros(shape, int),
            TOKEN_TYPE_IDS: np.zeros(shape, int),
        }
        for number, (row, _, places) in enumerate(texts):
            inputs[INPUT_IDS][number, : len(places)] = token_ids[row, places]
            inputs[ATTENTION_MASK][number, : len(places)] = 1
            inputs[TOKEN_TYPE_IDS][number, : len(places)] = token_type_ids[row, places]
        if self.architecture.kind == "choice":
            inputs = {name: values[:, None] for name, values in inputs.items()}
        answers = self._ask(inputs, [len(places) for *_, places in texts] or [1])
        axes = outputs_of(self.architecture, self.config)
        rows, length = token_ids.shape

        def pack(name: str) -> np.ndarray:
            values = answers[name]
            if axes[name][1] != "sequence_length":
                packed = np.zeros((rows, slots, *values[0].shape), np.float32)
                for number, (row, slot, _) in enumerate(texts):
                    packed[row, slot] = values[number]
                return packed
            width = length if masked_positions is None else masked_positions.shape[1]
            packed = np.zeros((rows, width, *values[0].shape[1:]), np.float32)
            for number, (row, _, places) in enumerate(texts):
                if masked_positions is None:
                    packed[row, places] = values[number][: len(places)]
                else:
                    masks = np.asarray(masked_positions[row])
                    slot, own = np.nonzero(masks[:, None] == places)
                    packed[row, slot] = values[number][own]
            return packed

        names = [name for name in axes if name != SENTENCE]
        outputs = zip(self.architecture.outputs, names, strict=True)
        given = {output: pack(name) for output, name in outputs if name in answers}
        for answer in given.values():
            self._check_finite(answer)
        return self._name(given)

    def _ask(
        self, inputs: Mapping[str, np.ndarray], lengths: Sequence[int]
    ) -> Mapping[str, Sequence[np.ndarray]]:
        """Returns the answers to each text; none depends on the others, or on padding."""
        if not self.session.is_quantized:
            return self.session(inputs)
        alone = [
            self.session({name: ids[number, None, ..., :length] for name, ids in inputs.items()})
            for number, length in enumerate(lengths)
        ]
        return {name: [answers[name][0] for answers in alone] for name in alone[0]}

    def _name(self, answers: Mapping[Output, np.ndarray]) -> Any:
        """Returns the answers as the class gives them."""
        match self.kind:
            case "body":
                return EncoderOutput(answers["hidden"], answers.get("pooled"), None)
            case "pretraining":
                return PreTrainingOutput(answers["token"], answers["next-sentence"], None)
            case "sentence-order":
                return SentenceOrderOutput(answers["token"], answers["sentence-order"], None)
            case "spans":
                return HeadOutput(np.stack([answers["start"], answers["end"]], axis=-1), None)
            case "choice":
                return HeadOutput(answers["choice"][..., 0], None)
        [output] = classes_of(self.config)[self.kind].outputs
        return HeadOutput(answers[output], None)

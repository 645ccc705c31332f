"""An exported model in the place of a class of `model.bert`, for everything that runs one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig, Kind
from bertjax.families.registry import load_config
from bertjax.inference.onnx_session import OnnxSession
from bertjax.interop.checkpoint_files import has_weights
from bertjax.interop.huggingface import read_architecture
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.signature import (
    ATTENTION_MASK,
    INPUT_IDS,
    INT8_NAME,
    ONNX_NAME,
    SENTENCE,
    TOKEN_TYPE_IDS,
    outputs_of,
)
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.types import EncoderOutput, HeadOutput, PreTrainingOutput, SentenceOrderOutput


def load_exported(directory: Path | str, threads: int | None = None) -> Model:
    """Loads a directory that `bertjax export` wrote, for predictions and vectors of texts.

    Of two files it runs the one with weights in eight bits.

    Args:
        directory: with config.json, the tokenizer's files and `onnx/`.
        threads: of onnxruntime; as many as there are cores when left out.

    Raises:
        UserError: there is no such model, or onnxruntime is missing or cannot read it.
    """
    directory = Path(directory)
    config = load_config(directory)
    files = [directory / name for name in (INT8_NAME, ONNX_NAME) if (directory / name).is_file()]
    if not files:
        source = directory if has_weights(directory) else "MODEL"
        raise UserError(
            f"{directory}: no {ONNX_NAME}; write it with `bertjax export --model {source}"
            " --output DIR`, and name that directory"
        )
    tokenizer, notes = load_model_tokenizer(directory, config)
    module = ExportedModule(
        OnnxSession(files[0], threads), config, read_architecture(directory, config)
    )
    notes.append(f"{files[0]}: run by onnxruntime")
    return Model(module, {}, tokenizer, tuple(notes), directory)


class ExportedModule:
    """Answers packed rows as the class does, by a session that takes a text a row.

    Args:
        session: of the exported file.
        config: of the model.
        architecture: its class.
    """

    is_exported: ClassVar[bool] = True

    def __init__(self, session: OnnxSession, config: BertConfig, architecture: str) -> None:
        self.session, self.config = session, config
        self.architecture = ARCHITECTURES[architecture]

    @property
    def kind(self) -> Kind:
        """The kind of its class."""
        return self.architecture.kind

    def apply(
        self,
        variables: Mapping[str, Any],
        token_ids: np.ndarray,
        token_type_ids: np.ndarray,
        sequence_ids: np.ndarray,
        position_ids: np.ndarray,
        example_starts: np.ndarray,
    ) -> Any:
        """Returns what the class returns; 0 in unused slots and at places of padding.

        Args:
            variables: not used: weights are in the file.
            token_ids, token_type_ids, sequence_ids, example_starts: of `model.bert.BertModel`.
            position_ids: not used: they start at 0 in every text.
        """
        slots = example_starts.shape[1]
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
        if self.kind == "choice":
            inputs = {name: values[:, None] for name, values in inputs.items()}
        answers = self._ask(inputs, [len(places) for *_, places in texts] or [1])
        axes = outputs_of(self.architecture, self.config)

        def pack(name: str) -> np.ndarray:
            values = answers[name]
            of_tokens = axes[name][1] == "sequence_length"
            width = token_ids.shape[1] if of_tokens else slots
            packed = np.zeros((len(token_ids), width, *values[0].shape[of_tokens:]), np.float32)
            for number, (row, slot, places) in enumerate(texts):
                if of_tokens:
                    packed[row, places] = values[number][: len(places)]
                else:
                    packed[row, slot] = values[number]
            return packed

        return self._name([pack(name) for name in axes if name in answers and name != SENTENCE])

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

    def _name(self, answers: list[np.ndarray]) -> Any:
        """Returns the answers as the class gives them."""
        match self.kind:
            case "body":
                return EncoderOutput(answers[0], answers[1] if answers[1:] else None, None)
            case "pretraining":
                return PreTrainingOutput(*answers, None)
            case "sentence-order":
                return SentenceOrderOutput(*answers, None)
            case "spans":
                return HeadOutput(np.stack(answers, axis=-1), None)
            case "choice":
                return HeadOutput(answers[0][..., 0], None)
        return HeadOutput(answers[0], None)

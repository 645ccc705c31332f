"""What an exported model takes and gives, by the names of Hugging Face's exports.

Source: `optimum.exporters.onnx` (tasks and dynamic axes); outputs that it has no task for are
called as in `transformers.modeling_outputs`, the vector of a text as in sentence-transformers.
"""

from bertjax.architectures import Architecture
from bertjax.config import BertConfig, Kind

# Where an exported model is in its directory, and where optimum, text-embeddings-inference and
# transformers.js look; the second is what the latter takes in a browser by default.
ONNX_NAME, INT8_NAME = "onnx/model.onnx", "onnx/model_quantized.onnx"
# Where the program for jax is.
PROGRAM_NAME = "stablehlo/model.jax_export"
EXPORTED_NAMES = (ONNX_NAME, INT8_NAME, PROGRAM_NAME)

INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS = "input_ids", "attention_mask", "token_type_ids"
HIDDEN, POOLED, SENTENCE = "last_hidden_state", "pooler_output", "sentence_embedding"

# What the letters of axes of any size are called; K are the choices of a question.
_AXES = {"B": "batch_size", "K": "num_choices", "T": "sequence_length"}
# Of each kind of class its outputs, with the letters of their axes (`bertjax.types`); S are the
# numbers of a text's vector.
_OUTPUTS: dict[Kind, dict[str, str]] = {
    "body": {HIDDEN: "BTD", POOLED: "BD", SENTENCE: "BS"},
    "pretraining": {"prediction_logits": "BTV", "seq_relationship_logits": "B2"},
    "masked-lm": {"logits": "BTV"},
    "next-sentence": {"logits": "B2"},
    "sentence-order": {"prediction_logits": "BTV", "sop_logits": "B2"},
    "replaced-tokens": {"logits": "BT"},
    "sequence": {"logits": "BC"},
    "tokens": {"logits": "BTC"},
    "spans": {"start_logits": "BT", "end_logits": "BT"},
    "choice": {"logits": "BK"},
}


def input_names(config: BertConfig) -> tuple[str, ...]:
    """Returns the inputs of all classes of a family: token types where they tell two texts."""
    types = (TOKEN_TYPE_IDS,) if config.SEGMENTS_ARE_TYPES else ()
    return (INPUT_IDS, ATTENTION_MASK, *types)


def input_axes(kind: Kind) -> tuple[str, ...]:
    """Returns the names of the axes of every input of a class."""
    return tuple(_AXES[letter] for letter in ("BKT" if kind == "choice" else "BT"))


def outputs_of(
    architecture: Architecture, config: BertConfig, vector_size: int = 0, *, pooler: bool = True
) -> dict[str, tuple[str | int, ...]]:
    """Returns the outputs of a class with their axes: names of those of any size, or sizes.

    Args:
        architecture: the class.
        config: of the model.
        vector_size: of the vector that a body makes of a text.
        pooler: whether a body has its pooler; without it there is no pooled vector.
    """
    has_pooler = pooler and "pooler" in architecture.parts
    sizes = {
        **_AXES,
        "V": config.vocab_size,
        "D": config.hidden_size,
        "C": config.num_labels,
        "S": vector_size,
        "2": 2,
    }
    return {
        name: tuple(sizes[letter] for letter in letters)
        for name, letters in _OUTPUTS[architecture.kind].items()
        if name != POOLED or has_pooler
    }

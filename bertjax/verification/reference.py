"""What torch and transformers compute with a checkpoint, where they are installed."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.families.registry import read_config
from bertjax.verification.examples import Arrangement
from bertjax.verification.outputs import Answers, Quantity, read_answers

PACKAGES = ("torch", "transformers")
# What two models must share to be asked the same and to answer alike.
SAME_SHAPE = (
    "vocab_size",
    "hidden_size",
    "type_vocab_size",
    "max_position_embeddings",
    "num_labels",
)


def missing_packages() -> list[str]:
    """Returns which of torch and transformers are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def ask_transformers(
    source: str, architecture: str, config: BertConfig, arrangements: Sequence[Arrangement]
) -> Answers:
    """Returns the answers of the class in transformers, in float32 on the CPU.

    Args:
        source: a model directory, or the name of a model on the Hugging Face hub.
        architecture: the class.
        config: of the model that is compared with it.
        arrangements: of `arrange_alone`: no padding, one example a row.

    Raises:
        OSError: there is no such model, or transformers cannot read it.
        ValueError: it is of another shape or family, or lacks parameters of the class.
    """
    import torch
    import transformers

    with _quiet(transformers):
        model, info = getattr(transformers, architecture).from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise ValueError(f"it has no {lacking[0]}, which {architecture} needs")
    their_config = read_config(model.config.to_dict())
    for name in SAME_SHAPE:
        theirs, ours = getattr(their_config, name), getattr(config, name)
        if theirs != ours:
            raise ValueError(f"its {name} is {theirs}, this model's {ours}")
    model.eval()
    answers: Answers = {}
    for arrangement in arrangements:
        outputs = _run(model, architecture, config, arrangement)
        answers |= read_answers(outputs, arrangement)
    return answers


def _run(
    model: Any, architecture: str, config: BertConfig, arrangement: Arrangement
) -> dict[str, Quantity]:
    import torch

    inputs = {
        "input_ids": torch.from_numpy(arrangement.batch.token_ids).long(),
        "attention_mask": torch.from_numpy(arrangement.batch.sequence_ids).long(),
    }
    if config.SEGMENTS_ARE_TYPES:
        inputs["token_type_ids"] = torch.from_numpy(arrangement.batch.token_type_ids).long()
    outputs = ARCHITECTURES[architecture].outputs
    if "choice" in outputs:  # a question of one choice each
        inputs = {name: value[:, None] for name, value in inputs.items()}
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)

    def of_tokens(values: Any) -> Quantity:
        return Quantity(values.numpy(), True)

    def of_examples(values: Any) -> Quantity:
        return Quantity(values.numpy()[:, None], False)

    quantities = {"hidden": of_tokens(output.hidden_states[-1])}
    match outputs:
        case "hidden", "pooled":
            quantities["pooled"] = of_examples(output.pooler_output)
        case "token", "next-sentence":
            quantities["mlm_logits"] = of_tokens(output.prediction_logits)
            quantities["nsp_logits"] = of_examples(output.seq_relationship_logits)
        case "token", "sentence-order":
            quantities["mlm_logits"] = of_tokens(output.prediction_logits)
            quantities["order_logits"] = of_examples(output.sop_logits)
        case ("hidden",):
            pass
        case ("replaced",):
            quantities["logits"] = of_tokens(output.logits[..., None])
        case "start", "end":
            both = np.stack([output.start_logits, output.end_logits], axis=-1)
            quantities["logits"] = Quantity(both, True)
        case ("token",) | ("tag",):
            quantities["logits"] = of_tokens(output.logits)
        case _:
            quantities["logits"] = of_examples(output.logits)
    return quantities


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences warnings and bars: `ask_transformers` reports what matters."""
    before = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)
        if bars:
            transformers.logging.enable_progress_bar()

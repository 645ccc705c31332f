"""Methods of `Model` that answer texts: words at masks, vectors, what a fitted model predicts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bertjax.architectures import MASKED_LM
from bertjax.methods.arguments import warn_of
from bertjax.text.given_texts import read_texts

if TYPE_CHECKING:
    import numpy as np

    from bertjax.loaded import Model


def fill_mask(
    model: "Model",
    texts: Sequence[str],
    top_k: int = 5,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Any]:
    """Returns the likeliest words at every mask of each text (`inference.fill_mask`).

    Args:
        texts: any number, each with at least one mask (`tokenizer.mask_token`).
        top_k: words a mask, 1 to V.
        progress: called with the number of texts done since the last call.

    Returns:
        A `FilledText` a text: probabilities, and the text with the likeliest words.

    Raises:
        UserError: a text without a mask, or longer than the model; no masked-LM head; `top_k`
            out of range.

    Source: Devlin et al. 2019, section 3.1.
    """
    from bertjax.inference.fill_mask import fill_mask

    model, texts = model.as_architecture(MASKED_LM), read_texts(texts, pairs=False)
    warn_of(model.tokenizer.describe_readings(texts, masks=True))
    return fill_mask(
        model.module, model.params, model.tokenizer, texts, top_k, progress, model.mesh
    )


def embed(
    model: "Model",
    texts: Sequence[str],
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> "np.ndarray":
    """Returns the vectors of texts, float32 `[texts, D]` (`inference.embedding`).

    Args:
        texts: any number.
        pooling: what is made of the hidden states of a text's tokens, for instance "mean" or
            "cls"; what the directory says when left out, else the mean.
        normalize: whether vectors are scaled to length 1; as the directory says when left out.
        max_length: longest text in tokens, longer ones are cut; what the directory says when
            left out, else the model's positions.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: a pooling that is unknown, a length that the model has not, no list of texts.

    Source: Reimers & Gurevych 2019, section 3 (the mean of the tokens).
    """
    from bertjax.inference.embedding import choose_steps, embed

    steps = choose_steps(model, pooling, normalize, max_length)
    vectors, notes = embed(model, read_texts(texts, pairs=False), steps, progress)
    warn_of(notes)
    return vectors


def predict(
    model: "Model", texts: Any, progress: Callable[[float], None] = lambda done: None
) -> list[Any]:
    """Returns what a fine-tuned model answers (`inference.labelled`).

    Args:
        texts: texts, tuples of texts or rows (dicts of fields), as the model was fitted to.
        progress: called with the number of examples done since the last call.

    Returns:
        A named tuple an example, in their order: the label or value, and its probability.

    Raises:
        UserError: the model has no head of a task, or an example lacks what the task needs.
    """
    from bertjax.inference.labelled import predict

    predictions, notes = predict(model, texts, progress)
    warn_of(notes)
    return predictions

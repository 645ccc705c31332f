"""Vectors of texts, and how similar they are."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from bertjax.interop.sentence_transformers import Normalize
from bertjax.serving.problems import BACKEND, VALIDATION, RefusedError
from bertjax.serving.served import AS_CONFIGURED, Cut, Input, Served


async def embed(
    served: Served,
    inputs: Sequence[str | list[int]],
    cut: Cut = AS_CONFIGURED,
    *,
    normalize: bool | None = None,
    dimensions: int | None = None,
    prompt_name: str | None = None,
) -> Float[np.ndarray, "texts D"]:
    """Returns a vector for each text, float32.

    Args:
        served: the model.
        inputs: texts, or token ids.
        cut: how those that are too long are cut.
        normalize: whether vectors are scaled to length 1; as the directory says when left out.
        dimensions: how many numbers of each vector are kept, the first ones; scaled afterwards.
        prompt_name: what is put before every text, by its name in
            config_sentence_transformers.json; what the directory says when left out.
    """
    steps = served.steps
    prepared = with_prompt(served, inputs, prompt_name)
    vectors = np.stack(await served.run_texts("vector", prepared, cut))
    for step in steps.after[: len(steps.after) - steps.scales]:
        vectors = step(vectors)
    if dimensions is not None and not 1 <= dimensions <= vectors.shape[1]:
        raise RefusedError(
            VALIDATION,
            f"dimensions={dimensions} must be from 1 to {vectors.shape[1]}, the model's",
        )
    vectors = vectors[:, :dimensions]
    scales = steps.scales if normalize is None else normalize
    return (Normalize()(vectors) if scales else vectors).astype(np.float32)


async def embed_tokens(
    served: Served,
    inputs: Sequence[str | list[int]],
    cut: Cut = AS_CONFIGURED,
    prompt_name: str | None = None,
) -> list[Float[np.ndarray, "t D"]]:
    """Returns the hidden state of every token of each text, special tokens included."""
    return await served.run_texts("hidden", with_prompt(served, inputs, prompt_name), cut)


async def compare(
    served: Served,
    pairs: Sequence[tuple[str, str]],
    cut: Cut = AS_CONFIGURED,
    prompt_name: str | None = None,
) -> list[float]:
    """Returns the cosine of the vectors of each pair of texts, each text embedded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = await embed(served, texts, cut, normalize=True, prompt_name=prompt_name)
    place = {text: number for number, text in enumerate(texts)}
    return [float(vectors[place[one]] @ vectors[place[other]]) for one, other in pairs]


def with_prompt(
    served: Served, inputs: Sequence[str | list[int]], prompt_name: str | None
) -> list[Input]:
    """Returns the inputs with the prompt before each.

    Raises:
        RefusedError: there is no prompt of that name, or token ids cannot have one.
    """
    steps = served.steps
    if prompt_name is not None and prompt_name not in steps.prompts:
        known = ", ".join(steps.prompts) or "none"
        raise RefusedError(
            VALIDATION,
            f"prompt_name={prompt_name!r} is none of the prompts of the model {served.name}"
            f" ({known})",
        )
    prompt = steps.prompt if prompt_name is None else steps.prompts[prompt_name]
    if prompt and not all(isinstance(one, str) for one in inputs):
        raise RefusedError(
            BACKEND, "token ids have no prompt before them, and this model asks for one; send texts"
        )
    return [(prompt + one, None) if isinstance(one, str) else one for one in inputs]

"""One vector for every text: the mean of its tokens' hidden states, or that of [CLS]."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bertjax.objectives.losses import Total
from bertjax.tasks.inference import Inference
from bertjax.tasks.task import frame_texts, tell_cut
from bertjax.tasks.units import Layout, TokenSequence, Unit
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import EncoderOutput, HeadOutput, TaskBatch

Pooling = Literal["mean", "cls"]


class Embedder:
    """Makes vectors of texts, many short ones packed into each row.

    Args:
        body: a `BertModel`; its pooler is not used.
        params: its parameters.
        tokenizer: of the model.
        pooling: mean = over all tokens of the text, [CLS] and [SEP] among them, as
            sentence-transformers has it; cls = the last hidden state of [CLS].
        normalize: scales every vector to length 1.

    Source: Reimers & Gurevych 2019 (Sentence-BERT), section 3.
    """

    per_token = False

    def __init__(
        self,
        body: Any,
        params: Any,
        tokenizer: Tokenizer,
        pooling: Pooling = "mean",
        normalize: bool = False,
    ) -> None:
        self._body, self._variables, self._tokenizer = body, {"params": params}, tokenizer
        self._pooling, self._normalize = pooling, normalize
        self._inference = Inference(self, self, tokenizer.pad_id)

    def embed(
        self,
        texts: Sequence[str],
        max_length: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[Float[np.ndarray, "texts D"], list[str]]:
        """The vectors, float32, and a sentence where texts had to be cut.

        Args:
            texts: any number.
            max_length: longest text in tokens.
            progress: is called with the number of texts done since the call before.
        """
        sequences, cut = frame_texts(self._tokenizer, [(text, None) for text in texts], max_length)
        vectors = self.embed_sequences(sequences, progress)
        return vectors, tell_cut(cut, len(texts), max_length)

    def embed_sequences(
        self,
        sequences: Sequence[TokenSequence],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float[np.ndarray, "texts D"]:
        """`embed` without the tokenizer."""
        nothing = np.zeros(1, np.float32)
        units = [
            Unit(number, (sequence,), nothing, nothing) for number, sequence in enumerate(sequences)
        ]
        return np.concatenate(self._inference.run(self._variables, units, progress).logits)

    def apply(self, variables: Any, *inputs: Array) -> HeadOutput:
        """The vectors `[B, K, D]` of packed rows, as a model gives logits."""
        output: EncoderOutput = self._body.apply(variables, *inputs)
        _, _, sequence_ids, _, example_starts = inputs
        if self._pooling == "cls":
            vectors = jnp.take_along_axis(output.hidden, example_starts[..., None], axis=1)
        else:
            slots = jnp.arange(1, example_starts.shape[1] + 1)
            own = (sequence_ids[:, None, :] == slots[:, None]).astype(output.hidden.dtype)
            number = jnp.maximum(own.sum(axis=-1, keepdims=True), 1)
            vectors = jnp.einsum("bkt,btd->bkd", own, output.hidden) / number
        vectors = vectors.astype(jnp.float32)
        if self._normalize:
            norm = jnp.sqrt(jnp.square(vectors).sum(axis=-1, keepdims=True))
            vectors /= jnp.where(norm == 0, 1, norm)
        return HeadOutput(vectors, output)

    def loss(self, logits: Array, batch: TaskBatch, layout: Layout) -> Total:
        """Nothing is learned."""
        return Total(jnp.zeros(()), jnp.zeros(()))

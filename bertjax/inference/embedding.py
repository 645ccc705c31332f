"""One vector for every text, pooled from the hidden states of its tokens."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer

from bertjax.architectures import BODY, is_exported
from bertjax.config import BertConfig, check_length
from bertjax.inference.batches import put_params
from bertjax.inference.task_outputs import check_finite, make_inference
from bertjax.interop.sentence_transformers import (
    POOLINGS,
    Dense,
    Normalize,
    SentenceModel,
)
from bertjax.loaded import Model
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.tasks.task import frame_texts
from bertjax.tasks.units import Layout, Unit
from bertjax.text.framing import TokenSequence
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import EncoderOutput, HeadOutput, TaskBatch

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@dataclasses.dataclass(frozen=True)
class PooledBody:
    """A `BertModel` that answers with a vector for each text, as a model gives logits.

    Attributes:
        body: the model.
        pooling: see `Embedder`.
    """

    body: Any
    pooling: tuple[Pooling, ...]
    per_token: ClassVar[bool] = False

    @property
    def config(self) -> BertConfig:
        """Returns the shape of the body."""
        return self.body.config

    @property
    def is_exported(self) -> bool:
        """Whether the body is no program of jax."""
        return is_exported(self.body)

    def apply(self, variables: Any, *inputs: Array) -> HeadOutput:
        """Returns the pooled hidden states `[B, K, D]` of packed rows."""
        output: EncoderOutput = self.body.apply(variables, *inputs)
        hidden = output.hidden.astype(jnp.float32)
        pooled = [pool(hidden, *inputs[2:5], kind) for kind in self.pooling]
        return HeadOutput(jnp.concatenate(pooled, axis=-1), output)

    def loss(self, logits: Array, batch: TaskBatch, layout: Layout) -> Total:
        """Returns nothing: there is nothing to learn."""
        return Total(jnp.zeros(()), jnp.zeros(()))


class Embedder:
    """Makes vectors of texts, many short ones packed into each row.

    Args:
        body: a `BertModel`; its pooler is not used.
        params: its parameters.
        tokenizer: of the model.
        pooling: what is made of a text's tokens, [CLS] and [SEP] among them; several are put side
            by side. mean = of their hidden states; mean_sqrt_len_tokens = their sum over the square
            root of their number; weightedmean = the mean with weights 1, 2, 3, ...; max = the
            largest of every component; cls and lasttoken = the hidden state of [CLS], of [SEP].
        after: what is then made of the vectors, on the host.
        mesh: the devices that share the rows; without it jax's first device has them all.

    Attributes:
        shapes: of all batches, whatever the texts.

    Source: Reimers & Gurevych 2019 (Sentence-BERT), section 3; sentence_transformers, `Pooling`.
    """

    def __init__(
        self,
        body: Any,
        params: Any,
        tokenizer: Tokenizer,
        pooling: Sequence[Pooling] = ("mean",),
        after: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
        mesh: Mesh | None = None,
    ) -> None:
        self._tokenizer, self._after = tokenizer, tuple(after)
        self._variables = {"params": put_params(params, mesh)}
        pooled = PooledBody(body, tuple(pooling))
        self._inference = make_inference(pooled, pooled, tokenizer.pad_id, mesh)
        self._width = len(pooled.pooling) * body.config.hidden_size
        self.shapes = self._inference.batching().shapes

    def embed(
        self,
        texts: Sequence[str],
        max_length: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[Float[np.ndarray, "texts D"], list[str]]:
        """Returns the vectors, float32, and a sentence for what was not read as it was given.

        Args:
            texts: any number.
            max_length: longest text in tokens.
            progress: is called with the number of texts done since the call before.
        """
        pairs = [(text, None) for text in texts]
        sequences, notes = frame_texts(self._tokenizer, pairs, max_length)
        return self.embed_sequences(sequences, progress), notes

    def embed_sequences(
        self,
        sequences: Sequence[TokenSequence],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float[np.ndarray, "texts D"]:
        """Returns the vectors of framed texts.

        Args:
            sequences: of tokens, framed.
            progress: called with the number of texts done since the last call.

        Raises:
            UserError: an output of the model is NaN or infinite.
        """
        blank = np.zeros(1, np.float32)
        units = [
            Unit(number, (sequence,), blank, blank) for number, sequence in enumerate(sequences)
        ]
        pooled = self._inference.run(self._variables, units, progress).logits
        check_finite(pooled)
        nothing = np.zeros((0, self._width), np.float32)
        vectors = np.concatenate([nothing, *pooled])
        for step in self._after:
            vectors = step(vectors)
        return vectors.astype(np.float32)


def choose_steps(
    model: Model,
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
) -> SentenceModel:
    """Returns how a model makes vectors of texts: as its directory says, unless told otherwise.

    Args:
        model: of any class.
        pooling: one or several kinds (`Embedder`).
        normalize: whether the vectors are scaled to length 1.
        max_length: longest text in tokens; at most the model's positions.

    Raises:
        UserError: an unknown pooling, one that does not fit a Dense module, a length that the model
            has no positions for, or a damaged directory.
    """
    said = model.sentence_model
    most = model.config.max_length
    length = most if said.max_length is None else min(said.max_length, most)
    if max_length is not None:
        length = check_length(max_length, most, 3)
    kinds, after, known = said.pooling, said.after, list(POOLINGS.values())
    if pooling is not None:
        kinds = tuple(pooling) if isinstance(pooling, list | tuple) else (pooling,)
        for kind in kinds or ("",):
            if kind not in known:
                raise UserError(
                    f"pooling={kind!r} is not one of {', '.join(known)}{nearest(str(kind), known)}"
                )
    if normalize is True and not said.scales:
        after = (*after, Normalize())
    elif normalize is False and said.scales:
        after = after[:-1]
    width = len(kinds) * model.config.hidden_size
    for step in after:
        if isinstance(step, Dense):
            if width != step.weight.shape[1]:
                raise UserError(
                    f"{model.directory}: a Dense module takes {step.weight.shape[1]} numbers, and"
                    f" {' and '.join(kinds)} of hidden states of {model.config.hidden_size} give"
                    f" {width}"
                )
            width = len(step.weight)
    return said._replace(pooling=kinds, after=after, max_length=length)


def embed(
    model: Model,
    texts: Sequence[str],
    steps: SentenceModel,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Float[np.ndarray, "texts D"], list[str]]:
    """Returns the vectors of texts, float32, and a sentence for what was not read as it was given.

    Args:
        model: of any class.
        texts: any number; an empty one has the vector of `[CLS] [SEP]`.
        steps: of `choose_steps`.
        progress: is called with the number of texts done since the call before.
    """
    body = model.as_architecture(BODY)
    tokenizer = body.tokenizer.lowercased() if steps.lowercase else body.tokenizer
    embedder = Embedder(body.module, body.params, tokenizer, steps.pooling, steps.after, model.mesh)
    prompted = [steps.prompt + text for text in texts]
    length = steps.max_length or model.config.max_length
    vectors, notes = embedder.embed(prompted, length, progress)
    if empty := sum(not text.strip() for text in texts):
        notes.append(
            f"{empty:,} of {len(texts):,} texts are empty; their vectors are those of [CLS] [SEP]"
        )
    return vectors, notes


def pool(
    hidden: Float[Array, "B T D"],
    sequence_ids: Integer[Array, "B T"],
    position_ids: Integer[Array, "B T"],
    example_starts: Integer[Array, "B K"],
    kind: Pooling,
) -> Float[Array, "B K D"]:
    """Returns a vector for each text of packed rows (see `Embedder`), any in unused slots.

    Args:
        hidden: the last hidden states.
        sequence_ids: which text of the row a token is of; 0 = padding.
        position_ids: from 0 in each text.
        example_starts: the first token of each text.
        kind: of pooling.
    """
    slots = jnp.arange(1, example_starts.shape[1] + 1)
    is_own = sequence_ids[:, None, :] == slots[:, None]  # [B, K, T]
    own = is_own.astype(hidden.dtype)
    number = own.sum(axis=-1, keepdims=True)
    if kind in ("cls", "lasttoken"):
        last = jnp.where(is_own, jnp.arange(is_own.shape[-1]), 0).max(axis=-1)
        places = example_starts if kind == "cls" else last
        return jnp.take_along_axis(hidden, places[..., None], axis=1)
    if kind == "max":
        # A slot at a time: all together would be K times the hidden states.
        largest = jax.lax.map(
            lambda mine: jnp.where(mine[..., None], hidden, -jnp.inf).max(axis=1),
            is_own.swapaxes(0, 1),
        )
        return jnp.where(number > 0, largest.swapaxes(0, 1), 0)
    if kind == "weightedmean":
        own *= (position_ids + 1)[:, None, :]
        number = own.sum(axis=-1, keepdims=True)
    if kind == "mean_sqrt_len_tokens":
        number = jnp.sqrt(number)
    # GPUs and TPUs would round the hidden states to ten bits or fewer.
    sums = jnp.einsum("bkt,btd->bkd", own, hidden, precision="highest")
    return sums / jnp.where(number == 0, 1, number)

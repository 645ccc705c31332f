"""A vector for every word of a treebank and every layer, which probes are trained on."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.capture.encoding import mean_over_words
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.probes.treebank import EncodedTreebank
from bertjax.config import BertConfig
from bertjax.loaded import Model

# For one model's vectors; probes hold a model's, its control's, and standardized copies.
MOST_BYTES = 3 << 30


class WordVectors(NamedTuple):
    """The words of all sentences, concatenated.

    Attributes:
        vectors: the embeddings' output, then every layer's; 4 bytes per number in memory.
        starts: each sentence's first word, and the end.
        types: the number of each word's type; words are of one type if the tokenizer makes the
            same tokens of them, because the model cannot distinguish them.
    """

    vectors: Float[np.ndarray, "L+1 words D"]
    starts: Int[np.ndarray, " sentences+1"]
    types: Int[np.ndarray, " words"]


def choose_sentences(
    treebank: EncodedTreebank, config: BertConfig, most_bytes: int = MOST_BYTES
) -> tuple[EncodedTreebank, tuple[str, ...]]:
    """Chooses as many sentences, from all parts of the treebank, as their vectors have room for.

    Args:
        treebank: the sentences.
        config: the model's.
        most_bytes: the room for the vectors of one model.

    Returns:
        The sentences, and notes on those that are left out.
    """
    words = sum(len(sentence.words) for sentence in treebank.sentences)
    size = 4 * (config.num_hidden_layers + 1) * words * config.hidden_size
    total = len(treebank.sentences)
    if size <= most_bytes:
        return treebank, ()
    kept = max(1, total * most_bytes // size)
    note = (
        f"probes are trained and tested on {kept:,} of the {total:,} sentences of the treebank:"
        f" the vectors of all their words would take {size / 1e9:,.1f} GB"
    )
    return treebank.select(np.arange(kept) * total // kept), (note,)


def word_vectors(
    body: Model,
    treebank: EncodedTreebank,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> WordVectors:
    """Computes the mean of the vectors of each word's tokens.

    Args:
        body: the body with the layers.
        treebank: encoded with the body's tokenizer.
        progress: called with the number of sentences done since the last call.

    Source: Hewitt & Manning 2019, section 3.1 and the authors' code, which takes the mean.
    """
    config = body.config
    starts = np.cumsum([0, *(len(sentence.words) for sentence in treebank.sentences)])
    shape = (config.num_hidden_layers + 1, int(starts[-1]), config.hidden_size)
    vectors = np.empty(shape, np.float32)
    numbers: dict[bytes, int] = {}
    types = np.empty(shape[1], np.int64)
    captures = capture(body, treebank.encoded, hidden=True, progress=progress)
    for captured, start in zip(captures, starts[:-1], strict=True):
        encoded = captured.encoded
        firsts = encoded.first_tokens[1:]  # those of the words, then of [SEP]
        words = len(firsts) - 1
        means = mean_over_words(captured.hidden, encoded, axis=1)
        vectors[:, start : start + words] = means[:, 1:-1]
        for word in range(words):
            tokens = encoded.token_ids[firsts[word] : firsts[word + 1]].tobytes()
            types[start + word] = numbers.setdefault(tokens, len(numbers))
    return WordVectors(vectors, starts, types)


def standardize(
    vectors: Float[np.ndarray, "L+1 words D"], words: Int[np.ndarray, " some"]
) -> Float[Array, "L+1 words D"]:
    """Scales every dimension of every layer to mean 0 and standard deviation 1 over `words`.

    A linear probe can distinguish what it could before, but it learns in fewer steps, and layers of
    different scale are comparable.
    """
    own = vectors[:, words]
    mean, deviation = own.mean(axis=1, keepdims=True), own.std(axis=1, keepdims=True)
    return jnp.asarray((vectors - mean) / np.where(deviation > 0, deviation, 1), jnp.float32)

"""A start for runs of minutes: heads that begin with the patterns that trained BERTs end up with.

A new BERT spends its first millions of tokens on a plateau where attention is flat and only the
frequencies of words are learned. Trained ones look, in their first layers, at the token before, at
the token after, and at the same word elsewhere, and at [SEP] when they find nothing (Clark et al.
2019, section 3). Here the weights of a new model are set so that its first layer begins with such
heads; all of them are trained on as usual. docs/pretraining.md has the figures with and without.

The hidden axis is laid out for it (D the hidden size, H the head size):

    0 .. H-1      where the token is: sines and cosines of its position
    H .. D-3      which word it is
    D-2           "not found": carried by [SEP] alone
    D-1           which passage it is in: positive in A, negative in B
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bertjax.config import BertConfig
from bertjax.model.bert import BertForPreTraining
from bertjax.program.errors import UserError

# All of these were found by trial on the demo's rows of 64 tokens.
#
# Attention scores in nats. A neighbour gets 0.7 of its head's attention; a same word in the other
# passage (8.0 + 2.4) wins over [SEP] (7.0), which wins over other words (2.4, give or take 2).
NEIGHBOR_SCORE, SAME_WORD_SCORE, OTHER_PASSAGE_SCORE, NOT_FOUND_SCORE = 13.0, 8.0, 2.4, 7.0

# The longest of the waves that distinguish positions is so many times the shortest.
LONGEST_WAVE = 10.0

# What a position and a passage weigh in the embeddings, per axis, when a word weighs 1.
POSITION_WEIGHT, PASSAGE_WEIGHT = 2.0, 1.4

# What goes from a found word into the hidden state, and from the mean of "not found" into [CLS],
# less the mean's usual value, so that [CLS] is about 0 there and its sign decides.
FOUND_GAIN, NOT_FOUND_GAIN, NOT_FOUND_USUALLY = 0.25, 8.0, 0.85

# Standard deviation of the weights of pooler and next-sentence head, times the root of the width.
# initializer_range is for wide models: a narrow one's [CLS] would hardly reach the loss.
POOLER_SPREAD = 1.2


def start_with_patterns(
    config: BertConfig,
    log_frequencies: Float[Array, " V"],
    separator_id: int,
    key: Key[Array, ""],
) -> Any:
    """Draws new parameters of a `BertForPreTraining`, with attention patterns laid in.

    In the first layer, head 0 looks at the token before, head 1 at the token after, and the others
    at the same word in the other passage, or at [SEP] where there is none. Head 0 of the last layer
    carries to [CLS] how much was not found. The masked-LM head begins with the token frequencies.

    Args:
        config: at least 2 layers, 3 heads of an even size of at least 4.
        log_frequencies: log of each token's share in the training rows, finite.
        separator_id: the id of [SEP].
        key: of all that is drawn.

    Raises:
        UserError: the config has not the layers or heads for it.

    Source: the idea of Trockman & Kolter 2023 (mimetic initialization); the patterns of Clark et
        al. 2019. Differs from BERT's own start (Devlin et al. 2019: all weights random), which it
        is not meant to replace in longer runs.
    """
    _check_shape(config)
    drawing, comparing = jax.random.split(key)
    drawn = jax.jit(BertForPreTraining(config).init)(drawing, jnp.zeros((1, 1), jnp.int32))
    params = jax.tree.map(np.array, drawn["params"])
    body = params["bert"]

    # What an axis of a word is after the embeddings' LayerNorm; [SEP] has all of it on one axis.
    width, size = config.hidden_size, config.head_size
    word_axes = width - size - 2
    word = math.sqrt(width / (size * POSITION_WEIGHT**2 + word_axes + PASSAGE_WEIGHT**2))
    separator = word * math.sqrt(word_axes)

    waves = LONGEST_WAVE ** (-2 * np.arange(size // 2) / size)
    _lay_out_embeddings(body["embeddings"], separator_id, waves, size)
    attention = body["encoder"]["layers"]["attention"]
    for head, offset in enumerate((-1, 1)):
        _look_at_neighbor(attention, head, offset, waves, word)
    searching = range(2, config.num_attention_heads)
    for head in searching:
        projection = jax.random.orthogonal(jax.random.fold_in(comparing, head), word_axes)
        _look_for_same_word(attention, head, np.asarray(projection), word, separator)
    attention["output"]["kernel"][0, 2:, -1, -2] = 1 / separator / len(searching)
    _gather_what_was_not_found(attention, size)

    for kernel in (body["pooler"]["dense"]["kernel"], params["nsp_head"]["dense"]["kernel"]):
        kernel *= POOLER_SPREAD / math.sqrt(width) / kernel.std()
    params["mlm_head"]["bias"] = np.asarray(log_frequencies)
    return params


def _check_shape(config: BertConfig) -> None:
    if config.num_hidden_layers < 2:
        raise UserError(
            "model.start=patterns needs num_hidden_layers of at least 2, not"
            f" {config.num_hidden_layers}; pass --model.num_hidden_layers 2, or"
            " --model.start random"
        )
    if config.num_attention_heads < 3:
        raise UserError(
            "model.start=patterns needs num_attention_heads of at least 3, not"
            f" {config.num_attention_heads}: {_say_heads_that_fit(config)}"
        )
    if config.head_size % 2 or config.head_size < 4:
        raise UserError(
            "model.start=patterns needs heads of an even size of at least 4, not hidden_size="
            f"{config.hidden_size} / num_attention_heads={config.num_attention_heads} ="
            f" {config.head_size}: {_say_heads_that_fit(config)}"
        )


def _say_heads_that_fit(config: BertConfig) -> str:
    """Returns what to pass so that there are three heads or more of an even size."""
    width = config.hidden_size
    fitting = [
        heads
        for heads in range(3, width // 4 + 1)
        if width % heads == 0 and width // heads % 2 == 0
    ]
    if not fitting:
        return "pass --model.hidden_size 64 --model.num_attention_heads 4, or --model.start random"
    nearest = min(fitting, key=lambda heads: abs(heads - config.num_attention_heads))
    return f"pass --model.num_attention_heads {nearest}, or --model.start random"


def _lay_out_embeddings(
    embeddings: dict[str, Any], separator_id: int, waves: np.ndarray, size: int
) -> None:
    words = embeddings["word_embeddings"]
    spread, word_axes = words.std(), words.shape[1] - size - 2
    words[:, :size] = words[:, -2:] = words[separator_id] = 0
    words[separator_id, -2] = spread * math.sqrt(word_axes)

    positions = embeddings["position_embeddings"]
    angles = np.arange(len(positions))[:, None] * waves
    positions[:] = 0
    positions[:, :size] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    positions *= math.sqrt(2) * POSITION_WEIGHT * spread

    types = embeddings["token_type_embeddings"]
    types[:] = 0
    types[:2, -1] = PASSAGE_WEIGHT * spread, -PASSAGE_WEIGHT * spread


def _look_at_neighbor(
    attention: dict[str, Any], head: int, offset: int, waves: np.ndarray, word: float
) -> None:
    """Makes the key read the position, and the query read it as if it were `offset` further on.

    Each pair (sine, cosine) is turned by `offset` times its wave number, so the two agree best
    where the key is `offset` places away.
    """
    size = 2 * len(waves)
    strength = math.sqrt(NEIGHBOR_SCORE / math.sqrt(size)) / (word * POSITION_WEIGHT)
    cosine, sine = np.diag(np.cos(offset * waves)), np.diag(np.sin(offset * waves))
    query, key = (attention[name]["kernel"][0, :, head] for name in ("query", "key"))
    query[:] = key[:] = 0
    query[:size] = strength * np.block([[cosine, -sine], [sine, cosine]])
    key[:size] = strength * np.eye(size)


def _look_for_same_word(
    attention: dict[str, Any], head: int, projection: np.ndarray, word: float, separator: float
) -> None:
    """Makes query and key compare a projection of the word; two axes are for passage and [SEP].

    The value is the word that was found; its last axis says that none was.
    """
    query, key, value = (
        attention[name]["kernel"][0, :, head] for name in ("query", "key", "value")
    )
    size = query.shape[1]
    words = slice(size, -2)
    query[:] = key[:] = value[:] = 0
    compare = math.sqrt(SAME_WORD_SCORE * math.sqrt(size) / (size - 2)) / word
    query[words, :-2] = key[words, :-2] = compare * projection[:, : size - 2]
    crossing = math.sqrt(OTHER_PASSAGE_SCORE * math.sqrt(size)) / (word * PASSAGE_WEIGHT)
    query[-1, -1], key[-1, -1] = -crossing, crossing
    attention["query"]["bias"][0, head, -2] = NOT_FOUND_SCORE * math.sqrt(size)
    key[-2, -2] = 1 / separator

    output = attention["output"]["kernel"][0, head]
    value[words, :-1] = projection[:, : size - 1]
    value[-2, -1] = 1
    output[:] = FOUND_GAIN * value.T


def _gather_what_was_not_found(attention: dict[str, Any], size: int) -> None:
    """Makes head 0 of the last layer, still flat, add the mean of what it sees."""
    value, output = attention["value"]["kernel"][-1, :, 0], attention["output"]["kernel"][-1, 0]
    value[:] = 0
    value[size : 2 * size - 1, :-1] = np.eye(size - 1)
    value[-2, -1] = 1
    output[:] = value.T
    output[-1, -2] = NOT_FOUND_GAIN
    attention["output"]["bias"][-1, -2] = -NOT_FOUND_GAIN * NOT_FOUND_USUALLY

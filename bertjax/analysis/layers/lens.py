"""The masked-LM head applied to every layer: when does the model know the word?"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import randomize
from bertjax.analysis.capture.rows import make_inputs
from bertjax.architectures import MASKED_LM, classes_of
from bertjax.inference.batches import Batching, Place, run
from bertjax.inference.shapes import Shape, Shapes, few_or_all
from bertjax.interop.tensor_names import parts_with_parameters
from bertjax.loaded import Model
from bertjax.model.bert import BertForMaskedLM
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.statistics.drawn_units import number_units, sum_by_unit
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio
from bertjax.text.packing import Places
from bertjax.text.tokenizer import Tokenizer

# Rows of a batch of masked copies of a text.
_ROWS = 16


class Lens(NamedTuple):
    """What the masked-LM head reads in every layer's hidden states; layer 0 is the embeddings.

    Attributes:
        encoded: the text.
        positions: the tokens that were asked for.
        masked: whether each was masked while it was asked for, the others being in sight.
        probability: of the true token.
        rank: of the true token among all V; 1 = the most likely.
        top_ids: the likeliest tokens, best first.
        top_probability: theirs.
        top_tokens: as `Tokenizer.spell` shows them, by layer, position and place.
    """

    encoded: EncodedText
    positions: Int[np.ndarray, " P"]
    masked: bool
    probability: Float[np.ndarray, "L+1 P"]
    rank: Int[np.ndarray, "L+1 P"]
    top_ids: Int[np.ndarray, "L+1 P top_k"]
    top_probability: Float[np.ndarray, "L+1 P top_k"]
    top_tokens: tuple[tuple[tuple[str, ...], ...], ...]


class _Question(NamedTuple):
    """Places of a text whose words are wanted, and the true tokens there."""

    text: EncodedText
    positions: Int[np.ndarray, " P"]
    targets: Int[np.ndarray, " P"]


class Answers(NamedTuple):
    """Of every layer for every question, see `Lens`.

    Attributes:
        probability: of the true token.
        rank: of the true token, 1 for the likeliest.
        top_probability: of the likeliest tokens, the likeliest first.
        top_ids: their ids.
    """

    probability: Float[np.ndarray, "L+1 Q"]
    rank: Int[np.ndarray, "L+1 Q"]
    top_probability: Float[np.ndarray, "L+1 Q top_k"]
    top_ids: Int[np.ndarray, "L+1 Q top_k"]


def with_masked_lm(model: Model) -> Model:
    """Returns the model as a BertForMaskedLM, which the lens and the what-if need.

    Args:
        model: of any class.

    Raises:
        UserError: it has no masked-LM head.
    """
    wanted = classes_of(model.config)[MASKED_LM] if MASKED_LM in model.config.PARTS else None
    if wanted is None or not parts_with_parameters(model.config, wanted) <= model.parts.keys():
        where = model.directory or "the model"
        raise UserError(
            f"{where}: is {with_article(model.architecture)} without a masked-LM head, which"
            " is what the lens and the what-if look through; take the checkpoint it was made of"
            f"{f' ({wanted.name})' if wanted else ''}, or train the head with"
            f" `bertjax pretrain --model.init {where}`"
        )
    return model.as_architecture(MASKED_LM)


def logit_lens(model: Model, encoded: EncodedText, *, masked: bool = True, top_k: int = 5) -> Lens:
    """Computes the true token's probability and rank at every layer, and each layer's best tokens.

    Args:
        model: with a masked-LM head.
        encoded: the text; its special tokens are not asked for.
        masked: asks each token in turn with a [MASK] in its place, which is the question that the
            head was trained on. False reads the text as it stands: how long does a layer keep the
            word it sees?
        top_k: likeliest tokens of every place, 1 to V.

    Raises:
        UserError: `top_k` out of range, or a text longer than the model.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; for masked models the head's
    own transformation is part of it, as in Belrose et al. 2023, section 2.
    """
    positions = np.flatnonzero(~encoded.special)
    if masked:
        questions = [_mask(model.tokenizer, encoded, position[None]) for position in positions]
    else:
        questions = [_Question(encoded, positions, encoded.token_ids[positions])]
    readings = _ask(model, questions, top_k)
    return Lens(
        encoded, positions, masked, readings.probability, readings.rank, readings.top_ids,
        readings.top_probability, spell(model.tokenizer, readings.top_ids),
    )  # fmt: skip


def lens_curve(lenses: Sequence[Lens]) -> Interval:
    """Computes the mean reciprocal rank of the true token by layer; 1 = always the likeliest.

    Args:
        lenses: of all texts.
    """
    sums = np.stack([(1 / lens.rank).sum(axis=1) for lens in lenses])
    counts = np.array([[len(lens.positions)] for lens in lenses], np.float64)
    units = number_units(lens.encoded.source for lens in lenses)
    return bootstrap_ratio(sum_by_unit(sums, units), sum_by_unit(counts, units))


def compare_lenses(
    model: Model,
    texts: Sequence[EncodedText],
    *,
    masked: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> Figures:
    """Computes `lens_curve` of the model beside that of its random control, over all texts.

    Args:
        model: with a masked-LM head.
        texts: to look at.
        masked: whether each token is masked while it is asked for (`logit_lens`).
        progress: called with the number of texts done since the last call; each counts twice.
    """
    curves = []
    for compared in (model, randomize(model)):
        lenses = []
        for text in texts:
            lenses.append(logit_lens(compared, text, masked=masked, top_k=1))
            progress(1)
        curves.append(lens_curve(lenses))
    return Figures(*curves)


def ask_words(
    model: Model, encoded: EncodedText, words: Sequence[int]
) -> tuple[Float[np.ndarray, " words"], Answers]:
    """Measures how well the rest of the text predicts each word; its tokens are masked together.

    Args:
        model: with a masked-LM head.
        encoded: the text.
        words: their numbers among `encoded.words`.

    Returns:
        The mean natural logarithm of the probabilities of each word's tokens, at the last layer;
        and the answers for all tokens of the words, in order.

    Source: Salazar et al. 2020, section 2 (pseudo-log-likelihood); Kauf & Ivanova 2023 (all of a
    word's tokens at once, lest its pieces give each other away).
    """
    places = [np.flatnonzero(encoded.word_ids == word) for word in words]
    row = np.repeat(np.arange(len(words)), [len(own) for own in places])
    readings = _ask(model, [_mask(model.tokenizer, encoded, own) for own in places], 5)
    logs = np.log(np.maximum(readings.probability[-1], np.finfo(np.float32).tiny))
    sums = np.bincount(row, logs, minlength=len(words))
    return sums / np.bincount(row, minlength=len(words)), readings


def spell(
    tokenizer: Tokenizer, ids: Int[np.ndarray, "places others top_k"]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Returns tokens as a reader is shown them.

    Args:
        tokenizer: the model's.
        ids: of tokens.
    """
    return tuple(tuple(tuple(map(tokenizer.spell, place)) for place in layer) for layer in ids)


def _mask(
    tokenizer: Tokenizer, encoded: EncodedText, positions: Int[np.ndarray, " n"]
) -> _Question:
    """Asks for tokens with a [MASK] in the place of each."""
    token_ids = encoded.token_ids.copy()
    token_ids[positions] = tokenizer.mask_id
    masked = encoded._replace(token_ids=token_ids)
    return _Question(masked, positions, encoded.token_ids[positions])


def _ask(model: Model, questions: Sequence[_Question], top_k: int) -> Answers:
    """Answers in the order of the questions, those of a text in the order of its places."""
    model, config = with_masked_lm(model), model.config
    if not 1 <= top_k <= config.vocab_size:
        raise UserError(
            f"top_k={top_k} must be between 1 and the model's vocab_size={config.vocab_size}"
        )
    longest = max(len(question.text.token_ids) for question in questions)
    if longest > config.max_length:
        raise UserError(
            f"{longest} tokens, the model has positions for {config.max_length}; shorten the text"
        )

    def make(some: Sequence[_Question], places: Places, shape: Shape) -> _Inputs:
        texts = [question.text for question in some]
        inputs = make_inputs(config, texts, shape.rows, shape.length, model.tokenizer.pad_id)
        asked = np.zeros((2, shape.rows, shape.slots), np.int32)
        for row, question in enumerate(some):
            asked[0, row, : len(question.positions)] = question.positions
            asked[1, row, : len(question.positions)] = question.targets
        return *inputs, *asked

    def take(output: Sequence[np.ndarray], question: _Question, place: Place) -> list[np.ndarray]:
        return [part[:, place.row, : len(question.positions)] for part in output]

    batching = Batching(
        Shapes(config.max_length, lambda length: _ROWS, slots=few_or_all, mesh=model.mesh),
        lambda question: len(question.text.token_ids),
        make,
        take,
        slots=lambda question: len(question.positions),
    )
    forward = functools.partial(_read_layers, model.module, top_k)
    parts = run(forward, model.params, questions, batching, mesh=model.mesh)
    return Answers(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))


# token_ids, token_type_ids and sequence_ids; the positions that are asked for, the tokens there.
_Inputs = tuple[
    Integer[Array, "B T"], Integer[Array, "B T"], Integer[Array, "B T"],
    Integer[Array, "B P"], Integer[Array, "B P"],
]  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read_layers(
    model: BertForMaskedLM, top_k: int, params: Mapping[str, Any], inputs: _Inputs
) -> tuple[Array, ...]:
    *tokens, positions, targets = inputs
    target = targets.reshape(-1, 1)

    def read(hidden: Float[Array, "B P D"]) -> tuple[Array, Array, Array, Array]:
        logits = model.apply({"params": params}, hidden, method=model.restore_words)
        logits = logits.reshape(-1, logits.shape[-1])
        of_target = jnp.take_along_axis(logits, target, axis=1)
        probs = jax.nn.softmax(logits, axis=-1)
        likeliest, ids = jax.lax.top_k(probs, top_k)
        rank = 1 + (logits > of_target).sum(axis=1)
        return jnp.take_along_axis(probs, target, axis=1)[:, 0], rank, likeliest, ids

    states = model.apply({"params": params}, *tokens, method=_trace_states)
    hidden = jnp.take_along_axis(states, positions[None, :, :, None], axis=2)
    # A layer at a time: the logits of all layers together would be L times as large.
    readings = jax.lax.map(read, hidden)
    return tuple(part.reshape(len(hidden), *positions.shape, *part.shape[2:]) for part in readings)


def _trace_states(
    model: BertForMaskedLM, *inputs: Integer[Array, "B T"]
) -> Float[Array, "L+1 B T D"]:
    states = model.bert(*inputs, trace=("embedded", "hidden")).trace.hidden_states
    return model.bert.encoder.normalize_states(states)

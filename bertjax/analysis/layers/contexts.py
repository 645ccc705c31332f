"""Where in a corpus a word is used as it is here: the nearest hidden states."""

import difflib
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.analysis.capture.encoding import EncodedText, mean_over_words
from bertjax.analysis.capture.maps import capture
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import counted


class Place(NamedTuple):
    """A word of a corpus.

    Attributes:
        text: the number of the text among those given.
        word: the number of the word among the text's `words`.
    """

    text: int
    word: int


class Context(NamedTuple):
    """A place, and how near its hidden state is.

    Attributes:
        place: where it is.
        similarity: cosine, in [-1, 1].
        left, center, right: the words around it, a space between them.
    """

    place: Place
    similarity: float
    left: str
    center: str
    right: str


class NearestContexts(NamedTuple):
    """The nearest of all places that were compared.

    Attributes:
        contexts: the nearest first.
        compared: how many places there were.
        mean, deviation: of the similarity to all of them. Hidden states fill a narrow cone, so that
            a cosine says little without these (Ethayarajh 2019).
    """

    contexts: tuple[Context, ...]
    compared: int
    mean: float
    deviation: float


def find_word(texts: Sequence[EncodedText], word: str) -> list[Place]:
    """Finds every place where the word occurs, ignoring case.

    Args:
        texts: of the corpus.
        word: as it is written there.

    Raises:
        UserError: it does not occur.
    """
    wanted = word.casefold()
    places = [
        Place(number, index)
        for number, text in enumerate(texts)
        for index, (other, special) in enumerate(zip(text.words, text.special_words, strict=True))
        if not special and other.casefold() == wanted
    ]
    if not places:
        known = {other.casefold() for text in texts for other in text.words}
        near = difflib.get_close_matches(wanted, sorted(known), 3)
        hint = f"; near to it are {', '.join(near)}" if near else ""
        raise UserError(f"the word {word!r} does not occur in {counted(len(texts), 'text')}{hint}")
    return places


def nearest_contexts(
    body: Model,
    query: EncodedText,
    word: int,
    corpus: Sequence[EncodedText],
    *,
    layer: int,
    top: int = 10,
    same_word: bool = True,
    window: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> NearestContexts:
    """Finds the places of a corpus whose hidden state is most similar to that of a word.

    Memory does not grow with the corpus. Held against the random control
    (`capture.randomize(body)`), it shows what of the nearness is mere sameness of the words.

    Args:
        body: the model.
        query: the text with the word; it is passed over where the corpus has the same text.
        word: the number of the word in `query.words`.
        corpus: texts encoded by the same tokenizer.
        layer: 0 = the embeddings' output, L = the last layer's.
        top: how many contexts are wanted.
        same_word: compare with the same word only; False compares with every word.
        window: words that are shown on either side.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: no such layer or word, or a word that the corpus does not have.

    Source: Wiedemann et al. 2019, section 3 (nearest neighbours of contextual embeddings).
    """
    last = body.config.num_hidden_layers
    if not 0 <= layer <= last:
        raise UserError(
            f"layer {layer}: hidden states are numbered from 0 (the embeddings' output) to {last}"
            " (the last layer's)"
        )
    if top < 1:
        raise UserError(f"--top {top}: at least one context is shown")
    if not 0 <= word < len(query.words) or query.special_words[word]:
        raise UserError(f"word {word}: the text's words are numbered 1 to {len(query.words) - 2}")
    others = [
        number
        for number, text in enumerate(corpus)
        if not np.array_equal(text.token_ids, query.token_ids)
    ]
    wanted = None
    if same_word:
        searched = [corpus[number] for number in others]
        wanted = {(others[p.text], p.word) for p in find_word(searched, query.words[word])}
        others = sorted({number for number, _ in wanted})
    [target] = capture(body, [query], hidden=True)
    direction = _normalize(mean_over_words(target.hidden[layer], target.encoded, axis=0)[word])
    nearest: list[tuple[float, Place]] = []
    compared, total, squares = 0, 0.0, 0.0
    for place, similarity in _compare(body, corpus, others, layer, direction, wanted, progress):
        compared, total = compared + 1, total + similarity
        squares += similarity**2
        if len(nearest) < top:
            heapq.heappush(nearest, (similarity, place))
        else:
            heapq.heappushpop(nearest, (similarity, place))
    contexts = tuple(
        _context(corpus[place.text], place, similarity, window)
        for similarity, place in sorted(
            nearest, key=lambda neighbour: (-neighbour[0], neighbour[1])
        )
    )
    if not compared:
        raise UserError("the corpus has no other text than the one with the word; give more texts")
    mean = total / compared
    return NearestContexts(contexts, compared, mean, max(0.0, squares / compared - mean**2) ** 0.5)


def _compare(
    body: Model,
    corpus: Sequence[EncodedText],
    numbers: Sequence[int],
    layer: int,
    direction: Float[np.ndarray, " D"],
    wanted: set[tuple[int, int]] | None,
    progress: Callable[[int], None],
) -> Iterator[tuple[Place, float]]:
    """Compares every place; gives it with its cosine."""
    texts = [corpus[number] for number in numbers]
    captures = capture(body, texts, hidden=True, progress=progress)
    for number, captured in zip(numbers, captures, strict=True):
        similarity = (
            _normalize(mean_over_words(captured.hidden[layer], captured.encoded, axis=0))
            @ direction
        )
        for index in np.flatnonzero(~captured.encoded.special_words):
            if wanted is None or (number, index) in wanted:
                yield Place(number, int(index)), float(similarity[index])


def _normalize(vectors: Float[np.ndarray, "*n D"]) -> Float[np.ndarray, "*n D"]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def _context(text: EncodedText, place: Place, similarity: float, window: int) -> Context:
    keep = ~text.special_words
    left = [text.words[k] for k in range(max(0, place.word - window), place.word) if keep[k]]
    end = min(len(text.words), place.word + 1 + window)
    right = [text.words[k] for k in range(place.word + 1, end) if keep[k]]
    return Context(place, similarity, " ".join(left), text.words[place.word], " ".join(right))

"""Texts as the model sees them, and where in the text every token comes from."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.program.errors import UserError
from bertjax.text.given_texts import Text
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import find_offsets

# Tokens of a window of a long text beside its frame.
_SHORTEST_WINDOW = 8
# Texts that `encode_stream` gives the tokenizer together.
_TEXTS_AT_ONCE = 64

TooLong = Literal["refuse", "windows"]


class EncodedText(NamedTuple):
    """A text or a pair of them in the tokenizer's frame: `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`.

    Attributes:
        token_ids: vocabulary ids.
        token_type_ids: 0 in A and the special tokens before B, 1 in B and those after it.
        offsets: each token's characters in A, or in B where the token type is 1, from the first to
            past the last; (0, 0) of special tokens.
        special: whether the token is one of the frame ([CLS], [SEP]).
        word_ids: which of `words` the token belongs to: 0, 1, 2, ... without a gap.
        tokens: as a reader is shown them (`Tokenizer.spell`).
        words: what the tokens are parts of: the pieces of the tokenizer's pre-tokenizer, as they
            stand in the text, or the words that were given. Special tokens are words of their own.
        source: which of the texts it is, or is a window of.
        window: which part of a long text, from 0.
    """

    token_ids: Int[np.ndarray, " T"]
    token_type_ids: Int[np.ndarray, " T"]
    offsets: Int[np.ndarray, "T 2"]
    special: Bool[np.ndarray, " T"]
    word_ids: Int[np.ndarray, " T"]
    tokens: tuple[str, ...]
    words: tuple[str, ...]
    source: int
    window: int

    def __repr__(self) -> str:
        return f"EncodedText({' '.join(self.tokens)!r})"

    @property
    def special_words(self) -> Bool[np.ndarray, " W"]:
        """Whether the word is a token of the frame ([CLS], [SEP])."""
        return self.special[self.first_tokens]

    @property
    def first_tokens(self) -> Int[np.ndarray, " W"]:
        """Each word's first token."""
        return np.searchsorted(self.word_ids, np.arange(len(self.words)))


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    max_length: int,
    *,
    too_long: TooLong = "refuse",
    places: Sequence[str] | None = None,
    masks: bool = False,
) -> list[EncodedText]:
    """Encodes texts, or pairs of them.

    Args:
        tokenizer: of the model.
        texts: each one text or a pair.
        max_length: tokens that the model has positions for.
        too_long: what becomes of a longer text: it is refused, or it comes as several windows that
            follow each other without overlap, cut between words (a word that is longer than a
            window by itself is in several). Pairs are always refused.
        places: what messages call each text, `file:line` for instance; text 1, text 2, ... when
            left out.
        masks: whether a text's `mask_token` is the mask (see `Tokenizer.encode`).

    Raises:
        UserError: a text that is empty, or too long and refused.
    """
    parts = [text if isinstance(text, tuple) else (text,) for text in texts]
    flat = tokenizer.encode([part for text in parts for part in text], masks=masks)
    encodings = iter(flat)
    result = []
    for source, text in enumerate(parts):
        place = f"text {source + 1}" if places is None else places[source]
        pieces = [_Piece.of(next(encodings), part) for part in text]
        if not all(len(piece.ids) for piece in pieces):
            raise UserError(f"{place}: nothing is left of it as tokens; leave it out")
        room = max_length - tokenizer.frame.size(pair=len(pieces) == 2)
        length = sum(len(piece.ids) for piece in pieces)
        if length <= room:
            result.append(_frame(tokenizer, pieces, source, 0))
        elif too_long == "refuse" or len(pieces) == 2 or room < _SHORTEST_WINDOW:
            way_out = "shorten it" if len(pieces) == 1 else "shorten it; pairs are not cut"
            if len(pieces) == 1 and too_long == "refuse":
                way_out += ", or let it be cut into windows (--too-long windows)"
            elif len(pieces) == 1:
                shortest = _SHORTEST_WINDOW + tokenizer.frame.size(pair=False)
                way_out += f", or allow windows of at least {shortest} tokens"
            raise UserError(
                f"{place}: {length + max_length - room} tokens, more than the {max_length} that are"
                f" allowed (the model's max_position_embeddings, or --max-length); {way_out}"
            )
        else:
            windows = _cut(pieces[0], room)
            result += [_frame(tokenizer, [part], source, k) for k, part in enumerate(windows)]
    return result


def encode_stream(
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, Text]],
    max_length: int,
    *,
    too_long: TooLong = "refuse",
    masks: bool = False,
) -> Iterator[EncodedText]:
    """Encodes any number of texts; memory does not grow with it.

    Args:
        tokenizer: of the model.
        texts: each a place (see `encode_texts`), and a text or a pair.
        max_length, too_long, masks: as in `encode_texts`.

    Raises:
        UserError: as `encode_texts`, when the text is reached.
    """
    remaining, first = iter(texts), 0
    while batch := list(itertools.islice(remaining, _TEXTS_AT_ONCE)):
        places = [place for place, _ in batch]
        encoded = encode_texts(
            tokenizer,
            [text for _, text in batch],
            max_length,
            too_long=too_long,
            places=places,
            masks=masks,
        )
        for text in encoded:
            yield text._replace(source=first + text.source)
        first += len(batch)


def encode_words(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_length: int
) -> list[EncodedText | None]:
    """Encodes sentences that come in words, of a treebank for instance.

    The words of the result are those of the sentence one for one, between the special tokens. A
    word of which the tokenizer leaves nothing is its unknown token. Offsets count the characters of
    each word by itself.

    Returns:
        One result a sentence; None for one that is longer than `max_length` tokens.
    """
    result: list[EncodedText | None] = []
    room, space = max_length - tokenizer.frame.size(pair=False), tokenizer.word_space
    for source, sentence in enumerate(sentences):
        spaced = [space + word for word in sentence]
        encodings = tokenizer.encode(spaced)
        ids, offsets, word_ids = [], [], []
        for number, encoding in enumerate(encodings):
            ids += encoding.ids or [tokenizer.unk_id]
            characters = find_offsets(encoding, spaced[number]) - len(space)
            offsets += np.maximum(characters, 0).tolist() or [(0, len(sentence[number]))]
            word_ids += [number] * max(1, len(encoding.ids))
        piece = _Piece(
            np.array(ids, np.int64),
            np.array(offsets, np.int64).reshape(-1, 2),
            np.array(word_ids, np.int64),
            tuple(sentence),
        )
        result.append(_frame(tokenizer, [piece], source, 0) if len(ids) <= room else None)
    return result


def merge_subwords(
    probs: Float[np.ndarray, "... T T"], encoded: EncodedText
) -> Float[np.ndarray, "... W W"]:
    """Merges maps of tokens to maps of words: to a word the sum over its tokens, from it the mean.

    Returns:
        Maps whose rows sum to what the rows of `probs` do.

    Source: Clark et al. 2019, section 4.1.
    """
    to_words = np.add.reduceat(probs, encoded.first_tokens, axis=-1)
    return mean_over_words(to_words, encoded, axis=-2)


def mean_over_words(
    values: Float[np.ndarray, "..."], encoded: EncodedText, axis: int
) -> Float[np.ndarray, "..."]:
    """Returns the mean of each word over its tokens, in the dtype of the values.

    Args:
        values: of every token of the text.
        encoded: the text.
        axis: of the tokens; it becomes that of the words.

    Source: Hewitt & Manning 2019, section 3.1; Clark et al. 2019, section 4.1.
    """
    firsts = encoded.first_tokens
    sizes = np.diff([*firsts, len(encoded.tokens)]).astype(values.dtype)
    sums = np.add.reduceat(values, firsts, axis=axis)
    behind = values.ndim - 1 - axis % values.ndim
    return sums / sizes.reshape(-1, *[1] * behind)


def find_word_number(encoded: EncodedText, name: str) -> int:
    """Returns the number of a word that is named by itself or by its number.

    Args:
        encoded: the text.
        name: the word itself, upper and lower case alike, or its number, counted from 1.

    Raises:
        UserError: no such word, or several.
    """
    words = {
        number: encoded.words[number] for number in np.flatnonzero(~encoded.special_words).tolist()
    }
    numbers = [number for number, word in words.items() if word.casefold() == name.casefold()]
    if not numbers and name.isdecimal() and int(name) in words:
        return int(name)
    if len(numbers) == 1:
        return numbers[0]
    numbered = ", ".join(f"{number} {word}" for number, word in words.items())
    how = f"occurs {len(numbers)} times in the text" if numbers else "does not occur in the text"
    raise UserError(f"the word {name!r} {how}; name one by its number: {numbered}")


class _Piece(NamedTuple):
    """A text without its frame."""

    ids: Int[np.ndarray, " t"]
    offsets: Int[np.ndarray, "t 2"]
    word_ids: Int[np.ndarray, " t"]
    words: tuple[str, ...]

    @classmethod
    def of(cls, encoding: Any, text: str) -> "_Piece":
        """Takes the library's encoding; the words are its pre-tokenizer's."""
        offsets = find_offsets(encoding, text)
        raw = [-1 - k if word is None else word for k, word in enumerate(encoding.word_ids)]
        # Numbers without a gap, also where nothing is left of a word as tokens.
        numbers = {word: number for number, word in enumerate(dict.fromkeys(raw))}
        word_ids = np.array([numbers[word] for word in raw], np.int64)
        bounds = np.searchsorted(word_ids, np.arange(len(numbers) + 1))
        words = [
            # Some tokenizers count the space before a word as part of it.
            text[offsets[first, 0] : offsets[end - 1, 1]].strip()
            for first, end in itertools.pairwise(bounds)
        ]
        return cls(np.array(encoding.ids, np.int64), offsets, word_ids, tuple(words))

    def part(self, start: int, end: int) -> "_Piece":
        """Its tokens from start to before end, which are between words."""
        first, last = self.word_ids[start], self.word_ids[end - 1]
        return _Piece(
            self.ids[start:end], self.offsets[start:end], self.word_ids[start:end] - first,
            self.words[first : last + 1],
        )  # fmt: skip


def _cut(piece: _Piece, room: int) -> list[_Piece]:
    """Parts of at most so many tokens, between words where a word is not longer than that."""
    parts, start, total = [], 0, len(piece.ids)
    while start < total:
        end = min(start + room, total)
        if end < total:
            begins = int(np.searchsorted(piece.word_ids, piece.word_ids[end]))
            end = begins if begins > start else end
        parts.append(piece.part(start, end))
        start = end
    return parts


def _frame(tokenizer: Tokenizer, pieces: Sequence[_Piece], source: int, window: int) -> EncodedText:
    """Frames a text, or two."""
    parts = tokenizer.frame.parts(*(piece.ids for piece in pieces))
    starts = tokenizer.frame.starts([len(piece.ids) for piece in pieces])
    token_ids = np.concatenate(parts).astype(np.int64)
    special, begins = np.ones((2, len(token_ids)), bool)
    offsets = np.zeros((len(token_ids), 2), np.int64)
    for piece, start in zip(pieces, starts, strict=True):
        end = start + len(piece.ids)
        special[start:end], offsets[start:end] = False, piece.offsets
        begins[start:end] = np.diff(piece.word_ids, prepend=-1) > 0
    tokens = tuple(
        tokenizer.spell(id, begins_word=begins_word)
        for id, begins_word in zip(token_ids, begins, strict=True)
    )
    words, done = [], 0
    for piece, start in zip(pieces, starts, strict=True):
        words += [*tokens[done:start], *piece.words]
        done = start + len(piece.ids)
    return EncodedText(
        token_ids,
        (np.arange(len(token_ids)) >= [*starts, len(token_ids)][1]).astype(np.int64),
        offsets,
        special,
        np.cumsum(begins) - 1,
        tokens,
        (*words, *tokens[done:]),
        source,
        window,
    )

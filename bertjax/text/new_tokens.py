"""More tokens for a tokenizer that exists, for the words of a text that it cuts.

What is added is part of the vocabulary, as if it had been made with it:

- WordPiece: whole words. A word that begins with a new one, and whose beginning was shorter before,
  is cut behind it from then on, as everywhere in WordPiece.
- BPE: merges of the tokens that stand beside each other most often, one after the other, behind all
  merges that there are (continued training of BPE, Purason et al. 2025, arXiv 2512.03989): whatever
  has no such pair is cut as before. Words given whole would need tokens for all their beginnings.
- Unigram: whole words, each a little more probable than the pieces that it was cut into: what does
  not hold exactly these pieces is cut as before.

Words are chosen by the tokens that they save (AVocaDo, Hong et al. 2021, arXiv 2110.13434, adds
domain words by how they are cut, too). Added tokens beside the vocabulary, as transformers'
`add_tokens` makes them, would be found within words, and be no words for whole-word masking.
"""

import collections
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.text.tokenizer import Tokenizer

# What occurs less often is not learned.
_LEAST_COUNT = 5
# Nats by which a new piece of Unigram is above those that it stands for.
_MARGIN = 0.01


class NewToken(NamedTuple):
    """A token that was added.

    Attributes:
        token: as the vocabulary spells it.
        id: its id.
        pieces: the ids of what stood there before.
        count: how often it is used in the text.
    """

    token: str
    id: int
    pieces: tuple[int, ...]
    count: int


class _Wish(NamedTuple):
    """A token to add; `parts` are the two tokens that a merge makes it of."""

    token: str
    pieces: tuple[int, ...]
    count: int
    parts: tuple[str, str] | None = None

    @property
    def saved(self) -> int:
        """Tokens that it saves; a word that the vocabulary cannot spell counts as one."""
        return self.count * max(1, len(self.pieces) - 1)


def add_new_tokens(
    tokenizer: Tokenizer, counts: Mapping[str, int], number: int
) -> tuple[Tokenizer, list[NewToken]]:
    """Adds the tokens that save the most in a text, fewer where it has no more to save.

    Args:
        tokenizer: stays as it is.
        counts: how often each word of the text occurs.
        number: of tokens, at most.

    Returns:
        The tokenizer with them, and the tokens, in the order of their ids, which follow on the last
        that there was.

    Raises:
        UserError: the tokenizer is of a kind, or has parts, that do not allow it.
    """
    choose = _CHOICES.get(tokenizer.kind)
    if choose is None:
        raise UserError(
            f"{tokenizer.name}: is a {tokenizer.kind} tokenizer, which cuts no word into pieces"
            " that a new token could begin from; leave new tokens out"
        )
    wishes = choose(tokenizer, counts, number)
    first = tokenizer.vocab_size
    new = [
        NewToken(wish.token, first + place, wish.pieces, wish.count)
        for place, wish in enumerate(wishes)
    ]
    return tokenizer.with_parts(model=_model_with(tokenizer, wishes)), new


def _model_with(tokenizer: Tokenizer, wishes: Sequence[_Wish]) -> dict[str, Any]:
    """Returns the model of the tokenizer.json with the tokens at its end.

    Tokens that the tokenizer has beside its vocabulary come into it, under their ids: they would
    have to make room otherwise.
    """
    model = dict(tokenizer.parts["model"])
    first, vocab = tokenizer.vocab_size, model["vocab"]
    beside = {token["content"]: token["id"] for token in tokenizer.parts["added_tokens"]}
    if isinstance(vocab, dict):
        places = {wish.token: first + place for place, wish in enumerate(wishes)}
        model["vocab"] = {**beside, **vocab, **places}
    else:
        there = {token for token, _ in vocab}
        beside = {token: id for token, id in beside.items() if token not in there}
        if sorted(beside.values()) != list(range(len(vocab), first)):
            raise UserError(
                f"{tokenizer.name}: its ids have gaps, which a Unigram vocabulary cannot have; new"
                " tokens cannot be added to it"
            )
        scores = [score for _, score in vocab]
        least = min(scores)
        model["vocab"] = [
            *vocab,
            *([token, 0.0] for token in sorted(beside, key=beside.get)),
            *(
                [wish.token, max(least, _MARGIN + sum(scores[id] for id in wish.pieces))]
                for wish in wishes
            ),
        ]
    if "merges" in model:
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        merges = [wish.parts for wish in wishes]
        model["merges"] = [
            *model["merges"],
            *(" ".join(parts) if as_text else list(parts) for parts in merges),
        ]
    return model


# -------------------------------------------------------------------- whole words


def _choose_words(spell: Callable[..., str | None]) -> Callable[..., list[_Wish]]:
    """Makes a choice of the words that save the most; `spell` gives a word's entry, or None."""

    def choose(tokenizer: Tokenizer, counts: Mapping[str, int], number: int) -> list[_Wish]:
        known = set(tokenizer.library.get_vocab(with_added_tokens=True))
        found: dict[str, _Wish] = {}
        for word, tokens, ids in _encode(tokenizer, counts):
            entry = spell(tokenizer, word, tokens, ids)
            if entry is not None and entry not in known:
                before = found[entry].count if entry in found else 0
                found[entry] = _Wish(entry, ids, before + counts[word])
        often = [wish for wish in found.values() if wish.count >= _LEAST_COUNT]
        return sorted(often, key=lambda wish: (-wish.saved, wish.token))[:number]

    return choose


def _spell_wordpiece(
    tokenizer: Tokenizer, word: str, tokens: Sequence[str], ids: Sequence[int]
) -> str | None:
    """Returns a word as WordPiece looks it up; None for what it does not take for one word."""
    library = tokenizer.library
    spelled = word if library.normalizer is None else library.normalizer.normalize_str(word)
    parts = library.pre_tokenizer.pre_tokenize_str(spelled)
    longest = tokenizer.parts["model"]["max_input_chars_per_word"]
    return parts[0][0] if len(parts) == 1 and len(parts[0][0]) <= longest else None


def _spell_unigram(
    tokenizer: Tokenizer, word: str, tokens: Sequence[str], ids: Sequence[int]
) -> str | None:
    """Returns the pieces of a word as one; None where they are no word of known letters."""
    if len(ids) < 2 or tokenizer.unk_id in ids or not tokens[0].startswith("▁"):
        return None
    return None if any("▁" in token for token in tokens[1:]) else "".join(tokens)


def _encode(
    tokenizer: Tokenizer, counts: Mapping[str, int]
) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """Yields every word with its tokens and their ids."""
    words = list(counts)
    encoded = tokenizer.encode_batch([tokenizer.word_space + word for word in words])
    for word, ids in zip(words, encoded, strict=True):
        known = tuple(ids.tolist())
        yield word, list(map(tokenizer.library.id_to_token, known)), known


# -------------------------------------------------------------------- merges


def _choose_merges(tokenizer: Tokenizer, counts: Mapping[str, int], number: int) -> list[_Wish]:
    """Returns the tokens of the next merges of BPE, in their order."""
    model = tokenizer.parts["model"]
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UserError(
                f"{tokenizer.name}: its BPE marks pieces by {name}={model[name]!r}; new tokens can"
                " be added to BPE without such marks alone"
            )
    known = set(tokenizer.library.get_vocab(with_added_tokens=True))
    pieces: dict[str, tuple[int, ...]] = {}
    words, often = [], []
    for word, tokens, ids in _encode(tokenizer, counts):
        # A byte that stands for itself is no text that could be part of a longer token.
        is_text = not (model.get("byte_fallback") and any(map(_is_byte, tokens)))
        if len(ids) > 1 and tokenizer.unk_id not in ids and is_text:
            words.append(tokens)
            often.append(counts[word])
            pieces |= {token: (id,) for token, id in zip(tokens, ids, strict=True)}
    wishes = []
    for left, right, count in _learn_merges(words, often, known):
        if len(wishes) == number or count < _LEAST_COUNT:
            break
        pieces[left + right] = pieces[left] + pieces[right]
        wishes.append(_Wish(left + right, pieces[left + right], count, (left, right)))
    return wishes


def _is_byte(token: str) -> bool:
    return token.startswith("<0x") and token.endswith(">")


def _learn_merges(
    words: list[list[str]], counts: Sequence[int], known: set[str]
) -> Iterator[tuple[str, str, int]]:
    """Yields the most frequent pair of neighbours, merges it, and so on.

    Args:
        words: the tokens of each; they are changed.
        counts: how often each word occurs.
        known: tokens that no merge may make: they are there, and are made of other pairs.

    Source: Sennrich et al. 2016, algorithm 1, with counts that are kept up to date.
    """
    totals: collections.Counter[tuple[str, str]] = collections.Counter()
    places: dict[tuple[str, str], set[int]] = collections.defaultdict(set)

    def count(number: int, sign: int) -> None:
        for pair in itertools.pairwise(words[number]):
            totals[pair] += sign * counts[number]
            places[pair].add(number)

    for number in range(len(words)):
        count(number, 1)
    heap = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(heap)
    while heap:
        total, pair = heapq.heappop(heap)
        if -total != totals[pair]:  # it was merged in part since
            if totals[pair] > 0:
                heapq.heappush(heap, (-totals[pair], pair))
            continue
        token = "".join(pair)
        if token in known:
            continue
        known.add(token)
        yield *pair, -total
        changed: set[tuple[str, str]] = set()
        for number in places.pop(pair):
            count(number, -1)
            words[number] = _merge(words[number], pair, token)
            count(number, 1)
            changed |= set(itertools.pairwise(words[number]))
        for new in changed:
            if token in new:
                heapq.heappush(heap, (-totals[new], new))


def _merge(tokens: list[str], pair: tuple[str, str], token: str) -> list[str]:
    merged: list[str] = []
    place = 0
    while place < len(tokens):
        is_pair = tuple(tokens[place : place + 2]) == pair
        merged.append(token if is_pair else tokens[place])
        place += 1 + is_pair
    return merged


_CHOICES: dict[str, Callable[[Tokenizer, Mapping[str, int], int], list[_Wish]]] = {
    "WordPiece": _choose_words(_spell_wordpiece),
    "Unigram": _choose_words(_spell_unigram),
    "BPE": _choose_merges,
}

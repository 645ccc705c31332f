"""New tokenizers from text: WordPiece, byte-level BPE, Unigram, whole words, characters.

The words are counted first, and the library's trainers get them sorted, because otherwise their
result depends on the order of a hash table: the same text always gives the same tokenizer.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bertjax.program.errors import UserError
from bertjax.text.cleaning import Form
from bertjax.text.special_tokens import STYLES, Style
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build, build_wordpiece
from bertjax.text.tokenizer_templates import Family, Kind, make_template

if TYPE_CHECKING:
    import tokenizers

# Distinct words held while counting; beyond this, words seen once are forgotten.
MOST_COUNTED_WORDS = 4_000_000
# Words that go to the library's trainer at once.
_WORDS_AT_ONCE = 10_000


@dataclasses.dataclass
class VocabularyConfig:
    """The kind of tokenizer to make.

    Attributes:
        kind: wordpiece (BERT's), bpe (byte-level, as in GPT-2), unigram (as in SentencePiece), word
            (whole words), character; that of the family when not given.
        vocab_size: Tokens in the vocabulary, special tokens included. Kinds word and character may
            leave it out: word then takes every word that is frequent enough, and character as many
            tokens as are needed to spell every character of the text.
        lowercase: Lower-case all text, as uncased BERT did; false makes a cased tokenizer. When not
            given, true for the families of BERT and ALBERT.
        strip_accents: Remove accents from letters, so that año becomes ano and señora senora, as
            uncased BERT did; they are kept unless this is true.
        minimum_frequency: How often a word, character or pair of pieces must occur to be a token;
            2 when not given, and 1 for kind character.
        family: The models that it is for, by the model_type of their config.json: it has their
            special tokens, and frames and reads texts as their published tokenizers do.
    """

    kind: Kind | None = None
    vocab_size: int | None = None
    lowercase: bool | None = None
    strip_accents: bool = False
    minimum_frequency: int | None = None
    family: Family = "bert"

    def __post_init__(self) -> None:
        if self.kind is None:
            self.kind = self.style.kind or "wordpiece"
        if self.style.kind not in (None, self.kind):
            raise UserError(
                f"kind={self.kind}: the tokenizers of family={self.family} are of kind"
                f" {self.style.kind}; leave --kind out"
            )
        if self.lowercase is None:
            self.lowercase = self.style.lowercase
        if self.vocab_size is None and self.kind in ("wordpiece", "bpe", "unigram"):
            raise UserError(
                f"vocab_size is missing: a {self.kind} vocabulary has the size you choose; pass"
                " --vocab-size 8192, say (BERT has 30522)"
            )
        special = len(self.specials)
        if self.vocab_size is not None and self.vocab_size < special + 2:
            raise UserError(
                f"vocab_size={self.vocab_size} must be at least {special + 2}:"
                f" {special} special tokens and something to spell"
            )
        if self.minimum_frequency is None:
            self.minimum_frequency = 1 if self.kind == "character" else 2
        if self.minimum_frequency < 1:
            raise UserError(f"minimum_frequency={self.minimum_frequency} must be at least 1")

    @property
    def style(self) -> Style:
        """The special tokens of the family, and their frame."""
        return STYLES[self.family]

    @property
    def specials(self) -> list[str]:
        """The tokens that no text has, those with low ids first."""
        return [*self.style.first, *self.style.last]

    def lay_out(self, ordinary: Sequence[str]) -> list[str]:
        """Returns all tokens in the order of their ids.

        Args:
            ordinary: the tokens beside the special ones.
        """
        return [*self.style.first, *ordinary, *self.style.last]


def describe_normalization(config: VocabularyConfig) -> str:
    """Describes what happens to the letters of a text."""
    case = "lower case only" if config.lowercase else "upper and lower case"
    return f"{case}, accents {'removed' if config.strip_accents else 'kept'}"


def train_tokenizer(
    texts: Iterable[str], config: VocabularyConfig, form: Form = "NFC"
) -> Tokenizer:
    """Makes a tokenizer from texts; the same texts give the same tokenizer.

    Special tokens have the ids of the family's published models, 0 to 4 for BERT. `unigram` is
    exact up to ties: the library's trainer adds floating-point numbers in no fixed order, so scores
    are rounded and equal ones sorted.

    Args:
        texts: read once, never held; memory holds the distinct words.
        config: the kind and size.
        form: the Unicode normal form of the texts.

    Raises:
        UserError: there are no words, or they have fewer tokens than `vocab_size`.
    """
    template = make_template(
        config.kind, config.family, config.lowercase, config.strip_accents, form
    )
    words = count_words(texts, template)
    if not words:
        raise UserError("the input has no words, so there is nothing to make a tokenizer from")
    library = _TRAINERS[config.kind](words, template, config)
    library.normalizer = template.normalizer
    supported = library.get_vocab_size()
    if config.vocab_size is not None and supported < config.vocab_size:
        without = " or leave it out" if config.kind in ("word", "character") else ""
        raise UserError(
            f"vocab_size={config.vocab_size} is more than the text supports: its"
            f" {len(words):,} distinct words give {supported} tokens that occur at least"
            f" {config.minimum_frequency} times; pass --vocab-size {supported}{without}, or give"
            " more text"
        )
    names = ["input_ids", *["token_type_ids"] * config.style.token_types, "attention_mask"]
    return Tokenizer(library, declared={"model_input_names": names})


def count_words(texts: Iterable[str], template: "tokenizers.Tokenizer") -> Counter[str]:
    """Counts the words that the template's pre-tokenizer finds in texts.

    Space-separated words are counted first and go through the template once each, which is many
    times as fast as the whole text.
    """
    words: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text.split())
        if len(raw) > MOST_COUNTED_WORDS:
            _fold(raw, words, template)
    _fold(raw, words, template)
    return words


def _fold(raw: Counter[str], words: Counter[str], template: "tokenizers.Tokenizer") -> None:
    from tokenizers import pre_tokenizers

    # Byte-level BPE has the space before a word in its token, and in a text nearly every word has.
    space = " " if isinstance(template.pre_tokenizer, pre_tokenizers.ByteLevel) else ""
    for text, count in raw.items():
        normalized = space + template.normalizer.normalize_str(text)
        for word, _ in template.pre_tokenizer.pre_tokenize_str(normalized):
            words[word] += count
    raw.clear()
    if len(words) > MOST_COUNTED_WORDS:
        for word in [word for word, count in words.items() if count == 1]:
            del words[word]


def _with_model(
    template: "tokenizers.Tokenizer", model: Any, style: Style
) -> "tokenizers.Tokenizer":
    return build(model, template.normalizer, template.pre_tokenizer, template.decoder, style)


def _train_wordpiece(
    words: Counter[str], template: "tokenizers.Tokenizer", config: VocabularyConfig
) -> "tokenizers.Tokenizer":
    from tokenizers import models, trainers

    # Every character may begin a word and continue one. The most frequent are kept where the
    # vocabulary has no room for all (Chinese).
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    most = (config.vocab_size - len(config.specials)) // 2
    characters = sorted(_most_frequent(counts, config.minimum_frequency, most))
    symbols = [*characters, *("##" + character for character in characters)]
    known = set(characters)
    spelled = Counter(
        {
            word: count
            for word, count in words.items()
            if len(word) <= 100 and known.issuperset(word)
        }
    )
    # The trainer numbers the symbols as it meets them, in the order of a hash table, and breaks
    # ties by those numbers. As "special tokens" they are numbered in our order beforehand.
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.minimum_frequency,
        show_progress=False,
        special_tokens=[*config.specials, *symbols],
        continuing_subword_prefix="##",
    )
    tokens = _run_trainer(spelled, models.WordPiece(unk_token="[UNK]"), trainer)
    return build_wordpiece(tokens, config.lowercase, config.strip_accents)


def _train_characters(
    words: Counter[str], template: "tokenizers.Tokenizer", config: VocabularyConfig
) -> "tokenizers.Tokenizer":
    """Makes a WordPiece whose pieces are single characters: `c` begins a word, `##c` continues one.

    A character with one form gets the other, too, unless it is always a word of its own
    (punctuation, Chinese): otherwise a known character in a new place would be [UNK].
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    symbols: list[str] = []
    for character in _most_frequent(counts, config.minimum_frequency, None):
        symbols.append(character)
        if _joins_others(character, template):
            symbols.append("##" + character)
    most = None if config.vocab_size is None else config.vocab_size - len(config.specials)
    symbols = sorted(symbols[:most])
    return build_wordpiece([*config.specials, *symbols], config.lowercase, config.strip_accents)


def _train_words(
    words: Counter[str], template: "tokenizers.Tokenizer", config: VocabularyConfig
) -> "tokenizers.Tokenizer":
    from tokenizers import models

    for token in config.specials:
        words.pop(token, None)
    most = None if config.vocab_size is None else config.vocab_size - len(config.specials)
    tokens = config.lay_out(_most_frequent(words, config.minimum_frequency, most))
    vocabulary = {token: id for id, token in enumerate(tokens)}
    model = models.WordLevel(vocabulary, unk_token=config.style.tokens.unk)
    return _with_model(template, model, config.style)


def _train_bpe(
    words: Counter[str], template: "tokenizers.Tokenizer", config: VocabularyConfig
) -> "tokenizers.Tokenizer":
    import json

    from tokenizers import models, pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.minimum_frequency,
        show_progress=False,
        special_tokens=config.specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    least = len(config.specials) + len(pre_tokenizers.ByteLevel.alphabet())
    if config.vocab_size < least:
        raise UserError(
            f"vocab_size={config.vocab_size} must be at least {least} for a byte-level BPE: 256"
            f" bytes and {len(config.specials)} special tokens; pass --vocab-size {least} or more"
        )
    unknown = config.style.tokens.unk
    trained = _trained(words, models.BPE(unk_token=unknown), trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokens = config.lay_out(sorted(model["vocab"], key=model["vocab"].get)[len(config.specials) :])
    vocabulary = {token: id for id, token in enumerate(tokens)}
    return _with_model(template, models.BPE(vocabulary, merges, unk_token=unknown), config.style)


def _train_unigram(
    words: Counter[str], template: "tokenizers.Tokenizer", config: VocabularyConfig
) -> "tokenizers.Tokenizer":
    import json

    from tokenizers import models, trainers

    frequent = Counter(
        {word: count for word, count in words.items() if count >= config.minimum_frequency}
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size,
        show_progress=False,
        special_tokens=config.specials,
        unk_token=config.style.tokens.unk,
    )
    trained = _trained(frequent, models.Unigram(), trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"][len(config.specials) :]
    # A special token that a text spells out must not be the best way to read it.
    scores = dict.fromkeys(config.specials, -1000.0) | dict(_in_fixed_order(pieces))
    tokens = config.lay_out(list(scores)[len(config.specials) :])
    model = models.Unigram(
        [(token, scores[token]) for token in tokens],
        tokens.index(config.style.tokens.unk),
        byte_fallback=False,
    )
    return _with_model(template, model, config.style)


def _in_fixed_order(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Returns the pieces of a trained Unigram model, without traces of the order of additions.

    Scores differ from run to run in their last digits; and the characters that are kept only to
    be able to spell every word get scores from the lowest upwards, 0.0001 apart, in the order of a
    hash table. These all get the lowest; the rest are rounded to 6 digits; equal scores are sorted
    by the piece.
    """
    lowest = min(score for _, score in pieces)
    characters = sum(len(piece) == 1 for piece, _ in pieces)
    highest_kept = lowest + 0.0001 * (characters + 1)
    fixed = [
        (piece, round(lowest if len(piece) == 1 and score < highest_kept else score, 6))
        for piece, score in pieces
    ]
    return sorted(fixed, key=lambda pair: (-pair[1], pair[0]))


def _run_trainer(words: Counter[str], model: Any, trainer: Any) -> list[str]:
    vocabulary = _trained(words, model, trainer).get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _trained(words: Counter[str], model: Any, trainer: Any) -> "tokenizers.Tokenizer":
    """Trains on counted words: each is given as often as it occurs, in sorted order."""
    import tokenizers
    from tokenizers import pre_tokenizers

    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    library.train_from_iterator(_repeated(words), trainer)
    return library


def _repeated(words: Counter[str]) -> Iterator[str]:
    batch: list[str] = []
    for word in sorted(words):
        left = words[word]
        while left:
            some = min(left, _WORDS_AT_ONCE - len(batch))
            batch += [word] * some
            left -= some
            if len(batch) == _WORDS_AT_ONCE:
                yield "\n".join(batch)
                batch = []
    if batch:
        yield "\n".join(batch)


def _joins_others(character: str, template: "tokenizers.Tokenizer") -> bool:
    """Returns whether a character can be inside a word."""
    text = template.normalizer.normalize_str(f"a{character}a")
    return len(template.pre_tokenizer.pre_tokenize_str(text)) == 1


def _most_frequent(counts: Counter[str], minimum: int, most: int | None) -> list[str]:
    frequent = [item for item in counts.items() if item[1] >= minimum]
    frequent.sort(key=lambda item: (-item[1], item[0]))
    return [name for name, _ in frequent[:most]]


_TRAINERS = {
    "wordpiece": _train_wordpiece,
    "bpe": _train_bpe,
    "unigram": _train_unigram,
    "word": _train_words,
    "character": _train_characters,
}

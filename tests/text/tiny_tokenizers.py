"""A tokenizer of every kind, made of three texts."""

from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer

KINDS = {"wordpiece": 112, "bpe": 300, "unigram": 60, "word": None, "character": None}
TEXTS = [
    "The unbelievable cat believes in unlikely, likeable things; the cat isn't able to unlike it.",
    "Café owners believe that a likely story is able to be told. It's 1984, and 84 are left!",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t",
] * 3
SPANISH = ["El año de la señora pasó; el AÑO, la SEÑORA y el camino pasaron. Ano es otra cosa."] * 4


# In the kind of each, beside those that BERT has.
FAMILIES = {
    "roberta": 320, "xlm-roberta": 66, "camembert": 68, "modernbert": 320, "albert": 64
}  # fmt: skip


def make_of(family: str, **fields) -> Tokenizer:
    config = VocabularyConfig(family=family, vocab_size=FAMILIES[family], **fields)
    return train_tokenizer(TEXTS, config)


def make(kind: str, **fields) -> Tokenizer:
    return train_tokenizer(TEXTS, VocabularyConfig(kind=kind, vocab_size=KINDS[kind], **fields))

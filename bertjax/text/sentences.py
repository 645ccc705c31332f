"""Sentences, by sentencex."""

import functools
import itertools
import re

from bertjax.program.errors import UserError

# The languages for which sentencex has rules of its own; for another it takes those of a related
# one, or of English.
LANGUAGES_WITH_RULES = frozenset(
    [
        *("am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy"),
        *("it", "ja", "kk", "kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te"),
        "uk",
    ]
)

# Characters. What is longer is hardly a sentence.
LONGEST_SENTENCE = 1000
_WITHOUT_QUOTES = str.maketrans(dict.fromkeys("\"“”«»„‟‘’'()[]{}", " "))

# A few names that people type for codes.
_CODES = {
    "english": "en",
    "german": "de",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "portuguese": "pt",
    "russian": "ru",
    "chinese": "zh",
    "japanese": "ja",
    "arabic": "ar",
    "hindi": "hi",
    "dutch": "nl",
    "polish": "pl",
}


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text, in order, without the white space around them; a line's end always
    ends a sentence.

    Args:
        text: Any text; its lines are paragraphs.
        language: A language's code as Wikipedia has it: en, de, zh, pt-br, ...

    Raises:
        UserError: that is not the code of a language.
    """
    import sentencex

    check_language(language)
    # sentencex sees a paragraph between two line ends, each for itself, so that one call serves all
    # lines.
    found = sentencex.segment(language, text.replace("\n", "\n\n"))
    sentences = [sentence for part in found if (sentence := part.strip())]
    if max(map(len, sentences), default=0) <= LONGEST_SENTENCE:
        return sentences
    return [part for sentence in sentences for part in _cut_long_sentence(sentence, language)]


def _cut_long_sentence(sentence: str, language: str) -> list[str]:
    """Looks again for ends in what is too long for a sentence, as if it had no quotation marks.

    sentencex ends no sentence within quotation marks or brackets, and where one is never closed
    (a speech of several paragraphs, joined in one line) half a book becomes one sentence.
    """
    import sentencex

    if len(sentence) <= LONGEST_SENTENCE:
        return [sentence]
    masked = sentence.translate(_WITHOUT_QUOTES)  # as long as it was
    ends = list(itertools.accumulate(map(len, sentencex.segment(language, masked))))
    parts = (sentence[start:end] for start, end in itertools.pairwise([0, *ends]))
    return [stripped for part in parts if (stripped := part.strip())]


@functools.cache
def check_language(language: str) -> str:
    """Checks a language's code, and says by which rules its text is split.

    Returns:
        An empty string when sentencex has rules for this language, else a sentence that says what
        it does, for the user to see.

    Raises:
        UserError: not of the form of a code. (Which codes there are sentencex does not tell.)
    """
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", language):
        code = _CODES.get(language.lower()) or language.lower().replace("_", "-")
        hint = f"; did you mean {code!r}?" if re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", code) else ""
        raise UserError(
            f"language={language!r} is not a code of two or three small letters, "
            f"such as en, de or pt-br{hint}"
        )
    if language in LANGUAGES_WITH_RULES:
        return ""
    return (
        f"sentencex has no rules of its own for {language!r}: "
        "sentences are split by those of a related language, or of English"
    )

"""Sentences, split by sentencex."""

import functools
import itertools
import re

from bertjax.program.errors import UserError

# The languages for which sentencex has rules of its own; for any other it uses those of a related
# language, or of English.
LANGUAGES_WITH_RULES = frozenset(
    [
        *("am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy"),
        *("it", "ja", "kk", "kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te"),
        "uk",
    ]
)

# Characters; a longer one is hardly a sentence.
LONGEST_SENTENCE = 1000
_WITHOUT_QUOTES = str.maketrans(dict.fromkeys("\"“”«»„‟‘’'()[]{}", " "))

# Names that people type instead of codes.
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
    """Splits a text into sentences, in order, without surrounding white space; a line's end always
    ends a sentence.

    Args:
        text: Any text; its lines are paragraphs.
        language: A language's code as on Wikipedia: en, de, zh, pt-br, ...

    Raises:
        UserError: this is not the code of a language.
    """
    import sentencex

    check_language(language)
    # sentencex treats what is between two line ends as a paragraph, separately, so that one call is
    # enough for all lines.
    segments = sentencex.segment(language, text.replace("\n", "\n\n"))
    sentences = [sentence for part in segments if (sentence := part.strip())]
    if max(map(len, sentences), default=0) <= LONGEST_SENTENCE:
        return sentences
    return [part for sentence in sentences for part in _cut_long_sentence(sentence, language)]


def _cut_long_sentence(sentence: str, language: str) -> list[str]:
    """Looks again for ends in an overlong sentence, as if it had no quotation marks.

    sentencex ends no sentence within quotation marks or brackets, and where these are never closed
    (a speech of several paragraphs, joined on one line), half a book becomes one sentence.
    """
    import sentencex

    if len(sentence) <= LONGEST_SENTENCE:
        return [sentence]
    masked = sentence.translate(_WITHOUT_QUOTES)  # as long as before
    ends = list(itertools.accumulate(map(len, sentencex.segment(language, masked))))
    parts = (sentence[start:end] for start, end in itertools.pairwise([0, *ends]))
    return [stripped for part in parts if (stripped := part.strip())]


@functools.cache
def check_language(language: str) -> str:
    """Checks a language's code, and says which rules split its text.

    Args:
        language: for instance en or pt-br.

    Returns:
        An empty string where sentencex has rules for this language, else a sentence that gives the
        user what it does.

    Raises:
        UserError: not in the form of a code. (sentencex does not list the codes.)
    """
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", language):
        code = _CODES.get(language.lower()) or language.lower().replace("_", "-")
        hint = f"; did you mean {code!r}?" if re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", code) else ""
        raise UserError(
            f"language={language!r} is not a code of two or three lower-case letters, "
            f"such as en, de or pt-br{hint}"
        )
    if language in LANGUAGES_WITH_RULES:
        return ""
    return (
        f"sentencex has no rules of its own for {language!r}: "
        "it uses those of a related language, or of English"
    )

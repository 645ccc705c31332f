"""Sentences."""

import sentencex


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text; a sentence never crosses a line."""
    found = (
        part.strip() for line in text.split("\n") for part in sentencex.segment(language, line)
    )
    return [sentence for sentence in found if sentence]

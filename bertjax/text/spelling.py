"""How a tokenizer spells texts: capitals, accents, Chinese characters."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.program.strict_json import to_json
from bertjax.text.tokenizer_files import CONFIG_NAME, Beside, Spelling

if TYPE_CHECKING:
    import tokenizers

# A vocabulary has capitals, or accents, if more than this share of its words have: a few are words
# that somebody added and no text can reach.
SHARE = 0.01
# The classes of transformers that build their normalizer by tokenizer_config.json.
_BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")


def spelling_of_vocabulary(
    path: Path, tokens: Sequence[str], beside: Beside
) -> tuple[Spelling, list[str]]:
    """Returns how a `vocab.txt` spells texts: as the config says, otherwise as its words do.

    Args:
        path: the vocabulary's, for the notes.
        tokens: all of them.
        beside: the files beside it.

    Returns:
        The spelling, and sentences on what transformers would read differently, and on words that
            no text reaches.
    """
    config, judged = beside.config, judge_spelling(tokens)
    lowercase = config.get("do_lower_case")
    separates = config.get("tokenize_chinese_chars")
    spelling = Spelling(
        judged.do_lower_case if lowercase is None else lowercase,
        # Where only capitals are mentioned, transformers treats accents the same way.
        config.get("strip_accents", judged.strip_accents if lowercase is None else None),
        True if separates is None else separates,
    )
    notes = []
    if lowercase is None and spelling.effect != Spelling(True).effect:
        kept = [
            what
            for what, is_kept in (
                ("capital letters", not spelling.do_lower_case),
                ("accents", judged.strip_accents is False and "strip_accents" not in config),
            )
            if is_kept
        ]
        if kept:
            notes.append(
                f"{path}: its words have {' and '.join(kept)}, so texts keep theirs, too;"
                f" transformers would not, because no {CONFIG_NAME} says do_lower_case"
            )
    added = {token.content for _, token, _ in beside.numbered}
    added |= {token.content for token in beside.special}
    effect = spelling.effect
    lost = [token for token in tokens if _is_lost(token, effect) and token not in added]
    if lost:
        some = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        read = "in lower case" if effect.do_lower_case else "with their capital letters"
        read += ", without accents" if effect.strip_accents else ", with accents"
        notes.append(
            f"{path}: no text reaches {len(lost):,} of its tokens ({some}), because texts are read"
            f" {read}; if that is wrong, set do_lower_case and strip_accents in a {CONFIG_NAME}"
            " beside it"
        )
    return spelling, notes


def judge_spelling(tokens: Sequence[str]) -> Spelling:
    """Returns the spelling with which a text can reach the words of a vocabulary.

    Only tokens made of letters count: `<S>`, `[ENT_START]` and `[unused1]` are marks, not words.
    Words all in capitals (`URL`) do not prove that there are capitals, unless there are no others.
    A single letter proves it: a vocabulary made from text has its alphabet.
    """
    words = [word for token in tokens if (word := _word(token)) is not None]
    capital = [word for word in words if word != word.lower()]
    small = [word for word in words if word == word.lower() and word != word.upper()]
    mixed = [word for word in capital if len(word) == 1 or not word.isupper()]
    is_cased = _counts(mixed, len(small)) or (bool(capital) and not small)
    accented = [word for word in words if _has_accent(word)]
    return Spelling(
        do_lower_case=not is_cased,
        strip_accents=False if _counts(accented, len(words)) else None,
    )


def heed_config(library: "tokenizers.Tokenizer", beside: Beside) -> list[str]:
    """Makes a `tokenizer.json` spell texts as the `tokenizer_config.json` beside it says.

    Where the two contradict each other, BERT's classes in transformers follow the config, and
    the others tokenizer.json; so does this.

    Args:
        library: made from the tokenizer.json; its normalizer is changed.
        beside: the files beside it.

    Returns:
        A sentence for every contradiction.
    """
    from tokenizers import normalizers

    config, path = beside.config, beside.folder / CONFIG_NAME
    kind = config.get("tokenizer_class")
    if kind is None and (beside.folder / "config.json").is_file():
        kind = _BERT_CLASSES[0]
    own = _spelling_of(library)
    said = {field: config[field] for field in own._fields if config.get(field) is not None}
    wanted = own._replace(**said)
    if "do_lower_case" in said and "strip_accents" not in said:
        wanted = wanted._replace(strip_accents=None)
    differing = [
        field
        for field, ours, theirs in zip(own._fields, own.effect, wanted.effect, strict=True)
        if ours != theirs
    ]
    if not differing:
        if kind in _BERT_CLASSES and not own.do_lower_case and "do_lower_case" not in said:
            return [
                f"{beside.folder / 'tokenizer.json'}: keeps capital letters, and so do we;"
                f" transformers would not, because no {CONFIG_NAME} says do_lower_case=false"
            ]
        return []
    contradiction = ", ".join(
        f"{field}={to_json(getattr(wanted.effect, field))}" for field in differing
    )
    what = f"{path}: {contradiction} contradicts tokenizer.json, which"
    does = " and ".join(_tell(field, getattr(own.effect, field)) for field in differing)
    if isinstance(library.normalizer, normalizers.BertNormalizer) and kind in (
        None,
        *_BERT_CLASSES,
    ):
        library.normalizer = normalizers.BertNormalizer(
            lowercase=wanted.do_lower_case,
            strip_accents=wanted.strip_accents,
            handle_chinese_chars=wanted.tokenize_chinese_chars,
        )
        return [f"{what} {does}; {CONFIG_NAME} wins, as in transformers"]
    return [f"{what} {does}; tokenizer.json wins"]


def describe_spelling(library: "tokenizers.Tokenizer") -> dict[str, str]:
    """Describes what a tokenizer does to a text before it looks for words, found by samples."""
    own = _spelling_of(library)
    state = json.loads(library.to_str())["normalizer"]
    steps = [] if state is None else state.get("normalizers", [state])
    return {
        "capital_letters": "lower-cased" if own.do_lower_case else "kept",
        "accents": "stripped" if own.strip_accents else "kept",
        "chinese_characters": "each a word" if own.tokenize_chinese_chars else "as other letters",
        "normalizer": ", ".join(step["type"] for step in steps) or "none",
    }


def _spelling_of(library: "tokenizers.Tokenizer") -> Spelling:
    """Returns what normalizer and pre-tokenizer do, found by samples."""

    def spell(text: str) -> str:
        return text if library.normalizer is None else library.normalizer.normalize_str(text)

    spelled = spell("\u4e00\u4e01")
    part = library.pre_tokenizer
    separates = len([spelled] if part is None else part.pre_tokenize_str(spelled)) > 1
    return Spelling("A" not in spell("A"), not _has_accent(spell("\u00e9")), separates)


def _word(token: str) -> str | None:
    """Returns the letters of an ordinary token; None where it has anything else."""
    word = token.removeprefix("##")
    if word.isascii():
        return word if word.isalpha() else None
    letters = (character for character in word if unicodedata.category(character)[0] != "M")
    return word if word and "".join(letters).isalpha() else None


def _has_accent(word: str) -> bool:
    """Returns whether stripping accents, as BERT's normalizer does, would change it."""
    if word.isascii():  # most are, and this is quick
        return False
    whole = unicodedata.normalize("NFD", word)
    return word != "".join(
        character for character in whole if unicodedata.category(character) != "Mn"
    )


def _counts(words: Sequence[str], total: int) -> bool:
    """Returns whether this many words are no accident."""
    return len(words) > SHARE * total or any(len(word) == 1 for word in words)


def _is_lost(token: str, spelling: Spelling) -> bool:
    word = _word(token)
    if word is None:
        return False
    lost = spelling.do_lower_case and word != word.lower()
    return lost or (bool(spelling.strip_accents) and _has_accent(word))


def _tell(field: str, value: bool) -> str:
    return {
        "do_lower_case": ("keeps capital letters", "lower-cases texts"),
        "strip_accents": ("keeps accents", "strips accents"),
        "tokenize_chinese_chars": (
            "does not separate Chinese characters", "separates Chinese characters"
        ),
    }[field][value]  # fmt: skip

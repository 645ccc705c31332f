"""New tokenizers before they have a vocabulary: how each kind and family reads a text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from bertjax.text.cleaning import Form
from bertjax.text.special_tokens import STYLES
from bertjax.text.tokenizer_parts import build, build_wordpiece

if TYPE_CHECKING:
    import tokenizers

Kind = Literal["wordpiece", "bpe", "unigram", "word", "character"]
Family = Literal[*STYLES]


def make_template(
    kind: Kind, family: Family, lowercase: bool, strip_accents: bool, form: Form
) -> "tokenizers.Tokenizer":
    """Returns a tokenizer that has special tokens only, with all parts but the vocabulary.

    Its normalizer begins with the normal form that the texts have, so that a letter and its accent
    written as two characters are read as in the corpus, here and in transformers.

    Args:
        kind: the family's, where it has only one.
        family: a model_type.
        lowercase: texts are lower-cased.
        strip_accents: accents are taken from letters.
        form: the Unicode normal form of the texts.

    Source: the tokenizers of the families in transformers, and ModernBERT's tokenizer.json.
        Differs: SentencePiece's rules nmt_nfkc are the library's Nmt and NFKC, not a compiled map.
    """
    from tokenizers import decoders, models, pre_tokenizers

    style, is_berts = STYLES[family], STYLES[family].kind is None
    names = [*style.first, *style.last]
    unknown, numbered = style.tokens.unk, {token: id for id, token in enumerate(names)}
    if kind in ("wordpiece", "character"):
        library = build_wordpiece(names, lowercase, strip_accents)
        library.normalizer = _normalizer(kind, family, lowercase, strip_accents, form)
        return library
    if kind == "word":
        model: Any = models.WordLevel(numbered, unk_token=unknown)
        pieces: Any = pre_tokenizers.BertPreTokenizer()
        decoder: Any = decoders.WordPiece("##")
    elif kind == "bpe":
        model = models.BPE(numbered, [], unk_token=unknown)
        pieces, decoder = pre_tokenizers.ByteLevel(add_prefix_space=is_berts), decoders.ByteLevel()
        if is_berts:  # the space before the first word is the pre-tokenizer's, not the text's
            decoder = decoders.Sequence([decoder, decoders.Strip(" ", 1, 0)])
    else:
        model = models.Unigram([(token, 0.0) for token in names], numbered[unknown], False)
        pieces = pre_tokenizers.Metaspace(prepend_scheme="always")
        if not is_berts:
            pieces = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces])
        decoder = decoders.Metaspace(prepend_scheme="always")
    normalizer = _normalizer(kind, family, lowercase, strip_accents, form)
    return build(model, normalizer, pieces, decoder, style)


def _normalizer(
    kind: Kind, family: Family, lowercase: bool, strip_accents: bool, form: Form
) -> Any:
    from tokenizers import normalizers

    # Stripping accents first separates letters and accents, whatever their form.
    needs_form = form == "NFKC" or (form == "NFC" and not strip_accents)
    forms = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}
    first = [forms[form]()] if needs_form else []
    if STYLES[family].kind is None:
        berts = normalizers.BertNormalizer(
            lowercase=lowercase,
            strip_accents=strip_accents,
            handle_chinese_chars=kind not in ("bpe", "unigram"),
        )
        return normalizers.Sequence([*first, berts]) if first else berts
    steps = [*first, *_steps_of(family)]
    if strip_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps)


def _steps_of(family: Family) -> Sequence[Any]:
    """Returns the steps that a family has beside those that may be chosen."""
    from tokenizers import normalizers

    if family == "albert":
        return [normalizers.Replace(two, '"') for two in ("``", "''")]
    if family in ("xlm-roberta", "camembert"):
        return [normalizers.Nmt(), normalizers.NFKC()]
    return []

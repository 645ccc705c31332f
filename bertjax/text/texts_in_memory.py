"""Documents of a Python program made into rows: cleaned, divided and packed as those of files."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bertjax.program.config_parser import make_config
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.text.cleaning import clean
from bertjax.text.given_texts import read_texts
from bertjax.text.preparation import prepare
from bertjax.text.preparation_options import PreparationOptions
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_templates import Family
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer


def write_documents(texts: Iterable[str], file: Path) -> list[str]:
    """Writes documents into a .jsonl file that a preparation reads; returns them.

    Raises:
        UserError: a document that is no text.
    """
    texts = read_texts(texts, pairs=False)
    lines = "".join(to_json({"text": text}) + "\n" for text in texts)
    file.write_text(lines, encoding="utf-8")
    return texts


def prepare_texts(
    texts: Iterable[str],
    tokenizer: Tokenizer | Path | str | None,
    vocab_size: int | None,
    output: Path,
    fields: Mapping[str, Any],
    note: Callable[[str], None],
    family: Family = "bert",
) -> None:
    """Makes a prepared directory of documents.

    Args:
        texts: the documents.
        tokenizer: a tokenizer, its directory or file; None makes one of the documents.
        vocab_size: of the tokenizer that is made.
        output: the directory to make.
        fields: of `PreparationOptions` (`make_config`).
        note: called with what is worth knowing of the text.
        family: of the models that the tokenizer is made for.

    Raises:
        UserError: what `prepare` and `train_tokenizer` raise; both or none of a tokenizer and its
            size; a document that is no text.
    """
    if (tokenizer is None) == (vocab_size is None):
        raise UserError(
            "texts need a tokenizer (tokenizer=DIR), or the size of one to make of them"
            " (vocab_size=8192, say); give one of the two"
        )
    with tempfile.TemporaryDirectory(prefix="bertjax-") as folder:
        documents = Path(folder) / "documents.jsonl"
        options = make_config(PreparationOptions, {**fields, "reader.input": [documents]})
        texts = write_documents(texts, documents)
        if tokenizer is None:
            cleaned = (clean(text, options.cleaning) for text in texts)
            config = VocabularyConfig(vocab_size=vocab_size, family=family)
            tokenizer = train_tokenizer(cleaned, config, options.cleaning.normalization)
        if isinstance(tokenizer, Tokenizer):
            tokenizer.save(Path(folder) / "tokenizer")
            tokenizer = Path(folder) / "tokenizer"
        try:
            prepare(options, os.fspath(tokenizer), output, note=note)
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}{os.sep}", "")) from None

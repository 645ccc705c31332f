"""A new tokenizer from text: `bertjax tokenizer --input F... --output DIR`."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence

from bertjax.commands.progress_bars import progress_bars
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.text.cleaning import TextCleaningConfig, clean
from bertjax.text.readers import DocumentConfig, list_sources, read_documents
from bertjax.text.tokenizer import TOKENIZER_FILES
from bertjax.text.tokenizer_training import (
    VocabularyConfig,
    describe_normalization,
    train_tokenizer,
)

DESCRIPTION = """Makes a tokenizer of raw text: tokenizer.json, tokenizer_config.json and, of kind
wordpiece, vocab.txt, which transformers loads, too."""


@dataclasses.dataclass(kw_only=True)
class TokenizerConfig(VocabularyConfig, DocumentConfig):
    """What to read, which vocabulary to make of it, and where to put it.

    Attributes:
        output: The directory to make.
        cleaning: How text is cleaned.
        overwrite: Replace what stands at output; until the new one is whole it stays.
        json: Print the summary as JSON.
    """

    output: str
    cleaning: TextCleaningConfig = dataclasses.field(default_factory=TextCleaningConfig)
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        VocabularyConfig.__post_init__(self)


def read_config(words: Sequence[str]) -> TokenizerConfig:
    """Returns the config that the words of the command line give."""
    return parse(TokenizerConfig, DESCRIPTION, words, program="bertjax tokenizer")


def run(config: TokenizerConfig) -> None:
    """Runs the program."""
    counts = {"documents": 0, "characters": 0, "documents_too_short": 0}
    # The output is claimed before the work: a name that is taken is said at once.
    claimed = whole_directory(config.output, config.overwrite, TOKENIZER_FILES, config.input)
    with claimed as partial, progress_bars() as report:
        tokenizer = train_tokenizer(
            _clean_texts(config, counts, report), config, config.cleaning.normalization
        )
        tokenizer.save(partial)
    summary = {
        "output": config.output,
        "family": config.family,
        "kind": config.kind,
        "vocab_size": tokenizer.vocab_size,
        "lowercase": config.lowercase,
        "strip_accents": config.strip_accents,
        "fingerprint": tokenizer.fingerprint,
        **counts,
    }
    text = to_json(summary, indent=2) + "\n" if config.json else _describe(summary, config)
    sys.stdout.write(text)


def _clean_texts(
    config: TokenizerConfig, counts: dict[str, int], report: Callable[[str, int, int | None], None]
) -> Iterator[str]:
    sources = list_sources(config)
    whole = not any(source.size is None or source.compressed for source in sources)
    total = sum(source.size for source in sources) if whole else None
    done = 0
    for source in sources:
        for document in read_documents(source, config, _tell):
            done += len(document.text)
            text = clean(document.text, config.cleaning)
            if len(text) < max(1, config.cleaning.minimum_characters):
                counts["documents_too_short"] += 1
                continue
            counts["documents"] += 1
            counts["characters"] += len(text)
            report("1 of 2: reading", done, total)
            yield text
    if not counts["documents"]:
        raise UserError(
            f"nothing is left of the input after cleaning: no document has minimum_characters="
            f"{config.cleaning.minimum_characters}; give other text, or pass"
            " --cleaning.minimum_characters 0"
        )
    report("2 of 2: training", 0, None)


def _tell(note: str) -> None:
    print(note, file=sys.stderr)


def _describe(summary: dict, config: TokenizerConfig) -> str:
    short = summary["documents_too_short"]
    left_out = (
        f" Left out: {counted(short, 'document')} shorter than cleaning.minimum_characters="
        f"{config.cleaning.minimum_characters}."
    )
    return (
        f"A {summary['kind']} vocabulary of {summary['vocab_size']:,} tokens for"
        f" {summary['family']} models"
        f" ({describe_normalization(config)}) from"
        f" {counted(summary['documents'], 'document')}, {summary['characters']:,} characters."
        f"{left_out if short else ''}\n"
        f"Saved in {summary['output']}\n"
    )

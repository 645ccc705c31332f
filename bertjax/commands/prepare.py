"""Raw text to rows: `bertjax prepare --input F... --tokenizer DIR --output DIR`."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from bertjax.commands.progress_bars import progress_bars
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.text.cleaning import CleaningConfig
from bertjax.text.duplicates import DuplicateConfig
from bertjax.text.pairs import PairConfig
from bertjax.text.preparation import prepare
from bertjax.text.preparation_options import PreparationOptions, RowConfig
from bertjax.text.readers import ReaderConfig
from bertjax.text.sentences import check_language
from bertjax.text.workers import count_cores

DESCRIPTION = """Makes a prepared directory of raw text: documents are read, cleaned, rid of
duplicates, split into train, validation and test, cut into sentences, tokenized, made into
next-sentence pairs and packed into rows of fixed length."""


@dataclasses.dataclass(kw_only=True)
class PrepareConfig(PairConfig, RowConfig, ReaderConfig):
    """What to read, what to make of it, and where to put it.

    Attributes:
        tokenizer: The tokenizer: a directory with tokenizer.json or vocab.txt, or such a file.
        output: The prepared directory to make.
        cleaning: How text is cleaned.
        duplicates: What counts as a duplicate.
        workers: Processes; null for one for each core. The result does not depend on it.
        overwrite: Replace what stands at output; until the new one is whole it stays.
        json: Print the summary as JSON.
    """

    tokenizer: str
    output: str
    cleaning: CleaningConfig = dataclasses.field(default_factory=CleaningConfig)
    duplicates: DuplicateConfig = dataclasses.field(default_factory=DuplicateConfig)
    workers: int | None = None
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        RowConfig.__post_init__(self)
        if self.sentence_per_line and self.language != "en":
            raise UserError(
                f"language={self.language} has no effect with sentence_per_line: no sentences are"
                " looked for; leave one of the two out"
            )
        if self.workers is None:
            self.workers = count_cores()
        if self.workers < 1:
            raise UserError(f"workers={self.workers} must be at least 1")


def read_config(words: Sequence[str]) -> PrepareConfig:
    """Returns the config that the words of the command line give."""
    return parse(PrepareConfig, DESCRIPTION, words, program="bertjax prepare")


def run(config: PrepareConfig) -> None:
    """Runs the program."""
    options = PreparationOptions(
        reader=_part(config, ReaderConfig),
        cleaning=config.cleaning,
        duplicates=config.duplicates,
        pairs=_part(config, PairConfig),
        rows=_part(config, RowConfig),
    )
    if note := check_language(config.language):
        print(note, file=sys.stderr)
    with progress_bars() as report:
        card = prepare(
            options,
            config.tokenizer,
            config.output,
            config.workers,
            config.overwrite,
            report,
            lambda text: print(text, file=sys.stderr),
        )
    summary = {"output": config.output, **_summary(card)}
    sys.stdout.write(to_json(summary, indent=2) + "\n" if config.json else _describe(summary))


def _part(config: PrepareConfig, kind: type) -> Any:
    """Returns the fields of the config that belong to one of its base classes, as that class."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


def _summary(card: dict[str, Any]) -> dict[str, Any]:
    splits = {
        name: {key: value for key, value in split.items() if key != "files"}
        for name, split in card["splits"].items()
    }
    names = ("fingerprint", "max_length", "examples_per_row", "vocab_size")
    return {
        **{name: card[name] for name in names},
        "counts": card["counts"],
        "splits": splits,
        "overlap_with_train": card["overlap_with_train"],
        "documents_cut": card["documents_cut"],
        "parts_of_cut_documents": card["parts_of_cut_documents"],
    }


def _describe(summary: dict[str, Any]) -> str:
    """Formats the summary for people."""
    counts = summary["counts"]

    def noun(number: int) -> str:
        return "document" if number == 1 else "documents"

    lines = [
        f"read         {counts['documents_read']:>12,} {noun(counts['documents_read'])},"
        f" {counts['characters_read']:,} characters",
        f"left out     {counts['documents_too_short']:>12,} too short,"
        f" {counts['documents_without_sentences']:,} without sentences,"
        f" {counts['boilerplate_lines_removed']:,} lines of boilerplate",
        f"duplicates   {counts['exact_duplicates_removed']:>12,} exact,"
        f" {counts['near_duplicates_removed']:,} near",
        f"kept         {counts['documents_kept']:>12,} {noun(counts['documents_kept'])}",
    ]
    if counts["unknown_tokens"]:
        share = counts["unknown_tokens"] / counts["tokens"]
        lines.append(f"unknown      {counts['unknown_tokens']:>12,} tokens, {share:.2%}")
    if summary["documents_cut"]:
        lines.append(
            f"cut          {summary['documents_cut']:>12,} of them, into"
            f" {summary['parts_of_cut_documents']:,} contiguous parts, so that each split has the"
            " share asked for; a part counts as a document from here on"
        )
    for name, split in summary["splits"].items():
        if not split["rows"]:
            continue
        lines.append(
            f"{name:<12} {split['rows']:>12,} rows of {summary['max_length']} tokens,"
            f" {split['efficiency']:.1%} filled: {split['share_of_tokens']:.1%} of the tokens,"
            f" {split['examples']:,} examples of {counted(split['documents'], 'document')}"
        )
        pairs = split["next_pairs"] + split["random_pairs"]
        if pairs:
            lines[-1] += f", {pairs:,} pairs ({split['random_pairs'] / pairs:.1%} random)"
        overlap = summary["overlap_with_train"].get(name)
        if overlap is not None:
            lines[-1] += f"; {overlap:.1%} of its 8-word runs occur in train"
    return "\n".join([*lines, f"saved in     {summary['output']}"]) + "\n"

"""Documents from files, folders, data sets and the embedded corpus, streamed."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple


@dataclasses.dataclass
class ReaderConfig:
    """Where the text comes from and how it is read.

    Attributes:
        input: Files, folders, globs, dataset:NAME, corpus:python.
        text_column: The column that holds the text.
        encoding: The encoding of text files.
        errors: What happens to bytes that are not of that encoding.
        sentence_per_line: Each line of a .txt file is one sentence.
        document_separator: What ends a document in a .txt file.
        unwrap_lines: Join hard-wrapped lines into paragraphs.
    """

    input: list[str]
    text_column: str = "text"
    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    sentence_per_line: bool = False
    document_separator: Literal["blank-line", "file"] = "blank-line"
    unwrap_lines: bool = False


class Document(NamedTuple):
    """One document."""

    source: str
    number: int
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """One file, data set or corpus."""

    name: str
    kind: str
    path: Path | None = None
    size: int | None = None

    def fingerprint(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def list_sources(config: ReaderConfig) -> list[Source]:
    """The sources that `config.input` names."""
    return [Source(name, "txt", Path(name), Path(name).stat().st_size) for name in config.input]


def read_documents(source: Source, config: ReaderConfig) -> Iterator[Document]:
    """The documents of one source, in order."""
    parts = source.path.read_text(encoding=config.encoding).split("\n\n")
    texts = (part.strip("\n") for part in parts if part.strip())
    yield from (Document(source.name, number, text) for number, text in enumerate(texts))

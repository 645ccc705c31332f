"""What there is to read: names on the command line become `Source`s, checked before any work
starts.
"""

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

Kind = Literal["txt", "jsonl", "json", "csv", "tsv", "parquet", "dataset", "corpus"]

FILE_KINDS = ("txt", "jsonl", "json", "csv", "tsv", "parquet")

_GZIP_MAGIC = b"\x1f\x8b"
# How files begin that people mistake for text, and what they are.
_MAGIC = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive (or an office document)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\x7fELF": "a program",
    b"PAR1": "Parquet data",
    b"ARROW1": "an Arrow file",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """One file, data set or corpus to read.

    Attributes:
        name: Its name in messages and the data card: the path as the user gave it, or
            `dataset:...`, `corpus:...`.
        kind: The reader it is for.
        path: The file; None for a data set or corpus.
        size: Bytes of the file (compressed, if it is); None for a data set or corpus.
        compressed: Whether the file is gzip.
        location: For a data set, NAME[/CONFIG]@SPLIT.
        packages: For the corpus, the installed packages whose documentation it holds besides
            Python's own.
    """

    name: str
    kind: Kind
    path: Path | None = None
    size: int | None = None
    compressed: bool = False
    location: str = ""
    packages: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Returns the sha256 in hex of the file's bytes, or of what the corpus was made from; for a
        data set only of its name.
        """
        if self.path:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if self.kind == "corpus":
            from bertjax.text import corpora

            return corpora.fingerprint(self.packages)
        return hashlib.sha256(f"{self.kind}:{self.location}".encode()).hexdigest()


def find_sources(
    names: Sequence[str],
    encoding: str,
    otherwise: Kind | None = None,
    kind: Kind | None = None,
    option: str = "",
    prefix: str = "--",
) -> list[Source]:
    """Returns the sources that `names` stand for, each once, in order.

    Args:
        names: Files, folders, globs, data sets, corpora.
        encoding: The encoding of the text files.
        otherwise: The kind of a file with an unknown suffix; None: such a file is an error.
        kind: The kind of every file, whatever its suffix.
        option: The option that gives the kind, for messages.
        prefix: What precedes `encoding` where that is an option, for messages.

    Raises:
        UserError: see `readers.list_sources`.
    """
    sources: dict[object, Source] = {}
    for name in names:
        if name.startswith("dataset:"):
            source = _dataset(name)
            sources.setdefault(source.location, source)
        elif name.startswith("corpus:"):
            source = _corpus(name)
            sources.setdefault(source.packages, source)
        else:
            for path in _files(name, kind is not None):
                if (real := path.resolve()) not in sources:
                    sources[real] = _file(path, encoding, otherwise, kind, option, prefix)
    return list(sources.values())


def _dataset(name: str) -> Source:
    parts = re.fullmatch(
        r"dataset:(?P<path>[\w.\-]+(?:/[\w.\-]+){0,2})(?:@(?P<split>[\w.\-\[\]:%+]+))?", name
    )
    if not parts:
        raise UserError(f"{name}: a data set is named dataset:ORG/NAME[/CONFIG][@SPLIT]")
    return Source(name, "dataset", location=f"{parts['path']}@{parts['split'] or 'train'}")


def _corpus(name: str) -> Source:
    import importlib.util

    corpus, _, packages = name.removeprefix("corpus:").partition("+")
    if corpus != "python":
        raise UserError(
            f"{name}: the only embedded corpus is corpus:python, or corpus:python+PACKAGE,PACKAGE"
        )
    names = tuple(sorted({package.strip() for package in packages.split(",") if package.strip()}))
    for package in names:
        if not package.isidentifier() or importlib.util.find_spec(package) is None:
            raise UserError(f"{name}: no package {package!r} is installed in this Python")
    return Source(name, "corpus", packages=names)


def _files(name: str, of_any_kind: bool) -> Iterator[Path]:
    """Yields the files that a name stands for, sorted: itself, or those of a folder or glob."""
    path = Path(name).expanduser()
    if path.is_dir():
        files = [file for file in _walk(path) if of_any_kind or _kind(file)]
        if not files:
            raise UserError(f"{name}: no file in this folder ends in {_suffixes()}")
        yield from files
    elif path.exists():
        yield path
    elif glob.has_magic(name):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        files = [
            file for match in matches for file in (_walk(match) if match.is_dir() else [match])
        ]
        files = [file for file in files if file in matches or of_any_kind or _kind(file)]
        if not files:
            raise UserError(f"{name}: no file matches this pattern")
        yield from files
    else:
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []
        where = "" if siblings else f" (there is no folder {path.parent})"
        raise UserError(f"{name}: no such file or folder{nearest(path.name, siblings)}{where}")


def _walk(folder: Path) -> list[Path]:
    """Returns every file below a folder except hidden ones, sorted by path."""
    return sorted(
        Path(where) / file
        for where, folders, files in os.walk(folder)
        if not _drop_hidden(folders)
        for file in files
        if not file.startswith(".")
    )


def _drop_hidden(folders: list[str]) -> None:
    # os.walk descends into what is left in this list.
    folders[:] = [folder for folder in folders if not folder.startswith(".")]


def _kind(path: Path) -> Kind | None:
    """Returns the kind that a path's suffix names, ignoring .gz."""
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in FILE_KINDS if name.endswith(f".{kind}")), None)


def _suffixes() -> str:
    return " ".join(f".{kind}" for kind in FILE_KINDS) + " (or one of these and .gz)"


def _file(
    path: Path, encoding: str, otherwise: Kind | None, kind: Kind | None, option: str, prefix: str
) -> Source:
    kind = kind or _kind(path) or otherwise
    if kind is None:
        way_out = f"say what it is with {option}" if option else "plain text is .txt"
        raise UserError(
            f"{path}: what kind of file is this? Its name must end in {_suffixes()}; {way_out}"
        )
    if not path.is_file():
        raise UserError(f"{path}: not a regular file")
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path}: the file is empty")
    with path.open("rb") as file:
        head = file.read(8192)
    compressed = path.name.lower().endswith(".gz")
    if compressed != head.startswith(_GZIP_MAGIC):
        raise UserError(
            f"{path}: not gzip data although its name ends in .gz"
            if compressed
            else f"{path}: compressed by gzip; its name must end in .gz to be read as such"
        )
    if not compressed:
        _check_content(path, kind, head, encoding, prefix)
    return Source(str(path), kind, path, size, compressed)


def _check_content(path: Path, kind: Kind, head: bytes, encoding: str, prefix: str) -> None:
    """Refuses what is not text, judged by its first bytes."""
    if kind == "parquet":
        if not head.startswith(b"PAR1"):
            raise UserError(f"{path}: not a Parquet file (it does not begin with PAR1)")
        return
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"{path}: not text, this is {what}; give the text itself")
    wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32"))
    if not wide and head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: this looks like UTF-16; pass {prefix}encoding utf-16")
    if not wide and (position := head.find(b"\0")) >= 0:
        raise UserError(f"{path}: a binary file, not text (a NUL byte at offset {position})")

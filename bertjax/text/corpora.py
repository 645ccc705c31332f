"""The embedded corpus: the documentation that comes with Python, English prose, no download.

    the language reference   `pydoc_data.topics`, cut at its headings
    the standard library     the docstrings of its modules, found without importing them
    installed packages       the same, for the named packages

Python 3.11 without packages: 835 documents, 15,800 sentences, 1.27 million characters, found in 4
seconds on one core (with numpy and jax: 1,965 documents, 2.73 million characters, 11 seconds).
"""

import ast
import hashlib
import importlib.util
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bertjax.program.errors import UserError
from bertjax.text.prose import extract_prose

# Characters. A shorter piece is joined with the next in the same file, so that a document has
# several sentences.
MINIMUM_DOCUMENT = 800

# Folders that are no documentation of the library: tests, programs, tables, third-party packages.
_LEFT_OUT = frozenset(
    [
        "test",
        "tests",
        "idlelib",
        "turtledemo",
        "lib2to3",
        "ensurepip",
        "encodings",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "__phello__",
    ]
)


def python_documentation(packages: Sequence[str] = ()) -> Iterator[str]:
    """Yields the documentation of Python and of installed packages, as documents of several
    sentences about one subject each.

    A document is a section of the language reference, a class with its methods, or neighbouring
    functions of a module. Code, examples, signatures, tables and mark-up are left out, and so is a
    paragraph that occurred before. The same Python and packages always give the same documents.

    Args:
        packages: Names of installed packages whose docstrings are read, too.

    Raises:
        UserError: this Python has no such package, or no sources of its library.
    """
    documents: Iterable[Iterable[list[str]]] = [
        *map(_sections, _topics().values()),
        *map(_docstrings, _source_files(packages)),
    ]
    seen: set[str] = set()
    for pieces in documents:
        yield from _join_pieces(pieces, seen)


def fingerprint(packages: Sequence[str] = ()) -> str:
    """Returns the sha256 in hex of everything that `python_documentation` reads."""
    digest = hashlib.sha256()
    for topic in _topics().values():
        digest.update(topic.encode())
    for path in _source_files(packages):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            "corpus:python: this Python comes without pydoc_data; "
            "install its full standard library, or give files"
        ) from None
    return dict(sorted(topics.items()))


def _source_files(packages: Sequence[str]) -> Iterator[Path]:
    """Yields the sources of the standard library and of the packages, sorted."""
    library = Path(sysconfig.get_paths()["stdlib"])
    if not (library / "os.py").is_file():
        raise UserError(
            f"corpus:python: no sources of the standard library in {library}; give files instead"
        )
    yield from _python_files(library)
    for name in sorted(set(packages)):
        # For a top-level name this imports nothing.
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None:
            raise UserError(f"corpus:python: no package {name!r} is installed in this Python")
        for folder in spec.submodule_search_locations or ():
            yield from _python_files(Path(folder))
        if not spec.submodule_search_locations and spec.origin and spec.origin.endswith(".py"):
            yield Path(spec.origin)


def _python_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and name[0] != ".")
        yield from (Path(where) / name for name in sorted(files) if name.endswith(".py"))


def _sections(topic: str) -> Iterator[list[str]]:
    """Yields the paragraphs of each section of a page whose headings are underlined."""
    lines = topic.splitlines()
    start = 0
    for index in range(1, len(lines)):
        title, underline = lines[index - 1], lines[index]
        if len(underline) > 2 and len(set(underline)) == 1 and len(title) == len(underline):
            yield extract_prose("\n".join(lines[start : index - 1]))
            start = index + 1
    yield extract_prose("\n".join(lines[start:]))


def _docstrings(path: Path) -> Iterator[list[str]]:
    """Yields the paragraphs of a module's docstring, then those of each of its functions, and of
    each class with its methods.

    The file is parsed, not imported: imports have side effects. A file that is not valid in this
    version of Python has none.
    """
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    yield _prose_of(module)
    for node in _definitions(module.body):
        yield list(_prose_within(node))


def _definitions(statements: Iterable[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Yields the classes and functions of a body, and those under an `if` or a `try`."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node.body)
            yield from _definitions(node.orelse)


def _prose_within(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    yield from _prose_of(node)
    if isinstance(node, ast.ClassDef):
        for inner in _definitions(node.body):
            yield from _prose_within(inner)


def _prose_of(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> list[str]:
    docstring = ast.get_docstring(node, clean=False)
    return extract_prose(inspect.cleandoc(docstring)) if docstring else []


def _join_pieces(pieces: Iterable[list[str]], seen: set[str]) -> Iterator[str]:
    """Joins neighbouring pieces into documents of at least MINIMUM_DOCUMENT characters; a short
    rest goes with the document before it.

    Args:
        pieces: Paragraphs that belong together, in order.
        seen: Every paragraph so far, to which new ones are added: "Return a copy." is worth reading
            once.
    """
    waiting = ""
    rest: list[str] = []
    size = 0
    for piece in pieces:
        for paragraph in piece:
            if paragraph not in seen:
                seen.add(paragraph)
                rest.append(paragraph)
                size += len(paragraph)
        if size >= MINIMUM_DOCUMENT:
            if waiting:
                yield waiting
            waiting, rest, size = "\n".join(rest), [], 0
    if size >= MINIMUM_DOCUMENT // 4 and not waiting:
        waiting = "\n".join(rest)
    elif waiting and rest:
        waiting = "\n".join([waiting, *rest])
    if waiting:
        yield waiting

"""The embedded corpus: prose, not code; always the same; found without importing anything."""

import hashlib
import subprocess
import sys

import pytest

from bertjax.program.errors import UserError
from bertjax.text import corpora
from bertjax.text.corpora import fingerprint, python_documentation
from bertjax.text.prose import extract_prose
from bertjax.text.readers import ReaderConfig, list_sources, read_documents


@pytest.fixture(scope="module")
def documents():
    return list(python_documentation())


def test_corpus_is_large_and_made_of_documents_of_many_sentences(documents):
    assert len(documents) > 600
    assert sum(len(document) for document in documents) > 900_000
    sentences = sorted(document.count(". ") + document.count(".\n") for document in documents)
    assert sentences[len(sentences) // 10] >= 4


def test_corpus_is_prose(documents):
    lines = [line for document in documents for line in document.split("\n")]
    words = [word for line in lines for word in line.split()]
    plain = sum(
        word.strip(".,;:!?()'\"").replace("-", "").replace("'", "").isalpha() for word in words
    )
    assert plain / len(words) > 0.93
    assert not any(">>>" in line or ":class:" in line or "``" in line for line in lines)
    assert len(set(lines)) == len(lines)


def test_corpus_is_the_same_each_time_and_imports_nothing(documents):
    # In another process, where hashes of strings are others.
    code = (
        "import sys, hashlib; from bertjax.text.corpora import python_documentation as read;"
        "import pydoc_data.topics, sysconfig; sysconfig.get_paths(); before = set(sys.modules);"
        "print(hashlib.sha256(repr(list(read())).encode()).hexdigest(), set(sys.modules) - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    digest = hashlib.sha256(repr(documents).encode()).hexdigest()
    assert found.stdout.strip() == f"{digest} set()"


def test_corpus_of_a_package_reads_its_docstrings_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "strange_package"
    (package / "tests").mkdir(parents=True)
    names = ("alpha", "beta", "gamma", "delta")
    sentences = [f"This sentence tells what the module named {name} is good for." for name in names]
    long_text = "\n".join(sentences * 4)
    (package / "__init__.py").write_text(f'"""{long_text}"""\nraise SystemExit("imported")\n')
    (package / "tests" / "test_it.py").write_text('"""A test is not what is wanted here."""')
    (package / "broken.py").write_text('"""This file has an error in it.""" +\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    # A standard library of nothing, which is quick to read.
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "os.py").touch()
    monkeypatch.setattr(
        corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "library")}
    )
    monkeypatch.setattr(corpora, "_topics", dict)
    texts = list(python_documentation(["strange_package"]))
    assert sum("alpha" in text and "delta" in text for text in texts) == 1
    assert not any("A test is not" in text or "error in it" in text for text in texts)
    assert fingerprint(["strange_package"]) != fingerprint()


def test_unknown_package_is_a_user_error():
    with pytest.raises(UserError, match="corpus:python: no package 'no_such_package' is installed"):
        list(python_documentation(["no_such_package"]))


def test_reader_gives_the_corpus(documents):
    config = ReaderConfig(input=["corpus:python"])
    (source,) = list_sources(config)
    assert next(read_documents(source, config, pytest.fail)).text == documents[0]
    assert source.fingerprint() == fingerprint()


def test_prose_leaves_out_code_and_keeps_sentences():
    docstring = """Return the mean of the data, as :class:`float` or ``int``.

    Use *this* for numbers::

        This literal text is not wanted.

    If ``data`` is empty, a :exc:`StatisticsError` will be raised.

    >>> mean([1, 2, 3])
    This is the output of the example.

    Parameters
    ----------
    data : sequence
        The numbers of which the mean is
        wanted by the caller.

    Args:
        data: the numbers of which the mean is taken,
            in any order that pleases.
        key (int): Another thing that is counted here.

    * The first item of a list of
      two whole items.
    * x = 1

    .. note:: x
    """
    assert extract_prose(docstring) == [
        "Return the mean of the data, as float or int.",
        "Use this for numbers.",
        "If data is empty, a StatisticsError will be raised.",
        "The numbers of which the mean is wanted by the caller.",
        "The numbers of which the mean is taken, in any order that pleases.",
        "Another thing that is counted here.",
        "The first item of a list of two whole items.",
    ]

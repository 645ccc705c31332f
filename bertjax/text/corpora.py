"""The embedded corpus: the documentation that every Python interpreter carries."""

from collections.abc import Iterator, Sequence

from bertjax.text.readers import Document


def python_documentation(packages: Sequence[str] = ()) -> Iterator[Document]:
    """Python's own documentation as documents."""
    from pydoc_data import topics

    for number, text in enumerate(topics.topics.values()):
        yield Document("corpus:python", number, text)

"""Documents go to their split by hash; few documents leave no split too small."""

import collections
import hashlib

import pytest

from bertjax.text import splits as splits_module
from bertjax.text.duplicates import document_split
from bertjax.text.splits import Splitter


def make_documents(count, seed=0):
    return [hashlib.sha256(f"{seed}/{number}".encode()).digest() for number in range(count)]


def split_all(documents, fractions=(0.05, 0.05), least=2, tokens=10):
    """[(split, document)] in the order in which they are handed on."""
    handed = []
    splitter = Splitter(fractions, least, lambda *one: handed.append(one))
    for document in documents:
        splitter.add(document, tokens, document)
    splitter.close()
    return handed


@pytest.mark.parametrize("count", [7, 107, 255, 256, 257, 400])
def test_every_document_is_handed_on_once_in_order(count):
    documents = make_documents(count)
    assert [document for _, document in split_all(documents)] == documents


@pytest.mark.parametrize("count", [60, 107, 300])
def test_hash_alone_decides_where_it_leaves_enough(count):
    fractions = (0.3, 0.2)
    for split, document in split_all(make_documents(count), fractions):
        assert split == document_split(document, fractions)


@pytest.mark.parametrize("seed", range(20))
def test_few_documents_give_every_split_what_it_needs(seed):
    for count in (6, 7, 13, 40):
        documents = make_documents(count, seed)
        handed = split_all(documents)
        sizes = collections.Counter(split for split, _ in handed)
        assert min(sizes[split] for split in ("train", "validation", "test")) >= 2
        # No document moves that need not.
        moved = sum(document_split(one, (0.05, 0.05)) != split for split, one in handed)
        assert moved <= 4


def test_split_does_not_depend_on_the_order_of_few_documents():
    documents = make_documents(9, seed=3)
    assert sorted(split_all(documents)) == sorted(split_all(documents[::-1]))


def test_split_that_is_not_wanted_gets_nothing():
    sizes = collections.Counter(split for split, _ in split_all(make_documents(5), (0.0, 0.05)))
    assert sizes == {"test": 2, "train": 3}


def test_too_few_documents_for_all_are_handed_on_nonetheless():
    assert len(split_all(make_documents(5))) == 5
    assert split_all([]) == []


def test_many_tokens_are_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(splits_module, "FEW_TOKENS", 35)
    handed = []
    splitter = Splitter((0.05, 0.05), 2, lambda *one: handed.append(one))
    for count, document in enumerate(make_documents(6), start=1):
        splitter.add(document, 10, document)
        assert len(handed) == (0 if count < 4 else count)
    splitter.close()
    assert [split for split, _ in handed] == [
        document_split(document, (0.05, 0.05)) for document in make_documents(6)
    ]

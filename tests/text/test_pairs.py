"""Pairs: no text lost, none used twice, the other document really another, labels balanced."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.program.errors import UserError
from bertjax.text.framing import Frame
from bertjax.text.pairs import IS_NEXT, IS_OTHER, NO_PAIR, Example, PairConfig, make_examples
from bertjax.text.spool import SpoolReader, SpoolWriter, cut_units

T = 23
FRAME = Frame((1,), (2,), (2,))
V = 1 << 20
WHOLE_WORDS = np.zeros(V, bool)  # no token continues a word


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    """Makes a corpus of documents given as sentence lengths; every token has its own id."""
    made = []

    def make(documents: list[list[int]]) -> SpoolReader:
        stem = tmp_path_factory.mktemp("spool") / "documents"
        writer = SpoolWriter(stem)
        token = 0
        for lengths in documents:
            ids = np.arange(token, token + sum(lengths), dtype=np.int32)
            writer.append(ids, np.array(lengths))
            token += len(ids)
        writer.close()
        writer.write_split("train", writer.ranges())
        made.append(SpoolReader(stem, "train", np.dtype(np.int32)))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def examples_of(
    corpus: SpoolReader, seed: int = 0, continues_word: np.ndarray = WHOLE_WORDS, **fields
) -> list[list[Example]]:
    """The examples of every document."""
    generator, config = np.random.Generator(np.random.Philox(seed)), PairConfig(**fields)
    room = config.room(FRAME, T)
    return [
        list(make_examples(number, document, corpus, config, room, continues_word, generator))
        for number, document in enumerate(corpus.documents(0, len(corpus)))
    ]


DOCUMENTS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=2, max_size=6)


def test_split_has_ranges_of_sentences_wherever_they_are(tmp_path):
    writer = SpoolWriter(tmp_path / "documents")
    writer.append(np.arange(6, dtype=np.int32), np.array([1, 2, 3]), np.array([1, 0, 2]))
    writer.flush()
    writer.append(np.arange(6, 10, dtype=np.int32), np.array([4]))
    writer.append(np.arange(10, 12, dtype=np.int32), np.array([1, 1]))
    writer.close()
    assert writer.piece_tokens(0).tolist() == [1, 0, 5]
    assert writer.piece_tokens(1).tolist() == [4]
    assert writer.document_tokens.tolist() == [6, 4, 2]
    assert writer.ranges().tolist() == [[0, 3], [3, 4], [4, 6]]
    writer.write_split("test", np.array([[1, 3], [4, 5], [5, 6]]))
    reader = SpoolReader(tmp_path / "documents", "test", np.dtype(np.int32))
    documents = reader.documents(0, 3)
    assert [one.token_ids.tolist() for one in documents] == [[1, 2, 3, 4, 5], [10], [11]]
    assert [one.sentence_ends.tolist() for one in documents] == [[2, 5], [1], [1]]
    assert reader.sentence_starts(0).tolist() == [1, 3, 6]
    reader.close()


@pytest.mark.parametrize(
    ("tokens", "units"),
    [
        ([], []),
        ([3], [(0, 1)]),
        ([5, 5, 5], [(0, 2), (2, 3)]),
        ([20, 1, 9, 1], [(0, 1), (1, 3), (3, 4)]),
    ],
)
def test_units_end_with_the_document_that_fills_them(tokens, units):
    assert cut_units(np.array(tokens, np.int64), 10) == units


def test_spool_gives_back_what_was_written(spool):
    corpus = spool([[3, 1], [5], [2, 2, 2]])
    assert len(corpus) == 3
    first, second, third = corpus.documents(0, 3)
    assert first.token_ids.tolist() == [0, 1, 2, 3]
    assert first.sentence_ends.tolist() == [3, 4]
    assert second.token_ids.tolist() == [4, 5, 6, 7, 8]
    assert third.sentence_ends.tolist() == [2, 4, 6]
    [alone] = corpus.documents(2, 3)
    assert alone.token_ids.tolist() == [9, 10, 11, 12, 13, 14]
    assert corpus.sentence_starts(2).tolist() == [9, 11, 13, 15]
    assert corpus.tokens(7, 10).tolist() == [7, 8, 9]


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, seed=st.integers(0, 999), short=st.sampled_from([0.0, 0.5]))
def test_every_token_is_used_exactly_once_as_its_own_document(spool, documents, seed, short):
    corpus = spool(documents)
    tokens = corpus.documents(0, len(documents))
    found = examples_of(corpus, seed, short_sequence_probability=short)
    for document, examples in zip(tokens, found, strict=True):
        own = []
        for example in examples:
            own += example.first.tolist()
            if example.label == IS_NEXT:
                own += example.second.tolist()
        assert own == document.token_ids.tolist()


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, seed=st.integers(0, 999))
def test_pairs_fit_and_random_passages_are_from_another_document(spool, documents, seed):
    corpus = spool(documents)
    tokens = corpus.documents(0, len(documents))
    for document, examples in zip(tokens, examples_of(corpus, seed), strict=True):
        own = set(document.token_ids.tolist())
        ends = {int(document.token_ids[end - 1]) for end in document.sentence_ends}
        for example in examples:
            size = len(example.first) + len(example.second)
            if example.label == NO_PAIR:
                assert len(example.second) == 0
                assert 1 <= size <= T - 2
                continue
            assert len(example.first) >= 1
            assert len(example.second) >= 1
            assert size <= T - 3
            assert example.first[-1] in ends, "A ends with a sentence"
            assert (np.diff(example.second) == 1).all(), "B is one passage"
            if example.label == IS_OTHER:
                assert not own & set(example.second.tolist())
            else:
                assert example.second[0] == example.first[-1] + 1


def test_random_passages_come_from_every_other_document_alike(spool):
    corpus = spool([[4] * 60 for _ in range(6)])
    bounds = np.arange(0, 6) * 240
    origins: collections.Counter[tuple[int, int]] = collections.Counter()
    starts = set()
    for seed in range(40):
        for number, examples in enumerate(examples_of(corpus, seed)):
            for example in examples:
                if example.label == IS_OTHER:
                    start = int(example.second[0])
                    origins[number, int(np.searchsorted(bounds, start, "right")) - 1] += 1
                    starts.add(start)
    assert all(start % 4 == 0 for start in starts), "a passage starts with a sentence"
    counts = np.array([origins[a, b] for a in range(6) for b in range(6) if a != b])
    assert sum(origins[number, number] for number in range(6)) == 0
    # 30 cells: a fair draw stays within 5 standard deviations of the mean.
    assert (abs(counts - counts.mean()) < 5 * np.sqrt(counts.mean())).all()
    assert len(starts) > 0.8 * 6 * 56


def test_half_of_the_pairs_are_random(spool):
    corpus = spool([[5] * 200 for _ in range(8)])
    labels = [
        example.label
        for seed in range(12)
        for examples in examples_of(corpus, seed)
        for example in examples
    ]
    pairs = [label for label in labels if label != NO_PAIR]
    assert len(pairs) > 4000
    assert abs(np.mean(pairs) - 0.5) < 4 * 0.5 / np.sqrt(len(pairs))


def test_label_cannot_be_read_off_length_or_end(spool):
    """Sentences of 1 to 9 tokens: both kinds of B are as long, and end with a sentence as often."""
    generator = np.random.default_rng(3)
    corpus = spool([generator.integers(1, 10, 9).tolist() for _ in range(300)])
    ends = {
        int(document.token_ids[end - 1])
        for document in corpus.documents(0, 300)
        for end in document.sentence_ends
    }
    lengths: dict[int, list[int]] = {IS_NEXT: [], IS_OTHER: []}
    whole: dict[int, list[bool]] = {IS_NEXT: [], IS_OTHER: []}
    for seed in range(6):
        for examples in examples_of(corpus, seed):
            for example in examples:
                if example.label != NO_PAIR:
                    lengths[example.label].append(len(example.second))
                    whole[example.label].append(int(example.second[-1]) in ends)
    # Standard errors are about 0.1 tokens and 0.01.
    assert abs(np.mean(lengths[IS_NEXT]) - np.mean(lengths[IS_OTHER])) < 0.5
    assert abs(np.mean(whole[IS_NEXT]) - np.mean(whole[IS_OTHER])) < 0.06


def test_stretches_are_full_or_short_by_the_share_asked_for(spool):
    corpus = spool([[3] * 3000, [3] * 3000])
    for short in (0.0, 0.3):
        examples = examples_of(corpus, short_sequence_probability=short)[0][:-1]
        full = [len(one.first) + len(one.second) == T - 3 for one in examples]
        # A random length is the full one, too, once in 19; a short one with no end inside is alone.
        assert abs(np.mean(full) - (1 - short * 18 / 19)) < (0.08 if short else 1e-9)


def test_sentence_longer_than_a_row_is_cut_and_not_lost(spool):
    corpus = spool([[100], [3, 3]])
    [alone, _] = examples_of(corpus, short_sequence_probability=0.0)
    assert [example.label for example in alone] == [NO_PAIR] * 5
    assert np.concatenate([example.first for example in alone]).tolist() == list(range(100))


def test_stretches_are_not_cut_within_a_word(spool):
    corpus = spool([[6] * 100, [6] * 100])
    continues = np.arange(V) % 3 > 0  # words of three tokens
    for examples in examples_of(corpus, continues_word=continues, short_sequence_probability=0.3):
        for example in examples:
            passage = example.first if example.label == NO_PAIR else example.second
            if len(passage) >= 3:  # there is a place to cut
                assert not continues[int(passage[-1]) + 1]


def test_word_longer_than_the_way_back_is_cut(spool):
    corpus = spool([[60], [60]])
    all_continue = np.ones(V, bool)
    [examples, _] = examples_of(corpus, continues_word=all_continue, short_sequence_probability=0.0)
    assert [len(example.first) for example in examples] == [20, 20, 20]


def test_sentence_order_pairs_are_neighbours_in_either_order(spool):
    corpus = spool([[4] * 400])
    [examples] = examples_of(corpus, pairing="sop")
    labels = [example.label for example in examples if example.label != NO_PAIR]
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / np.sqrt(len(labels))
    own = []
    for example in examples:
        parts = [example.first, example.second]
        own += np.concatenate(parts if example.label != IS_OTHER else parts[::-1]).tolist()
    assert own == list(range(1600))


def test_passages_without_pairs_are_contiguous_and_full(spool):
    corpus = spool([[4] * 50])
    [examples] = examples_of(corpus, pairing="none", short_sequence_probability=0.0)
    assert {example.label for example in examples} == {NO_PAIR}
    assert [len(example.first) for example in examples] == [T - 2] * 9 + [200 - 9 * (T - 2)]
    assert np.concatenate([example.first for example in examples]).tolist() == list(range(200))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duplicate_factor": 0}, "duplicate_factor=0"),
        ({"short_sequence_probability": 1.5}, "short_sequence_probability=1.5"),
    ],
)
def test_wrong_options_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        PairConfig(**fields)

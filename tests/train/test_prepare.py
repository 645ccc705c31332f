"""Raw text to a prepared directory, end to end, on Python's own documentation."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.text import preparation, readers
from bertjax.text.preparation import prepare
from bertjax.text.preparation_options import RowConfig
from bertjax.text.rows import SPLITS, open_prepared
from bertjax.text.tokenizer import load_tokenizer
from tests.train.preparations import options, sha256_of_files


@pytest.fixture(scope="module")
def prepared(corpus, tokenizer):
    output = corpus.parent / "prepared"
    card = prepare(options(corpus), tokenizer, output)
    return open_prepared(output), card


def test_card_counts_every_document_and_line(prepared):
    directory, card = prepared
    counts = card["counts"]
    assert counts["documents_read"] == 63
    assert counts["documents_too_short"] == 1
    assert counts["exact_duplicates_removed"] == 1
    assert counts["near_duplicates_removed"] == 1
    assert counts["documents_kept"] == 60
    assert counts["boilerplate_lines_removed"] == 62
    assert sum(card["splits"][split]["documents"] for split in SPLITS) == 60
    assert card["sources"][0]["documents"] == 63
    assert card["sources"][0]["name"] == "documents.txt"
    for split in SPLITS:
        assert card["splits"][split]["rows"] == len(getattr(directory, split)) > 0
    assert json.loads((directory.path / "data_card.json").read_text()) == card


def test_rows_hold_the_text_of_their_split_and_no_boilerplate(prepared, corpus):
    directory, _ = prepared
    tokenizer = load_tokenizer(directory.tokenizer_path)
    original = "".join(corpus.read_text().lower().split())
    seen = {}
    for split in SPLITS:
        rows = getattr(directory, split)[:]
        passages = []
        for row in range(len(rows["token_ids"])):
            for slot in range(1, rows["sequence_ids"][row].max() + 1):
                ids = rows["token_ids"][row][rows["sequence_ids"][row] == slot]
                for part in np.split(ids, np.flatnonzero(ids == tokenizer.sep_id)):
                    text = "".join(tokenizer.decode(part).split()).removeprefix("##")
                    if len(text) > 60 and tokenizer.unk_id not in part:
                        passages.append(text)
        assert passages
        assert all(text in original for text in passages)
        assert not any("skiptothemaincontent" in text for text in passages)
        seen[split] = set(passages)
    assert not seen["train"] & seen["test"]


def test_packing_is_efficient_and_half_of_the_pairs_are_random(prepared):
    _, card = prepared
    train = card["splits"]["train"]
    assert train["efficiency"] > 0.97
    pairs = train["next_pairs"] + train["random_pairs"]
    assert abs(train["random_pairs"] / pairs - 0.5) < 4 * 0.5 / np.sqrt(pairs)
    assert pairs > 0.5 * train["examples"]  # many sentences here are longer than a row


def test_bytes_are_the_same_for_every_number_of_workers(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "BLOCK_CHARACTERS", 1 << 13)
    monkeypatch.setattr(preparation, "UNIT_TOKENS", 1 << 11)
    sums = []
    for workers in (1, 2, 4):
        output = tmp_path / str(workers)
        card = prepare(options(corpus, duplicate_factor=2), tokenizer, output, workers)
        sums.append(sha256_of_files(output))
    assert sums[0] == sums[1] == sums[2]
    assert "train/rows-00000.arrow" in sums[0]
    text = json.dumps(card)
    assert str(tmp_path) not in text
    assert str(corpus.parent) not in text


def test_seed_and_copies_change_the_rows(corpus, tokenizer, tmp_path):
    def make(name: str, **fields):
        prepare(options(corpus, **fields), tokenizer, tmp_path / name)
        return open_prepared(tmp_path / name)

    one, other = make("one"), make("other", seed=1)
    assert one.fingerprint != other.fingerprint
    twice = make("twice", duplicate_factor=2)
    assert len(twice.train) > 1.9 * len(one.train)
    assert len(twice.test) == len(one.test)
    half = len(one.train)
    first, second = twice.train[:half]["token_ids"], twice.train[half:]["token_ids"]
    # The copies need not make as many rows: which pairs are drawn is part of how they are packed.
    shared = min(len(first), len(second))
    assert (first[:shared] != second[:shared]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize(
    ("pairing", "labels"), [("sop", {-1, 0, 1}), ("none", {-1}), ("nsp", {-1, 0, 1})]
)
def test_pairing_decides_the_labels(corpus, tokenizer, tmp_path, pairing, labels):
    prepare(options(corpus, pairing=pairing), tokenizer, tmp_path / "rows")
    rows = open_prepared(tmp_path / "rows").train[:]
    assert set(np.unique(rows["next_sentence_labels"])) == labels
    assert rows["token_type_ids"].any() == (pairing != "none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_length": 7}, "max_length=7 must be 8 to 32768"),
        ({"examples_per_row": 256}, "examples_per_row=256 must be 1 to 255"),
        ({"examples_per_row": 0}, "examples_per_row=0"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing for train"),
        ({"seed": -1}, "seed=-1"),
        ({"language": "Englisch!"}, "language="),
    ],
)
def test_options_out_of_range_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        RowConfig(**fields)


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("a\n\nb\n\nc", {}, "nothing is left of 3 documents .* 3 shorter than"),
        ("\x01\u200b\n\n\x02", {"minimum_characters": 0}, "nothing is left"),
        (
            "\n\n".join(f"Sentence {n} is short. Another one, {n}, follows." for n in range(4)),
            {"validation_fraction": 1e-4, "test_fraction": 1e-4, "near_threshold": 0.0},
            r"the text has 4 documents, too short to cut, and 6 are needed: 2 in each of 3 "
            "splits .* --pairing none, which needs 3$",
        ),
        (
            "One sentence here. Another one there.",
            {"validation_fraction": 0.0, "test_fraction": 0.0},
            "the text has 1 document, too short to cut, and 2 are needed .a random next "
            "sentence comes from",
        ),
        (
            "One sentence here. Another one there.\n\nSome more of it. And so on.",
            {"validation_fraction": 0.0, "test_fraction": 0.0, "max_length": 512},
            r"the train split has \d+ tokens, less than one row of max_length=512",
        ),
        (
            "\n\n".join(f"One sentence of the number {n} alone" for n in range(30)),
            {"validation_fraction": 0.0, "test_fraction": 0.0, "near_threshold": 0.0},
            "no document of the train split has two sentences .* --pairing none",
        ),
    ],
)
def test_too_little_text_is_refused_and_leaves_nothing(tmp_path, tokenizer, text, fields, message):
    path = tmp_path / "text" / "input.txt"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(options(path, **fields), tokenizer, tmp_path / "rows")
    assert [entry.name for entry in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize("pairing", ["nsp", "none"])
def test_few_documents_are_enough_for_three_splits(tmp_path, tokenizer, pairing):
    count = 6 if pairing == "nsp" else 3
    lines = [[f"Sentence {n} of {m} is here." for m in range(9)] for n in range(count)]
    path = tmp_path / "input.txt"
    path.write_text("\n\n".join("\n".join(document) for document in lines))
    fields = {"validation_fraction": 0.05, "test_fraction": 0.05, "near_threshold": 0.0}
    made = prepare(options(path, pairing=pairing, **fields), tokenizer, tmp_path / "rows")
    assert [made["splits"][split]["documents"] for split in SPLITS] == [count // 3] * 3
    assert all(made["splits"][split]["rows"] for split in SPLITS)


def test_share_that_cannot_be_kept_is_told(tmp_path, tokenizer):
    path = tmp_path / "input.txt"
    path.write_text("\n\n".join(f"Sentence {n} is short. Another one follows." for n in range(300)))
    fields = {"validation_fraction": 1e-9, "test_fraction": 0.0, "near_threshold": 0.0}
    notes = []
    made = prepare(options(path, **fields), tokenizer, tmp_path / "rows", note=notes.append)
    assert made["splits"]["validation"]["documents"] == 2
    [told] = [note for note in notes if "split" in note]
    assert "the validation split has 0.6" in told
    assert "instead of 0.00%: each split needs 2 documents" in told


def test_special_tokens_in_the_text_and_notes_on_the_tokenizer_are_told(tmp_path, tokenizer):
    shutil.copytree(tokenizer, tmp_path / "tokenizer")
    about = tmp_path / "tokenizer" / "tokenizer_config.json"
    about.write_text(json.dumps({"do_lower_case": False}))
    path = tmp_path / "input.txt"
    texts = [f"Sentence {n} is short. Another one follows." for n in range(60)]
    texts[3] += " A [SEP] here, a [MASK] there."
    texts[59] += " And [SEP][SEP] here. And [sep]."
    path.write_text("\n\n".join(texts))
    notes = []
    prepare(options(path, near_threshold=0.0), tmp_path / "tokenizer", tmp_path / "rows",
            note=notes.append)  # fmt: skip
    assert "do_lower_case=false contradicts tokenizer.json" in notes[0]
    [told] = [note for note in notes if "[SEP]" in note]
    assert told.startswith("[SEP], [MASK] spelled out in 2 of 60 documents: read as letters")


@pytest.mark.parametrize(("longest", "pieces"), [(1000, 4), (100_000, 1)])
def test_file_that_is_longer_than_a_document_can_be_is_told(
    tmp_path, tokenizer, monkeypatch, longest, pieces
):
    monkeypatch.setattr(readers, "MAXIMUM_DOCUMENT", longest)
    path = tmp_path / "input.txt"
    sentences = [f"Sentence {n} is short. Another one follows." for n in range(80)]
    path.write_text("\n".join(sentences))
    notes = []
    fields = {"near_threshold": 0.0, "document_separator": "file", "pairing": "none"}
    made = prepare(options(path, **fields), tokenizer, tmp_path / "rows", note=notes.append)
    assert made["counts"]["documents_read"] == pieces
    told = [note.partition(" (")[0] for note in notes if "of more than" in note]
    expected = "1 document of more than 1,000 characters, read as 4 documents, one after the other"
    assert told == [f"{path}: {expected}"] * (pieces > 1)


@pytest.mark.parametrize("unknown", [0, 40])
def test_text_that_the_tokenizer_has_no_words_for_is_told(tmp_path, tokenizer, unknown):
    path = tmp_path / "input.txt"
    texts = [f"Sentence {n} is short. Another one follows." for n in range(60)]
    texts[:unknown] = [f"{text} 模型 是" for text in texts[:unknown]]
    path.write_text("\n\n".join(texts), encoding="utf-8")
    notes = []
    fields = {"near_threshold": 0.0}
    made = prepare(options(path, **fields), tokenizer, tmp_path / "rows", note=notes.append)
    counts = made["counts"]
    assert counts["unknown_tokens"] == 3 * unknown
    assert counts["tokens"] == sum(split["text_tokens"] for split in made["splits"].values())
    told = [note for note in notes if "[UNK]" in note]
    share = f"{3 * unknown / counts['tokens']:.1%} of the tokens (120) are [UNK], because "
    assert [note.startswith(share) for note in told] == [True] * bool(unknown)


@pytest.fixture(scope="module")
def novels(tmp_path_factory) -> Path:
    """Five long files of paragraphs between blank lines; every sentence is there once."""
    folder = tmp_path_factory.mktemp("novels")
    draw, number = random.Random(0), 0
    words = ["the", "a", "cat", "house", "sees", "goes", "into", "window", "morning", "nothing"]
    for book, paragraphs in enumerate((90, 120, 60, 70, 16)):
        text = []
        for _ in range(paragraphs):
            sentences = []
            for _ in range(draw.randint(1, 9)):
                number += 1
                sentences.append(f"Number {number} {' '.join(draw.choices(words, k=12))}.")
            text.append(" ".join(sentences))
        (folder / f"book{book}.txt").write_text("\n\n".join(text))
    return folder


def held_sentences(directory) -> dict[str, set[str]]:
    """The numbers of the sentences in the rows of each split."""
    tokenizer = load_tokenizer(directory.tokenizer_path)
    found = {}
    for split in SPLITS:
        rows = getattr(directory, split)[:]
        text = " ".join(tokenizer.decode(ids[ids != tokenizer.pad_id]) for ids in rows["token_ids"])
        found[split] = set(re.findall(r"number (\d+)", text))
    return found


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("pairing", ["nsp", "none"])
def test_few_long_documents_are_cut_and_the_shares_kept(
    novels, tokenizer, tmp_path, count, pairing
):
    made = options(novels, document_separator="file", pairing=pairing, validation_fraction=0.05)
    made.reader.input = [str(novels / f"book{book}.txt") for book in range(count)]
    notes = []
    card = prepare(made, tokenizer, tmp_path / "rows", note=notes.append)
    assert not notes
    for split, asked in (("validation", 0.05), ("test", 0.15)):
        assert card["splits"][split]["share_of_tokens"] == pytest.approx(asked, rel=0.25)
        assert card["splits"][split]["text_tokens"] == pytest.approx(
            asked * sum(card["splits"][one]["text_tokens"] for one in SPLITS), rel=0.25
        )
        assert card["splits"][split]["rows"]
    assert card["counts"]["documents_kept"] == count
    assert 1 <= card["documents_cut"] <= count
    whole = count - card["documents_cut"]
    parts = sum(card["splits"][split]["documents"] for split in SPLITS)
    assert parts == whole + card["parts_of_cut_documents"]
    sentences = held_sentences(open_prepared(tmp_path / "rows"))
    assert all(sentences.values())
    for split in ("validation", "test"):
        others = set().union(*(sentences[one] for one in SPLITS if one != split))
        # A sentence that is cut between two rows is not between two splits.
        assert not sentences[split] & others
    assert card["overlap_with_train"]["validation"] == 0


def test_cut_documents_have_the_same_bytes_for_every_number_of_workers(
    novels, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(preparation, "BLOCK_CHARACTERS", 1 << 14)
    monkeypatch.setattr(preparation, "UNIT_TOKENS", 1 << 11)
    sums = []
    for workers in (1, 2):
        made = options(novels, document_separator="file")
        prepare(made, tokenizer, tmp_path / str(workers), workers)
        sums.append(sha256_of_files(tmp_path / str(workers)))
    assert sums[0] == sums[1]


def test_paragraphs_taken_for_documents_are_told_at_once(novels, tokenizer, tmp_path):
    """The note comes with the first documents, and not after the work."""
    told, stages = [], []

    def report(stage, done, total):
        stages.append(stage)
        assert told or stage == "1 of 3: reading"

    prepare(options(novels), tokenizer, tmp_path / "rows", report=report, note=told.append)
    assert len(told) == 1
    assert "356 of the first 356 documents are one paragraph each" in told[0]
    assert "--document-separator file" in told[0]
    assert list(dict.fromkeys(stages)) == [
        "1 of 3: reading",
        "2 of 3: tokenizing",
        "3 of 3: packing",
    ]
    assert open_prepared(tmp_path / "rows").card["counts"]["documents_of_one_paragraph"] == 356

"""Rows on disk, and prepared directories that are whole or refused."""

import json
import shutil

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.text import checksums, row_writer
from bertjax.text.row_writer import RowWriter
from bertjax.text.rows import BLOCK_ROWS, COLUMNS, open_prepared
from tests.prepared_rows import write_rows

T, K, V = 13, 3, 99


def some_rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    wide = {name: generator.integers(0, 3, (count, T)) for name in COLUMNS[:4]}
    wide["token_ids"] = generator.integers(0, V, (count, T))
    narrow = {name: generator.integers(-1, 2, (count, K)) for name in COLUMNS[4:]}
    narrow["example_starts"] = generator.integers(0, T, (count, K))
    return wide | narrow


@pytest.fixture
def prepared(tmp_path):
    write_rows(tmp_path / "rows", {"train": some_rows(7), "test": some_rows(2, 1)}, V)
    return tmp_path / "rows"


def test_rows_come_back_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(row_writer, "FILE_BLOCKS", 2)  # three files
    count = 4 * BLOCK_ROWS + 37
    written = some_rows(count)
    write_rows(tmp_path / "rows", {"train": written}, V)
    assert len(list((tmp_path / "rows/train").glob("*.arrow"))) == 3
    rows = open_prepared(tmp_path / "rows").train
    assert len(rows) == count
    assert (rows.max_length, rows.examples_per_row) == (T, K)
    generator = np.random.default_rng(1)
    for index in (
        generator.integers(-count, count, 300),
        np.array([count - 1, 0, 0]),
        [5, 2 * BLOCK_ROWS],
        slice(None),
        slice(3, 40),
        slice(BLOCK_ROWS - 2, BLOCK_ROWS + 2),
        slice(50, 10, -7),
        slice(0, 0),
    ):
        read = rows[index]
        assert set(read) == set(COLUMNS)
        for name in COLUMNS:
            np.testing.assert_array_equal(read[name], written[name][index], err_msg=name)
    assert rows[0:1]["token_ids"].dtype == np.int32
    assert rows[[0]]["token_ids"].dtype == np.int32


def test_neighbouring_rows_are_not_copied(prepared):
    rows = open_prepared(prepared).train
    assert np.shares_memory(rows[1:3]["sequence_ids"], rows[0:5]["sequence_ids"])


def test_row_numbers_beyond_the_end_are_refused(prepared):
    rows = open_prepared(prepared).train
    with pytest.raises(IndexError, match="row 7 of 7"):
        rows[[0, 7]]
    with pytest.raises(IndexError, match="row -8 of 7"):
        rows[[-8]]
    with pytest.raises(IndexError, match="a slice or a list"):
        rows[3]


def test_ids_beyond_16_bits_survive(tmp_path):
    rows = some_rows(3)
    rows["token_ids"][1, 2] = 70_000
    write_rows(tmp_path / "rows", {"train": rows}, 70_001)
    assert open_prepared(tmp_path / "rows").train[[1]]["token_ids"][0, 2] == 70_000


def test_token_counts_are_those_of_real_tokens_without_special_ones(prepared):
    opened = open_prepared(prepared)
    rows = opened.train[:]
    real = rows["token_ids"][rows["sequence_ids"] > 0]
    expected = np.bincount(real, minlength=V)
    expected[:5] = 0
    np.testing.assert_array_equal(opened.token_counts, expected)
    assert opened.token_counts.dtype == np.int64


def test_split_without_rows_is_empty(prepared):
    opened = open_prepared(prepared)
    assert len(opened.validation) == 0
    assert opened.validation[0:5]["token_ids"].shape == (0, T)
    assert len(opened.test) == 2


def test_fingerprint_is_that_of_the_rows(tmp_path, prepared):
    fingerprint = open_prepared(prepared).fingerprint
    write_rows(tmp_path / "same", {"train": some_rows(7), "test": some_rows(2, 1)}, V)
    assert open_prepared(tmp_path / "same").fingerprint == fingerprint
    other = some_rows(7)
    other["next_sentence_labels"][6, 2] ^= 1
    write_rows(tmp_path / "other", {"train": other, "test": some_rows(2, 1)}, V)
    assert open_prepared(tmp_path / "other").fingerprint != fingerprint


def test_directory_without_card_is_refused(prepared):
    (prepared / "data_card.json").unlink()
    with pytest.raises(UserError, match="never finished"):
        open_prepared(prepared)
    with pytest.raises(UserError, match="no such directory"):
        open_prepared(prepared / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not the data card"),
        ('{"format": "other"}', "not the data card"),
        ('{"format": "bertjax rows", "format_version": 2}', "format version 2"),
        ('{"format": "bertjax rows", "format_version": 1}', "no field 'files'"),
    ],
)
def test_foreign_card_is_refused(prepared, text, message):
    (prepared / "data_card.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_prepared(prepared)


def test_damaged_files_are_refused(prepared):
    file = prepared / "train" / "rows-00000.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"rows-00000.arrow: damaged: \d+ bytes"):
        open_prepared(prepared)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(UserError, match=r"rows-00000.arrow: damaged: its sha256 is not the one"):
        open_prepared(prepared)
    file.unlink()
    with pytest.raises(UserError, match="missing, though the data card lists it"):
        open_prepared(prepared)


def describe_again(prepared, name):
    """Makes the card agree with the file, as a foreign writer's would."""
    card = json.loads((prepared / "data_card.json").read_text())
    [described] = card["splits"]["train"]["files"]
    described |= checksums.describe_file(prepared / "train" / name)
    (prepared / "data_card.json").write_text(json.dumps(card))


def test_file_of_another_format_is_refused(prepared):
    (prepared / "train" / "rows-00000.arrow").write_bytes(bytes(99))
    describe_again(prepared, "rows-00000.arrow")
    with pytest.raises(UserError, match="not a file of rows"):
        open_prepared(prepared)


@pytest.mark.parametrize("name", ["train/rows-00000.arrow", "train/token_counts.npy"])
def test_damage_after_the_first_check_is_found(prepared, name):
    open_prepared(prepared)
    content = bytearray((prepared / name).read_bytes())
    content[-9] ^= 1
    (prepared / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: damaged: its sha256"):
        open_prepared(prepared)


def test_files_are_read_once_and_whenever_they_may_have_changed(prepared, monkeypatch, tmp_path):
    read = []
    sha256 = checksums._sha256
    monkeypatch.setattr(checksums, "_sha256", lambda file: read.append(file.name) or sha256(file))

    def read_at(directory, **options):
        read.clear()
        open_prepared(directory, **options)
        return sorted(read)

    every = ["rows-00000.arrow", "rows-00000.arrow", "token_counts.npy"]
    assert read_at(prepared) == every
    assert read_at(prepared) == []
    assert read_at(prepared, check_again=True) == every
    (prepared / "test" / "rows-00000.arrow").touch()
    assert read_at(prepared) == ["rows-00000.arrow"]
    shutil.copytree(prepared, tmp_path / "copy")  # keeps times and the stamp
    assert read_at(tmp_path / "copy") == every
    (prepared / ".verified.json").write_text("[")
    assert read_at(prepared) == every


def test_directory_that_may_only_be_read_is_checked_every_time(prepared, monkeypatch):
    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checksums, "write_whole", refuse)
    assert len(open_prepared(prepared).train) == len(open_prepared(prepared).train) == 7
    assert not (prepared / ".verified.json").exists()


def test_card_that_contradicts_the_rows_is_refused(prepared):
    card = json.loads((prepared / "data_card.json").read_text())
    card["splits"]["train"]["rows"] = 8
    (prepared / "data_card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="7 rows, the data card says 8"):
        open_prepared(prepared)
    card["max_length"] = T + 1
    (prepared / "data_card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"is {T} wide, the data card says {T + 1}"):
        open_prepared(prepared)


def test_existing_output_stays_until_the_new_one_is_whole(prepared):
    before = open_prepared(prepared).fingerprint
    with pytest.raises(UserError, match="--overwrite"):
        write_rows(prepared, {"train": some_rows(3)}, V)
    broken = some_rows(3)
    broken["token_ids"][0, 0] = -1
    with pytest.raises((ValueError, OverflowError)):
        write_rows(
            prepared, {"train": broken | {"position_ids": np.zeros((2, 1))}}, V, overwrite=True
        )
    assert open_prepared(prepared).fingerprint == before
    assert [path.name for path in prepared.parent.iterdir()] == ["rows"]
    write_rows(prepared, {"train": some_rows(3)}, V, overwrite=True)
    assert len(open_prepared(prepared).train) == 3
    assert [path.name for path in prepared.parent.iterdir()] == ["rows"]


@pytest.mark.parametrize("stranger", ["notes.txt", "train/notes.txt", ".git/config"])
def test_directory_with_files_of_another_kind_is_never_replaced(prepared, stranger):
    mine = prepared / stranger
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"is not replaced: it holds {stranger}, so this program"):
        write_rows(prepared, {"train": some_rows(3)}, V, overwrite=True)
    assert mine.read_text() == "mine"


def test_directory_without_the_file_that_marks_its_kind_is_never_replaced(prepared):
    (prepared / "data_card.json").unlink()
    with pytest.raises(UserError, match=r"it has no data_card.json, so this program"):
        write_rows(prepared, {"train": some_rows(3)}, V, overwrite=True)
    assert (prepared / "train" / "rows-00000.arrow").exists()


def test_file_is_never_replaced(tmp_path):
    (tmp_path / "rows").write_text("mine")
    with pytest.raises(UserError, match="is a file; name a directory"):
        write_rows(tmp_path / "rows", {"train": some_rows(3)}, V, overwrite=True)
    assert (tmp_path / "rows").read_text() == "mine"


def test_what_a_killed_program_left_is_put_in_order(prepared):
    """Killed between the two renames: the old directory is back, and the new one is gone."""
    before = open_prepared(prepared).fingerprint
    shutil.copytree(prepared, prepared.with_name("rows.partial"))
    prepared.rename(prepared.with_name("rows.replaced"))
    with pytest.raises(UserError, match="exists"), whole_directory(prepared):
        pass
    assert open_prepared(prepared).fingerprint == before
    with whole_directory(prepared, True, ["*"]) as partial:
        assert list(partial.iterdir()) == []
        (partial / "new").touch()
    assert [path.name for path in prepared.parent.iterdir()] == ["rows"]
    assert (prepared / "new").exists()


def test_writer_keeps_no_more_than_a_block(tmp_path):
    writer = RowWriter(tmp_path / "train", T, K, V)
    for seed in range(5):
        writer.append(some_rows(700, seed))
        assert writer._pending_rows < BLOCK_ROWS
    assert sum(file["rows"] for file in writer.close()) == writer.rows == 3500

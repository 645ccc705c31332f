"""What is written is whole or absent, where it is to be, and refused before the work if need be."""

import errno
import os

import pytest

from bertjax.program import outputs
from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.program.outputs import check_output, whole_file, whole_files, write_whole


@pytest.fixture
def place(tmp_path):
    """A folder with a link to a file, to a folder, to what is not there, and to itself."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old.json").write_text("old")
    (tmp_path / "to_file.json").symlink_to("real/old.json")
    (tmp_path / "to_folder").symlink_to("real")
    (tmp_path / "to_new").symlink_to("real/new")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def test_link_to_a_file_stays_and_its_file_is_replaced(place):
    write_whole(place / "to_file.json", "new")
    assert (place / "to_file.json").is_symlink()
    assert (place / "real" / "old.json").read_text() == "new"


def test_dangling_link_is_where_the_file_is_written(place):
    check_output(place / "to_new")
    write_whole(place / "to_new", "new")
    assert (place / "to_new").is_symlink()
    assert (place / "real" / "new").read_text() == "new"


@pytest.mark.parametrize("link", ["to_folder", "to_new"])
@pytest.mark.parametrize("write", [whole_files, lambda path: whole_directory(path, True, ["*"])])
def test_link_to_a_folder_stays_a_link(place, link, write):
    check_output(place / link, folder=True)
    with write(place / link) as aside:
        (aside / "new.json").write_text("new")
    assert (place / link).is_symlink()
    assert (place / link / "new.json").read_text() == "new"


def test_link_that_leads_to_itself_is_refused(place):
    for call in (check_output, whole_file, whole_files, whole_directory):
        with pytest.raises(UserError, match="loop: is a link that leads to itself"):
            getattr(call(place / "loop"), "__enter__", None)()


@pytest.mark.parametrize(
    ("name", "folder", "rule"),
    [
        ("real", False, "is a folder; name a file"),
        ("no/x.json", False, "there is no folder .*no; make it first"),
        ("to_file.json/x", True, "to_file.json is a file; name a folder"),
        ("real/old.json", True, "old.json is a file; name a folder"),
        ("/dev/null", False, "is a device or a pipe; name a file"),
        ("x" * 300, False, r"nothing can be written there \(File name too long\)"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(place, name, folder, rule):
    with pytest.raises(UserError, match=rf"^--output .*: .*{rule}"):
        check_output(place / name, folder=folder)


def test_input_is_not_overwritten(place):
    with pytest.raises(UserError, match=r"--output .*to_file.json: is the input"):
        check_output(place / "to_file.json", inputs=["-", place / "real" / "old.json"])


@pytest.mark.parametrize("folder", [False, True])
def test_full_disk_is_told_before_the_work(place, monkeypatch, folder):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.os, "fsync", full)
    with pytest.raises(UserError, match=r"nothing can be written there .No space left on device"):
        check_output(place / "real" / "new", folder=folder)
    assert [path.name for path in (place / "real").iterdir()] == ["old.json"]


def test_error_names_the_file_that_was_to_be_and_leaves_the_old_one(place, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.os, "fsync", full)
    path = place / "real" / "old.json"
    for write in (lambda: write_whole(path, "new"), lambda: write_into(place / "real")):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert caught.value.filename in (str(path), str(place / "real"))
    assert path.read_text() == "old"
    assert list((place / "real").iterdir()) == [path]


def write_into(folder):
    with whole_files(folder) as aside:
        (aside / "old.json").write_text("new")


def test_file_that_is_replaced_passes_its_permissions_on(place):
    path = place / "real" / "old.json"
    path.chmod(0o640)
    write_whole(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_new_folder_comes_into_being_whole(tmp_path):
    with whole_files(tmp_path / "a" / "new") as aside:
        (aside / "x").write_text("1")
        assert not (tmp_path / "a" / "new").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a" / "new").stat().st_mode & 0o777 == 0o777 & ~umask


def test_two_that_write_the_same_do_not_hinder_each_other(tmp_path):
    """The second removes what is left behind of a killed process, not what the first writes."""
    with whole_file(tmp_path / "x") as first:
        first.write_text("first")
        os.utime(first.parent, (0, 0))
        dead = tmp_path / ".partial-dead"
        dead.mkdir()
        os.utime(dead, (0, 0))
        write_whole(tmp_path / "x", "second")
        assert not dead.exists()
        assert first.exists()
    assert (tmp_path / "x").read_text() == "first"


def test_letters_that_utf8_has_not_are_escaped(tmp_path):
    write_whole(tmp_path / "x", "caf\udce9")
    assert (tmp_path / "x").read_text() == "caf\\udce9"

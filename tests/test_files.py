"""What is written is whole or absent."""

import errno
import json
import os

import pytest

from nmt_keras import files
from nmt_keras.errors import UserError


def test_a_write_that_fails_leaves_nothing_behind_and_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "folder" / "a.json"
    files.write_text(path, "old")
    with pytest.raises(
        UserError, match=r"^Cannot write \S+a\.json: No space left on device; free the disk or give another path$"
    ):
        with files.atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_block_that_fails_otherwise_leaves_nothing_and_its_error_goes_on(tmp_path):
    with pytest.raises(KeyError):
        with files.atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(b"half")
            raise KeyError("x")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "a").write_text("a file, no folder")
    with pytest.raises(UserError, match=r"^Cannot write \S+a/b\.json: (Not a directory|File exists); "):
        files.write_json(tmp_path / "a" / "b.json", {})


def test_a_directory_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match=r"^Cannot write \S+: it is a directory; give the path of a file$"):
        files.write_text(tmp_path, "text")


def test_text_is_utf8_with_its_line_feeds_as_they_are(tmp_path):
    files.write_text(tmp_path / "a", "\u4f60\r\n\u2028\n")
    assert (tmp_path / "a").read_bytes() == "\u4f60\r\n\u2028\n".encode()
    files.write_json(tmp_path / "b", {"\u4f60": 1})
    assert (
        json.loads((tmp_path / "b").read_bytes()) == {"\u4f60": 1}
        and "\u4f60".encode() in (tmp_path / "b").read_bytes()
    )


def test_a_growing_file_goes_on_with_what_it_was_about_alone(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        with files.resumable_write(path, False, {"a": 1}) as (file, lines):
            file.write("one\ntw")
            raise KeyboardInterrupt
    assert lines == 0 and not path.exists()
    with pytest.raises(UserError, match="out.partial was made otherwise: a was 1, now 2; b was None, now 3; give the"):
        with files.resumable_write(path, True, {"a": 2, "b": 3}):
            pass
    with files.resumable_write(path, True, {"a": 1}) as (file, lines):
        file.write("two\n")
    assert lines == 1 and path.read_text() == "one\ntwo\n" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_growing_file_without_its_card_is_refused(tmp_path):
    (tmp_path / "out.partial").write_text("one\n")
    with pytest.raises(UserError, match="out.partial.json, which says how .*out.partial was made, cannot be read"):
        with files.resumable_write(tmp_path / "out", True, {}):
            pass


def test_an_error_of_another_file_is_not_laid_to_a_growing_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        with files.resumable_write(tmp_path / "out", False, {}):
            open(tmp_path / "elsewhere")
    assert not list(tmp_path.iterdir())


def test_a_mistake_after_some_lines_leaves_them_as_an_interruption_does(tmp_path):
    for written, left in (("", []), ("one\n", ["out.partial", "out.partial.json"])):
        with pytest.raises(UserError, match="line 2"):
            with files.resumable_write(tmp_path / "out", False, {}) as (file, _):
                file.write(written)
                raise UserError("line 2")
        assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_permissions_of_the_process_which_is_never_without_its_umask(tmp_path, monkeypatch, umask):
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("other threads would write without it"))
            files.write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_can_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    files.require_writable(tmp_path / "new" / "folder" / "a")
    files.require_writable(tmp_path / "file")
    files.require_writable("/dev/null")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path, reason, remedy in (
        (tmp_path, "it is a directory", "give the path of a file"),
        (tmp_path / "file" / "a", "is no folder", "give another path"),
        ("/proc/x", "No such", "give another path"),
    ):
        with pytest.raises(UserError, match=f"^Cannot write {path}: .*{reason}.*; {remedy}$"):
            files.require_writable(path)


@pytest.mark.parametrize(
    "number, remedy",
    [
        (errno.EDQUOT, "free the disk or give another path"),
        (errno.EACCES, "give a path where you may write"),
        (errno.EROFS, "give a path where you may write"),
        (errno.EIO, "give another path"),
    ],
)
def test_the_remedy_is_that_of_the_reason(tmp_path, monkeypatch, number, remedy):
    def refuse(*args, **kwargs):
        raise OSError(number, "the reason")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    for write in (files.require_writable, lambda path: files.write_text(path, "text")):
        with pytest.raises(UserError, match=f"^Cannot write {tmp_path}/a: the reason; {remedy}$"):
            write(tmp_path / "a")

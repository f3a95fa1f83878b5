"""What is written is whole or absent."""

import errno
import json

import pytest

from nmt_keras import files
from nmt_keras.errors import UserError


def test_a_write_that_fails_leaves_nothing_behind_and_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "folder" / "a.json"
    files.write_text(path, "old")
    with pytest.raises(
        UserError, match=r"^Cannot write \S+a\.json: No space left on device; free the disk or give another path$"
    ):
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_block_that_fails_otherwise_leaves_nothing_and_its_error_goes_on(tmp_path):
    with pytest.raises(KeyError):
        with files.replacing(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(b"half")
            raise KeyError("x")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "a").write_text("a file, no folder")
    with pytest.raises(UserError, match=r"^Cannot write \S+a/b\.json: (Not a directory|File exists); "):
        files.write_json(tmp_path / "a" / "b.json", {})


def test_a_directory_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match=r"^Cannot write \S+: it is a directory; free the disk or give another path$"):
        files.write_text(tmp_path, "text")


def test_text_is_utf8_with_its_line_feeds_as_they_are(tmp_path):
    files.write_text(tmp_path / "a", "\u4f60\r\n\u2028\n")
    assert (tmp_path / "a").read_bytes() == "\u4f60\r\n\u2028\n".encode()
    files.write_json(tmp_path / "b", {"\u4f60": 1})
    assert (
        json.loads((tmp_path / "b").read_bytes()) == {"\u4f60": 1}
        and "\u4f60".encode() in (tmp_path / "b").read_bytes()
    )

"""A clean copy of a corpus, and why lines are not in it."""

import gzip
import pathlib

import pytest

from nmt_keras.data.corpus import TextFile
from nmt_keras.doctor.cleaning import reasons, write_clean_copy
from nmt_keras.doctor.findings import Finding
from nmt_keras.errors import UserError


def _finding(kind, *lines):
    return Finding(kind, "note", kind, len(lines), list(lines))


def test_a_shift_takes_two_lines_around_it_along_and_notes_drop_nothing():
    found = reasons([_finding("shift", 5, 6, 7), _finding("duplicate", 2, 6), _finding("white space", 1)], 9)
    assert found == {**{line: ["shift"] for line in (2, 3, 4, 6, 7, 8)}, 5: ["shift", "duplicate"], 1: ["duplicate"]}
    assert reasons([_finding("shift", 1)], 2) == {0: ["shift"], 1: ["shift"]}


def test_the_copy_holds_the_other_lines_byte_for_byte(tmp_path):
    (tmp_path / "a.en").write_bytes(b"one\r\ntwo\t\xff\nthree\nfour\nfive")
    with gzip.open(tmp_path / "a.de.gz", "wb") as file:
        file.write("eins\nzwei\n\nvier\n".encode())
    texts = [TextFile(str(tmp_path / name), str(tmp_path / "cache")) for name in ("a.en", "a.de.gz")]
    findings = [_finding("empty side", 3), _finding("overlap", 2)]
    counts = write_clean_copy(*texts, findings, tmp_path / "clean")
    assert counts == {"kept": 2, "empty side": 1, "overlap": 1, "line count": 1}
    assert (tmp_path / "clean" / "a.en").read_bytes() == b"one\r\nfour\n"
    assert (tmp_path / "clean" / "a.de").read_bytes() == b"eins\nvier\n"
    assert (tmp_path / "clean" / "dropped.tsv").read_text(encoding="utf-8") == (
        "line\treasons\tsource\ttarget\n2\toverlap\ttwo \ufffd\tzwei\n3\tempty side\tthree\t\n"
    )


def test_the_text_that_is_read_is_not_written_over(tmp_path):
    for name in ("a.en", "a.de"):
        (tmp_path / name).write_text("x\n")
    texts = [TextFile(str(tmp_path / name), str(tmp_path / "cache")) for name in ("a.en", "a.de")]
    with pytest.raises(UserError, match="a.en is read, and would be lost: give another path to write to"):
        write_clean_copy(*texts, [], pathlib.Path(tmp_path))
    assert (tmp_path / "a.en").read_text() == "x\n"

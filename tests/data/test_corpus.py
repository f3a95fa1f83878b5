"""Text files as lines: where lines end, what is found in them, the cache, alignment, and every source of text."""

import gzip
import os
import pathlib
import re
import threading

import numpy as np
import pytest

from nmt_keras.data import corpus as corpus_module
from nmt_keras.data import unpacking
from nmt_keras.data.corpus import ParallelCorpus, TextFile, first_drift
from nmt_keras.errors import UserError
from nmt_keras.pipes import default_cache_dir

BOM = b"\xef\xbb\xbf"
WILD = BOM + "één\r\n两个字\u2028 和\n\nfi\0ve\n".encode() + b"bad \xff\xe4\xb8 end\n" + "last 😀".encode()


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def _all(text):
    return text.lines(range(len(text)))


def test_a_line_ends_at_a_line_feed_and_only_there(write, cache):
    text = TextFile(write("a\u2028b\u2029c\nd\x85e\x0bf\x0cg\rh\x1ci\n\nj\n"), cache)
    assert _all(text) == ["a\u2028b\u2029c", "d\x85e\x0bf\x0cg\rh\x1ci", "", "j"]


@pytest.mark.parametrize(
    "content, lines",
    [
        ("", []),
        ("\n", [""]),
        ("\n\n", ["", ""]),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\nb", ["a", "b"]),
        ("a\n ", ["a", " "]),
    ],
)
def test_the_last_line_may_lack_its_line_end_and_an_empty_file_has_no_line(write, cache, content, lines):
    text = TextFile(write(content), cache)
    assert len(text) == len(lines)
    assert _all(text) == lines
    assert text.findings == []


def test_byte_lengths_count_the_line_end(write, cache):
    np.testing.assert_array_equal(TextFile(write("ab\n\n两\nd"), cache).byte_lengths(), [3, 1, 4, 1])


def test_lines_come_in_the_order_that_was_asked_for(write, cache):
    assert TextFile(write("a\nb\nc\nd\n"), cache).lines(np.array([3, 0, 0, 2])) == ["d", "a", "a", "c"]


def test_a_byte_order_mark_and_carriage_returns_are_removed_and_reported(write, cache):
    text = TextFile(write(BOM + b"one\r\ntwo\nthree\r\n" + BOM + b"four\r\r\n"), cache)
    assert _all(text) == ["one", "two", "three", "\ufefffour\r"]
    assert list(map(str, text.findings)) == [
        "a byte order mark in 1 line (1): removed",
        "CR LF line ends in 3 lines (1, 3, 4): the CR is removed",
        "byte order marks inside the text in 1 line (4): removed: files were joined",
    ]


def test_a_carriage_return_inside_a_line_is_no_finding(write, cache):
    text = TextFile(write("a\rb\nc\n"), cache)
    assert _all(text) == ["a\rb", "c"]
    assert text.findings == []


def test_oddities_are_reported_by_line_and_shift_nothing(write, cache):
    text = TextFile(write(WILD), cache)
    assert _all(text) == ["één", "两个字\u2028 和", "", "fi\0ve", "bad \ufffd\ufffd end", "last 😀"]
    assert list(map(str, text.findings)) == [
        "a byte order mark in 1 line (1): removed",
        "CR LF line ends in 1 line (1): the CR is removed",
        "NUL characters in 1 line (4): removed",
        "U+2028 line separators in 1 line (2): read as spaces",
        "invalid UTF-8 in 1 line (5): read as U+FFFD",
    ]


def test_a_finding_names_ten_lines_at_most_and_counts_all(write, cache):
    (finding,) = TextFile(write("x\0\n\n" * 12), cache).findings
    assert str(finding) == "NUL characters in 12 lines (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, ...): removed"


@pytest.mark.parametrize("size", [3, 4, 5, 7, 16])
def test_a_block_boundary_anywhere_changes_nothing(write, tmp_path, monkeypatch, size):
    path = write(WILD * 3)
    whole = TextFile(path, str(tmp_path / "one"))
    monkeypatch.setattr(corpus_module, "_CHUNK_BYTES", size)
    blocks = TextFile(path, str(tmp_path / "two"))
    np.testing.assert_array_equal(blocks.byte_lengths(), whole.byte_lengths())
    assert blocks.findings == whole.findings
    assert blocks.sha256 == whole.sha256
    assert _all(blocks) == _all(whole)


def test_a_gz_file_is_unpacked_once_into_the_cache(write, tmp_path, cache, monkeypatch):
    path = write(gzip.compress("eins\n二\n".encode()), "a.txt.gz")
    first = TextFile(path, cache)
    assert _all(first) == ["eins", "二"]
    assert first.path == path
    assert first.sha256 == TextFile(write("eins\n二\n"), cache).sha256
    monkeypatch.setattr(unpacking, "_unpack", lambda *_: pytest.fail("unpacked again"))
    assert _all(TextFile(path, cache)) == ["eins", "二"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "a.txt.gz", "cache"]


def _damaged(kind):
    packed = gzip.compress(np.random.default_rng(1).bytes(5000))
    if kind == "truncated":
        return packed[:-100]
    if kind == "no gzip":
        return b"plain text\n"
    flipped = bytearray(packed)
    if kind == "wrong checksum":
        flipped[-6] ^= 0xFF
    else:  # an impossible block type right after the header
        flipped[10] |= 0x06
    return bytes(flipped)


@pytest.mark.parametrize("kind", ["truncated", "no gzip", "wrong checksum", "broken stream"])
def test_a_damaged_gz_file_is_refused_and_leaves_nothing_in_the_cache(write, tmp_path, cache, kind):
    path = write(_damaged(kind), "a.gz")
    with pytest.raises(
        UserError, match=r"Cannot unpack .*a\.gz: .*; it is truncated or no gz file, make or fetch it again"
    ):
        TextFile(path, cache)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_directory_or_a_missing_file_is_refused_and_nothing_is_written(tmp_path, cache):
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))} is a directory; give a text file$"):
        TextFile(str(tmp_path), cache)
    with pytest.raises(
        UserError, match=r"^Cannot read \S+none\.txt: No such file or directory; check the path \(and data_dir\)$"
    ):
        TextFile(str(tmp_path / "none.txt"), cache)
    with pytest.raises(UserError, match=r"^Cannot read \S+none\.gz: No such file or directory"):
        TextFile(str(tmp_path / "none.gz"), cache)
    assert list(tmp_path.iterdir()) == []


def test_the_index_is_built_once_and_again_when_the_file_changes(write, cache, monkeypatch):
    path = write("a\nb\n")
    first = TextFile(path, cache)
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_build_index", lambda *_: pytest.fail("indexed again"))
        again = TextFile(path, cache)
    assert (_all(again), again.sha256, again.findings) == (["a", "b"], first.sha256, [])
    stat = os.stat(path)
    write("c\n\0\n")  # of the same size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed = TextFile(path, cache)
    assert _all(changed) == ["c", "\0"]
    assert changed.sha256 != first.sha256
    assert len(changed.findings) == 1


def test_findings_survive_in_the_cache(write, cache):
    path = write(WILD)
    assert TextFile(path, cache).findings == TextFile(path, cache).findings


def test_a_read_only_data_directory_is_enough(tmp_path, cache):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_bytes(b"a\n")
    (data / "b.gz").write_bytes(gzip.compress(b"b\n"))
    data.chmod(0o555)
    try:
        assert _all(TextFile(str(data / "a.txt"), cache)) == ["a"]
        assert _all(TextFile(str(data / "b.gz"), cache)) == ["b"]
        assert sorted(p.name for p in data.iterdir()) == ["a.txt", "b.gz"]
    finally:
        data.chmod(0o755)


def test_the_default_cache_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == "/somewhere/nmt_keras"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_cache_dir() == "/home/me/.cache/nmt_keras"


def _parallel(count):
    """Source lines of widely varied lengths, target lines about twice as long."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(3, 90, size=count)
    return [["x" * size for size in sizes], ["y" * (2 * size + rng.integers(0, 6)) for size in sizes]]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("at", [0, 137, 299])
def test_sides_of_unequal_line_counts_are_refused_with_where_lengths_drift(write, cache, side, at):
    sides = _parallel(300)
    del sides[side][at]
    paths = [write("".join(line + "\n" for line in lines), name) for lines, name in zip(sides, ("a.en", "a.zh"))]
    counts = ("299", "300") if side == 0 else ("300", "299")
    message = (
        rf"a\.en has {counts[0]} lines and \S+a\.zh has {counts[1]}; they must be aligned line by line\. "
        r"Lengths drift from line (\d+) on: mend the files there$"
    )
    with pytest.raises(UserError, match=message) as caught:
        ParallelCorpus(*([TextFile(path, cache)] for path in paths))
    assert abs(int(re.search(message, str(caught.value))[1]) - (at + 1)) <= 3


def test_drift_of_several_lines_is_found():
    source, target = (np.array([len(line) for line in lines]) for lines in _parallel(300))
    assert abs(first_drift(source, np.delete(target, range(80, 87))) - 80) <= 3


def test_a_file_that_is_much_shorter_is_told_by_where_it_ends(tmp_path):
    for name, count in (("a.en", 5), ("a.zh", 149)):
        (tmp_path / name).write_text("a b c\n" * count)
    texts = [TextFile(str(tmp_path / name), str(tmp_path)) for name in ("a.en", "a.zh")]
    with pytest.raises(UserError, match=r"a.en ends at line 5: is it of the same text as \S+a.zh\?$"):
        ParallelCorpus(*([text] for text in texts))


def test_a_side_without_any_line_is_refused(write, cache):
    full, empty = TextFile(write("a\nb\n", "a.en"), cache), TextFile(write("", "a.zh"), cache)
    with pytest.raises(UserError, match=r"a\.en has 2 lines and \S+a\.zh has 0; .* from line 1 on"):
        ParallelCorpus([full], [empty])
    with pytest.raises(UserError, match=r"a\.zh is empty: a parallel text needs at least one line; check the path$"):
        ParallelCorpus([empty], [empty])


def test_running_line_numbers_address_several_corpora(write, cache):
    files = [
        TextFile(write(content, name), cache)
        for content, name in (("a\nb\nc\n", "1.en"), ("d\ne\n", "2.en"), ("A\nB\nC\n", "1.zh"), ("D\nE\n", "2.zh"))
    ]
    corpus = ParallelCorpus(files[:2], files[2:])
    assert len(corpus) == 5
    assert corpus.fetch(np.array([4, 0, 3, 2, 4])) == (["e", "a", "d", "c", "e"], ["E", "A", "D", "C", "E"])
    assert corpus.text() == (["a", "b", "c", "d", "e"], ["A", "B", "C", "D", "E"])
    assert corpus.fetch(np.array([], np.int64)) == ([], [])


def test_a_pipe_is_read_once_and_kept(tmp_path, cache):
    def feed(content):
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(content)

    for number, content in enumerate((b"one\ntwo\n", gzip.compress(b"three\n"))):
        os.mkfifo(tmp_path / "pipe")
        thread = threading.Thread(target=feed, args=(content,))
        thread.start()
        text = TextFile(str(tmp_path / "pipe"), cache)
        thread.join()
        assert _all(text) == [["one", "two"], ["three"]][number] and text.path == str(tmp_path / "pipe")
        assert _all(TextFile(str(tmp_path / "pipe"), cache)) == _all(text)  # nobody writes any more
        os.rename(tmp_path / "pipe", tmp_path / f"old{number}")  # which keeps its number from the next one
    assert not [path for path in pathlib.Path(cache).iterdir() if path.name.startswith(".tmp")]


def _weighted(write, cache, weights):
    source, target = (TextFile(write("a\nb\nc\n", name), cache) for name in ("a", "b"))
    return ParallelCorpus([source, source], [target, target], [None, TextFile(write(weights, "weights"), cache)])


def test_each_line_of_a_corpus_may_have_a_weight(write, cache):
    corpus = _weighted(write, cache, "0.5\n0\n3e1\n")
    np.testing.assert_array_equal(corpus.weights_of(np.array([5, 0, 3, 4])), [30, 1, 0.5, 0])
    assert corpus.weights_of(np.array([1])).dtype == np.float32
    assert [text.path.rpartition("/")[2] for text in corpus.weight_texts if text] == ["weights"]
    assert ParallelCorpus(corpus.sources, corpus.targets).weights == [None, None]


@pytest.mark.parametrize("bad", ["x", "", "-1", "nan", "inf", "1 2"])
def test_what_is_no_weight_is_refused_with_its_line(write, cache, bad):
    with pytest.raises(UserError, match=rf"weights, line 2: {bad!r} is no weight of an example; give a number that is"):
        _weighted(write, cache, f"1\n{bad}\n1\n")


def test_there_is_a_weight_for_each_line(write, cache):
    with pytest.raises(UserError, match="weights has 2 lines and .*a has 3; give one weight a line"):
        _weighted(write, cache, "1\n1\n")

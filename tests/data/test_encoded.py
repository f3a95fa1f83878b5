"""Text as ids, encoded once."""

import multiprocessing
import pathlib

import numpy as np
import pytest

from nmt_keras.data import encoded
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.encoded import EncodedCorpus, EncodedText, lines_to_encode
from nmt_keras.tokenizers.characters import ByteTokenizer
from nmt_keras.tokenizers.words import WordTokenizer

LINES = ["ab", "", " \u3000\t", "\u4e24", "x y", "abc"]


@pytest.fixture
def write(tmp_path):
    """Opens lines as a text file with a cache."""

    def write(lines, name="a.txt"):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
        return TextFile(str(tmp_path / name), str(tmp_path / "cache"))

    return write


def _sentences(rows):
    ends = np.cumsum(rows.lengths)
    return [rows.ids[end - length : end].tolist() for end, length in zip(ends, rows.lengths)]


def test_the_ids_of_lines_are_those_of_the_tokenizer_and_blank_lines_have_none(write):
    text, tokenizer = EncodedText(write(LINES), ByteTokenizer()), ByteTokenizer()
    np.testing.assert_array_equal(text.lengths, [3, 1, 1, 4, 4, 4])
    assert text.lengths.dtype == np.int32
    order = [5, 0, 2, 0, 3]
    expected = [[] if line.isspace() else tokenizer.encode(line) for line in LINES]
    assert _sentences(text.rows(np.array(order))) == [expected[line] for line in order]
    assert _sentences(text.rows(np.array([], np.int64))) == []


@pytest.mark.parametrize("size, dtype", [(65_536, np.uint16), (65_537, np.int32)])
def test_ids_take_as_few_bytes_as_they_need(write, size, dtype):
    tokenizer = WordTokenizer([f"w{number}" for number in range(size - 4)])
    rows = EncodedText(write([f"w{size - 5}", "w0"]), tokenizer).rows(np.array([0, 1]))
    assert rows.ids.dtype == dtype
    assert rows.ids.tolist() == [size - 1, 4]


def test_they_are_encoded_once_for_each_tokenizer(write, monkeypatch):
    text = write(LINES)
    EncodedText(text, ByteTokenizer())
    monkeypatch.setattr(ByteTokenizer, "encode", lambda *_: pytest.fail("encoded again"))
    assert EncodedText(text, ByteTokenizer()).lengths.tolist() == [3, 1, 1, 4, 4, 4]
    assert EncodedText(text, WordTokenizer(["x"])).lengths.tolist() == [2, 1, 1, 2, 3, 2]
    with pytest.raises(pytest.fail.Exception, match="encoded again"):
        EncodedText(text, ByteTokenizer(folds=False))  # another hash


class Stopping(ByteTokenizer):
    """A byte tokenizer that is stopped after so many lines."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def encode(self, text):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().encode(text)


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_what_was_encoded_before_a_stop_is_kept(write, monkeypatch, lost):
    """`lost` bytes of the file of ids never reached the disk."""
    monkeypatch.setattr(encoded, "_BLOCK", 2)
    lines = ["ab", "c", "def", "g", "hi", "j", "k"]
    text, said = write(lines), []
    with pytest.raises(KeyboardInterrupt):
        EncodedText(text, Stopping(5))
    folder = pathlib.Path(text.cache_path(""))
    [ids] = folder.glob("*.unfinished.ids")
    if lost:
        ids.write_bytes(ids.read_bytes()[:-lost])
    tokenizer = Stopping(len(lines))
    result = EncodedText(text, tokenizer, said.append)
    assert _sentences(result.rows(np.arange(7))) == [ByteTokenizer().encode(line) for line in lines]
    assert tokenizer.left == {0: 4, 1: 3, 5: 2}[lost]  # lines that were not encoded again
    assert said[0] == tokenizer.left and sum(said) == len(lines)
    assert not list(folder.glob("*.unfinished.*"))


@pytest.mark.parametrize("after", [0, 1])
def test_a_stop_while_files_are_put_in_their_places_loses_nothing(write, monkeypatch, after):
    text, real = write(LINES), encoded.files.atomic_write
    left = [after]

    def stopped(path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(encoded.files, "atomic_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            EncodedText(text, ByteTokenizer())
    monkeypatch.setattr(ByteTokenizer, "encode", lambda *_: pytest.fail("encoded again"))
    assert EncodedText(text, ByteTokenizer()).lengths.tolist() == [3, 1, 1, 4, 4, 4]


@pytest.mark.parametrize("name", ["ids", "offsets", "lengths"])
@pytest.mark.parametrize("kept", [0, 7, None])
def test_a_file_that_is_gone_or_cut_off_is_made_again(write, name, kept):
    text = write(LINES)
    expected = _sentences(EncodedText(text, ByteTokenizer()).rows(np.arange(6)))
    [path] = pathlib.Path(text.cache_path("")).glob(f"*.{name}")
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])
    again = EncodedText(text, ByteTokenizer())
    assert _sentences(again.rows(np.arange(6))) == expected
    assert path.read_bytes() == content


def test_a_broken_file_does_not_come_back_after_a_stop(write, monkeypatch):
    monkeypatch.setattr(encoded, "_BLOCK", 2)
    text = write(["ab", "c", "def", "g", "hi"])
    expected = _sentences(EncodedText(text, ByteTokenizer()).rows(np.arange(5)))
    [path] = pathlib.Path(text.cache_path("")).glob("*.ids")
    path.write_bytes(bytes(len(path.read_bytes()) - 2))  # zeros, and too few
    with pytest.raises(KeyboardInterrupt):
        EncodedText(text, Stopping(4))
    assert _sentences(EncodedText(text, ByteTokenizer()).rows(np.arange(5))) == expected


def _encode_in_a_process(path, cache, queue):
    queue.put(EncodedText(TextFile(path, cache), ByteTokenizer()).lengths.sum())


def test_processes_that_encode_at_once_agree(write):
    text = write(["some words of a line"] * 3000)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (text.path, str(text.cache_path("")), queue)
    workers = [context.Process(target=_encode_in_a_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [int(queue.get(timeout=60)) for _ in workers] == [3000 * 21] * 3
    for worker in workers:
        worker.join()


def test_running_line_numbers_go_over_several_corpora(write):
    sources = [write(["a", "bb"], "s0"), write(["ccc", "d", "ee"], "s1")]
    targets = [write(["1", "22"], "t0"), write(["333", "4", "55"], "t1")]
    corpus, said = ParallelCorpus(sources, targets), []
    both = EncodedCorpus(corpus, (ByteTokenizer(), ByteTokenizer()), said.append)
    assert sum(said) == lines_to_encode(corpus) == 10
    assert [[part.tolist() for part in side] for side in both.lengths] == [[[2, 3], [4, 2, 3]]] * 2
    lines = np.array([3, 0, 4, 1, 2, 0])
    for side, texts in enumerate(corpus.fetch(lines)):
        assert _sentences(both.rows(side, lines)) == [ByteTokenizer().encode(text) for text in texts]
    assert _sentences(both.rows(0, np.array([], np.int64))) == []
    again = []
    EncodedCorpus(corpus, (ByteTokenizer(), ByteTokenizer()), again.append)
    assert sum(again) == 10


def test_a_text_without_ids_is_mapped_too(write):
    assert EncodedText(write(["", " "]), ByteTokenizer()).rows(np.array([1, 0])).lengths.tolist() == [0, 0]


def test_the_tag_of_its_corpus_is_before_each_source_that_is_not_empty(write):
    sources = [write(["a", ""], "s0"), write(["ccc"], "s1")]
    targets = [write(["1", "2"], "t0"), write(["333"], "t1")]
    encoded = EncodedCorpus(ParallelCorpus(sources, targets), (ByteTokenizer(), ByteTokenizer()), tags=[7, 8])
    assert [[part.tolist() for part in side] for side in encoded.lengths] == [[[3, 1], [5]], [[2, 2], [4]]]
    lines = np.array([2, 0])
    assert _sentences(encoded.rows(0, lines)) == [
        [8, *ByteTokenizer().encode("ccc")],
        [7, *ByteTokenizer().encode("a")],
    ]
    assert _sentences(encoded.rows(1, lines)) == [ByteTokenizer().encode(text) for text in ("333", "1")]

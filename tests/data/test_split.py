"""Dev and test pairs out of training text."""

import pytest

from nmt_keras.data.corpus import TextFile
from nmt_keras.data.split import sentence_key, split
from nmt_keras.errors import UserError


@pytest.fixture
def make(tmp_path):
    def make(lines, name="a"):
        """Splits a corpus of these sources, whose targets are T and the source."""
        for side, texts in (("en", lines), ("de", [f"T {line}" if line.strip() else line for line in lines])):
            (tmp_path / f"{name}.{side}").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return tuple(TextFile(str(tmp_path / f"{name}.{side}"), str(tmp_path / "cache")) for side in ("en", "de"))

    return make


def _lines(text):
    return text.lines(range(len(text)))


def _split(tmp_path, pairs, dev=5, test=5, languages=("de",), beside=None):
    return split(pairs, beside or [[]] * len(pairs), languages, "en", dev, test, str(tmp_path / "cache"))


def test_no_sentence_is_in_two_parts_and_nothing_is_lost(make, tmp_path):
    lines = [f"sentence {number}" for number in range(40)] + ["Sentence 7!", "sentence 7", "", "SENTENCE, 30"]
    found = _split(tmp_path, [make(lines)])
    parts = [_lines(pair[0]) for pair in (found.train[0], found.dev[0], found.test[0])]
    keys = [{sentence_key(line) for line in part} for part in parts]
    assert [len(part) for part in parts[1:]] == [5, 5] and not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    assert set.union(*keys) == {sentence_key(line) for line in lines}
    for pair in (found.train[0], found.dev[0], found.test[0]):
        assert all(target == (f"T {source}" if source else "") for source, target in zip(*map(_lines, pair)))
        assert [lines[int(pair[0].place(index)) - 1] for index in range(len(pair[0]))] == _lines(pair[0])


def test_a_sentence_that_was_trained_on_is_never_held_out_later(make, tmp_path):
    lines = [f"sentence {number}" for number in range(60)]
    before = _split(tmp_path, [make(lines[:40])])
    after = _split(tmp_path, [make(lines[::-1], "b")])
    assert not set(_lines(before.train[0][0])) & {*_lines(after.dev[0][0]), *_lines(after.test[0][0])}
    assert set(_lines(after.dev[0][0])) & set(_lines(before.dev[0][0]))


def test_each_language_has_its_dev_set_of_the_same_sentences(make, tmp_path):
    lines = [f"sentence {number}" for number in range(40)]
    pairs = [make(lines, "a"), make(lines[::-1], "b"), make([*lines[:20], "another"], "c")]
    found = _split(tmp_path, pairs, 6, 0, ("de", "fr", "de"))
    assert [len(pair[0]) for pair in found.dev] == [6, 6] and found.test == []
    assert sorted(_lines(found.dev[0][0])) == sorted(_lines(found.dev[1][0]))
    held = set(_lines(found.dev[0][0]))
    assert not any(held & set(_lines(pair[0])) for pair in found.train)
    assert found.dev[1][0].place(0).isdecimal() and found.dev[0][0].place(0).startswith(f"{tmp_path}/a.en:")


def test_what_is_beside_a_corpus_loses_the_same_lines(make, tmp_path):
    lines = [f"sentence {number}" for number in range(30)]
    weights, _ = make(lines, "weights")
    found = _split(tmp_path, [make(lines)], beside=[[weights, None]])
    assert _lines(found.beside[0][0]) == _lines(found.train[0][0]) and found.beside[0][1] is None


def test_a_text_that_is_too_small_is_refused_and_nothing_is_kept(make, tmp_path):
    with pytest.raises(
        UserError, match=r"in 'de' has 3 different sentences, and data\.dev_pairs and data\.test_pairs take 10"
    ):
        _split(tmp_path, [make(["a", "b", "c", "C!", ""])])
    assert not list((tmp_path / "cache").glob("split-*"))


def test_sources_without_letters_are_sentences_too(make, tmp_path):
    lines = [f"sentence {number}" for number in range(40)] + ["...", "!!!", "?"]
    found = _split(tmp_path, [make(lines)], 5, 5)
    assert sum(len(pair[0]) for pair in (*found.train, *found.dev, *found.test)) == 43


def test_a_language_with_too_few_sentences_is_refused(make, tmp_path):
    pairs = [make([f"sentence {number}" for number in range(100)]), make(["one", "two"], "b")]
    with pytest.raises(UserError, match=r"in 'fr' has 2 different sentences, and .* take 10"):
        _split(tmp_path, pairs, 5, 5, ("de", "fr"))

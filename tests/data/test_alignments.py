"""Word alignments in Pharaoh's format, and what becomes of them where words are pieces."""

import numpy as np
import pytest

from nmt_keras.data import alignments
from nmt_keras.data.alignments import Alignments
from nmt_keras.data.batching import make_batch
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.encoded import EncodedCorpus
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.building import train_tokenizer
from nmt_keras.tokenizers.white_space import fold

SOURCES = ["ein kleines Haus", "Haus", "", "ein  kleines\u00a0Haus da", "Häuser sind \u00ad klein"]
TARGETS = ["a small house", "the house", "", "a small house", "houses are small"]
LINKS = ["0-0 1-1 2-2", "0-0 0-1", "", "1-2 2-0", "0-0 3-2 3-1 2-0"]
# The same, of the words after folding: a no-break space makes two, a soft hyphen alone none.
FOLDED = ["0-0 1-1 2-2", "0-0 0-1", "", "1-2 2-2 3-0", "0-0 2-2 2-1"]


@pytest.fixture
def opened(tmp_path):
    def opened(name, lines):
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
        return TextFile(str(path), str(tmp_path / "cache"))

    return opened


def _alignments(opened, links, kind="unigram", tags=(), others=False):
    """Alignments of one corpus, or with another before it that has none."""
    sources, targets, texts = [opened("s", SOURCES)], [opened("t", TARGETS)], [opened("links", links)]
    if others:
        sources, targets, texts = [opened("s0", ["x"]), *sources], [opened("t0", ["y"]), *targets], [None, *texts]
    corpus = ParallelCorpus(sources, targets, alignments=texts)
    lines = [*SOURCES, *TARGETS] * 20
    tokenizer = train_tokenizer(kind, lines, 300, may_shrink=True)
    encoded = EncodedCorpus(corpus, (tokenizer, tokenizer), tags=tags)
    return Alignments(corpus, (tokenizer, tokenizer), len(tags)), encoded, tokenizer


def _batch(encoded, lines):
    lines = np.array(lines)
    return make_batch(*(encoded.rows(side, lines) for side in (0, 1)), np.ones(len(lines), np.float32), lines, 99, 99)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "word", "byte"])
@pytest.mark.parametrize("others", [False, True])
def test_the_pieces_of_linked_words_are_linked_and_no_others(opened, kind, others):
    align, encoded, tokenizer = _alignments(opened, LINKS, kind, others=others)
    lines = [number + others for number in (0, 1, 3, 4)]
    batch = _batch(encoded, lines)
    found = align(batch.source_ids, batch.target_output_ids, batch.lines)
    assert found.shape == (4, batch.target_output_ids.shape[1], batch.source_ids.shape[1])
    for row, (line, number) in enumerate(zip(lines, (0, 1, 3, 4))):
        linked = {tuple(map(int, link.split("-"))) for link in FOLDED[number].split()}
        words = [_words(tokenizer, side[row]) for side in (batch.source_ids, batch.target_output_ids)]
        expected = [[(s, t) in linked for s in words[0]] for t in words[1]]
        np.testing.assert_array_equal(found[row], expected)
        assert [max(side) + 1 for side in words] == [len(fold(t[number]).split()) for t in (SOURCES, TARGETS)]
    assert not align.num_unfit


def _words(tokenizer, ids):
    """The number of the word that each piece is of, by the text before it; None for EOS and padding."""
    words, kept = [], []
    for number in ids.tolist():
        if number in (0, 3):
            words.append(-9)
            continue
        kept.append(number)
        text = b"".join(tokenizer.surface(each) for each in kept)
        words.append(len(text.lstrip(b" ").split(b" ")) - 1 if text.strip() else 0)
    return words


def test_a_tag_and_a_padding_row_have_no_links(opened):
    align, encoded, _ = _alignments(opened, LINKS, tags=(9,))
    plain, plainly_encoded, _ = _alignments(opened, LINKS)
    batch, plain_batch = (_batch(each, [0, 4]) for each in (encoded, plainly_encoded))
    found = align(batch.source_ids, batch.target_output_ids, np.array([0, 4]))
    expected = plain(plain_batch.source_ids, plain_batch.target_output_ids, np.array([0, 4]))
    np.testing.assert_array_equal(found, np.pad(expected, [(0, 0), (0, 0), (1, 0)]))
    assert not align(batch.source_ids, batch.target_output_ids, np.array([-1, -1])).any()


@pytest.mark.parametrize(
    "links, message",
    [
        (LINKS[:-1], "links has 4 lines and .*s has 5; give the alignment of each line"),
        (["0-0 1:1", *LINKS[1:]], "line 1: '1:1' is no link of two words; Pharaoh's format"),
        (["0--1", *LINKS[1:]], "line 1: '0--1' is no link"),
        ([*LINKS[:-1], "0-0 4-1"], r"line 5: the link 4-1, but the source in .*s has 4 words between spaces"),
        (["0-3", *LINKS[1:]], r"line 1: the link 0-3, but the target in .*t has 3 word"),
        (["", "", "0-0", "", ""], r"line 3: the link 0-0, but the source in .* has 0 word"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(opened, links, message):
    with pytest.raises(UserError, match=message):
        _alignments(opened, links)


def test_links_are_read_once_for_each_pair_of_texts(opened, monkeypatch):
    text, source, target = opened("links", LINKS), opened("s", SOURCES), opened("t", TARGETS)
    first = alignments.read_links(text, source, target)
    monkeypatch.setattr(alignments, "_places_of", lambda *_: pytest.fail("read again"))
    again = alignments.read_links(text, source, target)
    np.testing.assert_array_equal(first.links, again.links)
    assert again.words.tolist() == [[3, 3], [1, 2], [0, 0], [4, 3], [3, 3]]
    with pytest.raises(pytest.fail.Exception):
        alignments.read_links(text, opened("s2", [*SOURCES[:-1], "Häuser sind ja klein"]), target)


def test_a_row_whose_pieces_are_of_other_words_has_no_links_and_is_counted(opened):
    """Unicode's compatible forms have spaces that the text has not."""
    source, target = opened("s", ["L\u00b4homme a"] * 2), opened("t", ["the man has"] * 2)
    corpus = ParallelCorpus([source], [target], alignments=[opened("links", ["0-0 1-2", ""])])
    tokenizer = train_tokenizer(
        "unigram", ["L \u0301homme a", "the man has"] * 20, 300, normalization="nmt_nfkc", may_shrink=True
    )
    align = Alignments(corpus, (tokenizer, tokenizer))
    batch = _batch(EncodedCorpus(corpus, (tokenizer, tokenizer)), [0, 1])
    assert not align(batch.source_ids, batch.target_output_ids, batch.lines).any()
    assert align.num_unfit == 1

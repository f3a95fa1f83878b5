"""Pretrained vectors: files of three kinds, mapped onto a vocabulary."""

import gzip

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.data.vectors import load_vectors
from nmt_keras.errors import UserError
from nmt_keras.layers.embeddings import TokenEmbedding

PIECES = ["<pad>", "<unk>", "\u2581Cat", "dog", "\u2581", "\u2581cat", "s"]
GLOVE = "cat 1 2 3\ndog 4 5 6\nbird 7 8 9\n"


@pytest.mark.parametrize("kind", ["glove", "word2vec", "gzip"])
def test_files_of_three_kinds(tmp_path, kind):
    path = tmp_path / ("vectors.txt" + (".gz" if kind == "gzip" else ""))
    text = "3 3\n" + GLOVE if kind == "word2vec" else GLOVE
    path.write_bytes(gzip.compress(text.encode()) if kind == "gzip" else text.encode())
    table, found, coverage = load_vectors(str(path), PIECES, 3)
    np.testing.assert_array_equal(found, [False, False, True, True, False, True, False])
    np.testing.assert_array_equal(table[[2, 3, 5]], [[1, 2, 3], [4, 5, 6], [1, 2, 3]])
    assert not table[~found].any() and str(coverage) == "3 of 7 pieces (42.9%)"


def test_a_piece_prefers_its_own_case(tmp_path):
    for lines in ("cat 1 1 1\nCat 2 2 2\n", "Cat 2 2 2\ncat 1 1 1\n"):
        (tmp_path / "v").write_text(lines)
        table, _, _ = load_vectors(str(tmp_path / "v"), PIECES, 3)
        np.testing.assert_array_equal(table[[2, 5]], [[2, 2, 2], [1, 1, 1]])


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"cat 1 2\n",
            "line 1 has 2 numbers, and the embeddings are 3 wide: give other vectors, or `model.d_embedding` 2",
        ),
        (b"bird 1 2\n", "line 1 has 2 numbers"),
        (b"cat 1 2 x\n", "line 1: not a word and its numbers"),
        (b"cat 1.0 2.0 3.0 4.0\n", "line 1 has 4 numbers"),
        (b"cat 1 2 3\ndog 4 5\n", "line 2 has 2 numbers where the lines before have 3: mend or remove it"),
        (b"cat 1 2 nan\n", "line 1: a number is not finite; remove the line"),
        (b"cat\n", "line 1: not a word and its numbers; give a text file of vectors"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(tmp_path, content, message):
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_vectors(str(tmp_path / "v"), PIECES, 3)


def test_a_word_may_hold_spaces(tmp_path):
    """As in GloVe's 840B: the last numbers are the vector, what comes before is the word."""
    (tmp_path / "v").write_text("dog 1 2 3\n. . . 4 5 6\nat name@domain.com 7 8 9\ncat . 0 0 1\n")
    table, found, _ = load_vectors(str(tmp_path / "v"), [*PIECES, ". . ."], 3)
    np.testing.assert_array_equal(np.flatnonzero(found), [3, 7])
    np.testing.assert_array_equal(table[[3, 7]], [[1, 2, 3], [4, 5, 6]])


def test_vectors_of_zeros_stay_zeros():
    embedding = TokenEmbedding(3, 2)
    embedding.build(None)
    embedding.load(np.zeros((3, 2), np.float32), np.array([0, 1, 0], bool))
    assert np.isfinite(np.array(embedding.table)).all() and not np.array(embedding.table)[1].any()


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="Cannot read the vectors .*nowhere"):
        load_vectors(str(tmp_path / "nowhere"), PIECES, 3)


@pytest.mark.parametrize("frozen", [False, True])
def test_rows_of_the_file_are_scaled_and_frozen_if_wanted(frozen):
    embedding = TokenEmbedding(4, 6, 3, has_frozen_rows=frozen)
    embedding.build(None)
    before = np.array(embedding.table)
    vectors, found = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 0]], np.float32), np.array([0, 1, 1, 0], bool)
    embedding.load(vectors, found)
    table = np.array(embedding.table)
    np.testing.assert_array_equal(table[~found], before[~found])
    assert np.mean(table[found] ** 2) == pytest.approx(1 / 3)
    with tf.GradientTape() as tape:
        hidden = embedding(tf.constant([[0, 1, 2, 3]]))
        assert hidden.shape == (1, 4, 6)
        loss = tf.reduce_sum((embedding.to_table_width(hidden) @ tf.transpose(embedding.trained_table())) ** 2)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(loss, embedding.table.value)))
    assert gradient[~found].any() and bool(gradient[found].any()) != frozen

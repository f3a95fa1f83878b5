"""Ids as one table."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.data.padding import end, rows_of, source_tensor, table_of, with_first

SENTENCES = [[5, 6, 7], [], [8], [4, 9]]


def test_rows_are_their_ids_one_after_the_other():
    rows = rows_of(SENTENCES)
    np.testing.assert_array_equal(rows.ids, [5, 6, 7, 8, 4, 9])
    np.testing.assert_array_equal(rows.lengths, [3, 0, 1, 2])
    assert rows.ids.dtype == np.int32 and rows_of([]).ids.shape == (0,)


@pytest.mark.parametrize("max_length", [None, 2, 3, 4, 9])
def test_a_table_is_what_python_would_make(max_length):
    table, lengths = table_of(rows_of(SENTENCES), max_length)
    kept = [ids if max_length is None else ids[: max_length - 1] for ids in SENTENCES]
    width = max(map(len, kept)) + 1
    np.testing.assert_array_equal(table, [ids + [0] * (width - len(ids)) for ids in kept])
    np.testing.assert_array_equal(lengths, list(map(len, kept)))
    assert table.dtype == np.int32
    np.testing.assert_array_equal(end(table, lengths), [ids + [3] + [0] * (width - len(ids) - 1) for ids in kept])


def test_a_table_may_be_larger_and_without_room_for_special_ids():
    table, lengths = table_of(rows_of([[5]]), 9, width=4, num_rows=3)
    np.testing.assert_array_equal(table, [[5, 0, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(lengths, [1, 0, 0])
    np.testing.assert_array_equal(table_of(rows_of([[5, 6], []]), reserved=0)[0], [[5, 6], [0, 0]])
    assert table_of(rows_of([[], []]), reserved=0)[0].shape == (2, 0)


@pytest.mark.parametrize("max_length", [2, 3, 9])
def test_the_graph_pads_alike(max_length):
    ragged = tf.ragged.constant(SENTENCES, tf.int32)
    np.testing.assert_array_equal(source_tensor(ragged, max_length), end(*table_of(rows_of(SENTENCES), max_length)))


@pytest.mark.parametrize("max_length", [3, 50])
def test_an_id_before_each_sentence_counts_as_one_of_its_ids(max_length):
    first = np.arange(90, 90 + len(SENTENCES))
    rows = with_first(rows_of(SENTENCES), first)
    expected = rows_of([[number, *ids] for number, ids in zip(first, SENTENCES)])
    np.testing.assert_array_equal(rows.ids, expected.ids)
    np.testing.assert_array_equal(rows.lengths, expected.lengths)
    ragged = tf.ragged.constant(SENTENCES, tf.int32)
    tags = tf.constant(first[:, None], tf.int32)
    np.testing.assert_array_equal(source_tensor(ragged, max_length, tags), end(*table_of(rows, max_length)))

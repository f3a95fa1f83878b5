"""Ids of several sentences as one table: the one place where ids are padded, in NumPy and in a graph."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import EOS_ID, PAD_ID


class Rows(NamedTuple):
    """Ids of B sentences, one after the other, without special ids."""

    ids: np.ndarray  # integer [N]
    lengths: np.ndarray  # integer [B], how many each sentence has


def rows_of(sentences: Sequence[Sequence[int]]) -> Rows:
    """Ids of sentences in one array."""
    lengths = np.array([len(ids) for ids in sentences], np.int64)
    return Rows(np.fromiter(itertools.chain.from_iterable(sentences), np.int32, lengths.sum()), lengths)


def with_first(rows: Rows, first: np.ndarray) -> Rows:
    """Puts one id, integer [B], before the ids of each sentence."""
    starts = np.cumsum(rows.lengths) - rows.lengths
    return Rows(np.insert(rows.ids, starts, first), rows.lengths + 1)


def table_of(
    rows: Rows, max_length: int | None = None, *, width: int = 0, num_rows: int = 0, reserved: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Ids as a table.

    Args:
        rows: of B sentences.
        max_length: of a sentence with its special id; what is longer is cut. None cuts nothing.
        width: columns of the table; 0 is as many as its longest row needs.
        num_rows: rows of the table, B or more: those beyond are empty; 0 is B.
        reserved: columns kept free for special ids at the end of the longest row.

    Returns:
        The table, int32 [num_rows, width], PAD where no id is, and the number of ids in each of its rows, [num_rows].
    """
    count = len(rows.lengths)
    kept = rows.lengths if max_length is None else np.minimum(rows.lengths, max_length - reserved)
    width = width or int(kept.max(initial=0)) + reserved
    table = np.full((num_rows or count, width), PAD_ID, np.int32)
    columns = np.arange(width)
    inside = columns < kept[:, None]
    if kept.sum() == len(rows.ids):
        table[:count][inside] = rows.ids
    else:
        starts = np.cumsum(rows.lengths) - rows.lengths
        table[:count][inside] = rows.ids[(starts[:, None] + columns)[inside]]
    return table, np.pad(kept, (0, len(table) - count))


def end(table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Writes EOS behind the ids of each row of a table, in place, and returns the table."""
    table[np.arange(len(table)), lengths] = EOS_ID
    return table


def source_tensor(ids: tf.RaggedTensor, max_length: int, tags: tf.Tensor | None = None) -> tf.Tensor:
    """Source ids as the encoder takes them, int32 [B, S], in a graph: `tags`, int32 [B, K], before them, at most
    `max_length`, the last one EOS."""
    if tags is not None:
        ids = tf.concat([tf.RaggedTensor.from_tensor(tags), ids], 1)
    lengths = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), max_length - 1)
    table = tf.pad(ids.to_tensor(PAD_ID)[:, : max_length - 1], [[0, 0], [0, 1]], constant_values=PAD_ID)
    return tf.where(tf.range(tf.shape(table)[1]) == lengths[:, None], EOS_ID, table)

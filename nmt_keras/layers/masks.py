"""Masks. Everything that asks whether a position is padding asks here. True is keep."""

import tensorflow as tf

from nmt_keras.constants import PAD_ID

_NEVER = -1e9


def padding_mask(ids: tf.Tensor) -> tf.Tensor:
    """bool of the shape of `ids`: True where there is a token."""
    return tf.not_equal(ids, PAD_ID)


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis, in float32; exactly zero where `mask` (broadcast to `scores`) is False.

    Scores must be finite and far from 1e9. The result of a row whose mask is False everywhere means nothing; no batch
    of ours has such a row.
    """
    return tf.nn.softmax(tf.cast(scores, tf.float32) + tf.where(mask, 0.0, _NEVER))

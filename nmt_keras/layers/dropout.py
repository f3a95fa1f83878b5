"""Stateless dropout: a mask is a function of a seed, so that resuming is exact and replicas differ."""

import tensorflow as tf


def fold_in(seed: tf.Tensor | None, number: int | tf.Tensor) -> tf.Tensor | None:
    """A new int32 [2] seed from `seed` and a number; None (inference) stays None."""
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, number)


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor | None) -> tf.Tensor:
    """Inverted dropout (Srivastava et al. 2014) of `x`, any shape; `x` itself where `seed` is None or `rate` 0."""
    mask = dropout_mask(tf.shape(x), rate, seed)
    return x if mask is None else x * tf.ensure_shape(mask, x.shape)


def dropout_mask(shape, rate: float, seed: tf.Tensor | None) -> tf.Tensor | None:
    """float32 mask: 0 with probability `rate`, else 1 / (1 - rate); None where nothing is dropped."""
    if seed is None or not rate:
        return None
    kept = tf.random.stateless_uniform(shape, seed) >= rate
    return tf.cast(kept, tf.float32) / (1.0 - rate)

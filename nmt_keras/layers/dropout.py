"""Stateless dropout: a mask is a function of a seed, so that resuming is exact and replicas differ.

An element is dropped by a byte of its own: a draw of 64 bits serves eight elements, and rates are multiples of 1/256.
"""

import tensorflow as tf

_LEVELS = 256
_LARGEST = 2**31 - 1


def fold_in(seed: tf.Tensor | None, number: int | tf.Tensor) -> tf.Tensor | None:
    """A new int32 [2] seed from `seed` and a number; None (inference) stays None."""
    return None if seed is None else non_negative(tf.random.experimental.stateless_fold_in(seed, number))


def non_negative(seed: tf.Tensor) -> tf.Tensor:
    """An int32 seed without its sign: XLA and TensorFlow's own operations draw other numbers from a negative one."""
    return tf.bitwise.bitwise_and(seed, _LARGEST)


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor | None) -> tf.Tensor:
    """Inverted dropout (Srivastava et al. 2014) of `x`, any shape; `x` itself where `seed` is None or `rate` 0."""
    mask = dropout_mask(tf.shape(x), rate, seed)
    return x if mask is None else x * tf.ensure_shape(mask, x.shape)


def dropout_mask(shape, rate: float, seed: tf.Tensor | None) -> tf.Tensor | None:
    """float32 mask: 0 with probability p, else 1 / (1 - p); None where nothing is dropped.

    p is the multiple of 1/256 next to `rate`, but neither 0 nor 1; `rate` is above 0 and below 1.
    """
    if seed is None or not rate:
        return None
    dropped = min(max(round(rate * _LEVELS), 1), _LEVELS - 1)
    size = tf.reduce_prod(shape)
    draws = tf.random.stateless_uniform([(size + 7) // 8], seed, minval=None, maxval=None, dtype=tf.uint64)
    levels = tf.reshape(tf.reshape(tf.bitcast(draws, tf.uint8), [-1])[:size], shape)
    return tf.cast(levels >= tf.constant(dropped, tf.uint8), tf.float32) * (_LEVELS / (_LEVELS - dropped))

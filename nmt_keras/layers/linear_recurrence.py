"""x_i = f_i x_{i-1} + b_i, the recurrence that needs no loop over positions (Blelloch 1990)."""

import tensorflow as tf


def linear_recurrence(factor: tf.Tensor, term: tf.Tensor, axis: int) -> tf.Tensor:
    """x_i = factor_i x_{i-1} + term_i along an axis, from x_0 = term_0, in log2(length) passes over the whole.

    Every pass doubles how many positions an x_i has seen (Hillis and Steele 1986).

    Args:
        factor: float32; what stands at the first position does not count.
        term: of the same shape.
        axis: not negative.
    """
    length = tf.shape(term)[axis]
    place = tf.reshape(tf.range(length), [-1] + [1] * (term.shape.rank - 1 - axis))

    def body(by, factor, term):
        def shifted(x):
            return tf.where(place < by, 0.0, tf.roll(x, by, axis))

        return by * 2, factor * shifted(factor), term + factor * shifted(term)

    static = term.shape[axis]
    if static is not None:  # a compiler wants no loop
        by = 1
        while by < static:
            by, factor, term = body(by, factor, term)
        return term
    _, _, result = tf.while_loop(lambda by, *_: by < length, body, (1, factor, term), maximum_iterations=32)
    return result

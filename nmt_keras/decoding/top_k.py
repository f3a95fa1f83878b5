"""The k largest of many, in two stages."""

import tensorflow as tf

_FEW = 1024  # a shorter axis is not worth two stages
_BLOCKS = range(32, 129)  # sizes of a block
_BLOCK = 32  # where the axis cannot be cut evenly


def top_k(values: tf.Tensor, k: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.math.top_k` of a long last axis: the same values, and the same indices where values are equal.

    The axis is cut into blocks. The k largest values lie in the k blocks with the largest maxima: one vectorised pass
    finds the maxima of the long axis, and only k blocks are searched.

    Args:
        values: float32 [B, Q, V]; the result of a row with a NaN is undefined.
        k: at most V.

    Returns:
        Values float32 and indices int32, [B, Q, k] each, the largest first; of equal values the lower index first.
    """
    size = values.shape[-1]
    if size is not None and size < _FEW:
        return tf.math.top_k(values, k)
    block = _BLOCK if size is None else next((width for width in _BLOCKS if size % width == 0), _BLOCK)
    if size is None or size % block:
        fill = -tf.shape(values)[-1] % block
        values = tf.pad(values, [[0, 0], [0, 0], [0, fill]], constant_values=float("-inf"))
    batch, queries, padded = tf.unstack(tf.shape(values))
    blocks = tf.reshape(values, [batch, queries, padded // block, block])
    # A value among the k largest has fewer than k larger ones, so fewer than k blocks have a larger maximum than its
    # own: its block is among the k blocks with the largest maxima. Of ties, top_k takes the block that comes first.
    _, chosen = tf.math.top_k(tf.reduce_max(blocks, -1), tf.minimum(k, padded // block))
    # In the order of the axis again, or of equal values in two blocks not the lower index would come first.
    chosen = tf.sort(chosen)
    inside, places = tf.math.top_k(tf.reshape(tf.gather(blocks, chosen, batch_dims=2), [batch, queries, -1]), k)
    return inside, tf.gather(chosen, places // block, batch_dims=2) * block + places % block

"""A vocabulary shortlist: search among the target ids that a sentence is likely to need (Jean et al. 2015, 3.3.2;
L'Hostis et al. 2016, 3.2).

Each row searches among its own ids, so that a translation depends on its own text alone. The output product is computed
once for the ids of all rows of the batch, and each row searches only its own.
"""

from typing import NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID


class Shortlist(NamedTuple):
    """The U target ids that the rows of a batch search among. A search knows them by their places in `ids`."""

    ids: tf.Tensor  # int32 [U], ascending: the special ids, which are the lowest, have their own places
    penalty: tf.Tensor  # float32 [B, 1, U], 0 where a row may use the id, else -inf

    def places(self, ids: tf.Tensor) -> tf.Tensor:
        """The places of ids that are in the list, int32 of the same shape."""
        return tf.reduce_sum(tf.cast(self.ids < ids[..., None], tf.int32), -1)


def make_shortlist(
    proposals: tf.Tensor,
    common: tf.Tensor,
    source_ids: tf.Tensor,
    source_mask: tf.Tensor,
    vocab_size: int,
    forced: tf.Tensor | None = None,
) -> Shortlist:
    """Joins the ids that the source ids propose, the common ones, those of the forced beginning and the special ones.

    Args:
        proposals: int32 [V_source, n], of each source id.
        common: int32 [m].
        source_ids: int32 [B, S].
        source_mask: bool [B, S].
        vocab_size: V.
        forced: bool [B, V], the ids that may stand in a forced beginning; None where there is none.
    """
    batch = tf.shape(source_ids)[0]
    always = tf.concat([[PAD_ID, UNK_ID, BOS_ID, EOS_ID], common], 0)
    proposed = tf.where(source_mask[:, :, None], tf.gather(proposals, source_ids), PAD_ID)
    wanted = tf.concat([tf.reshape(proposed, [batch, -1]), tf.tile(always[None], [batch, 1])], 1)
    no_weights = tf.zeros([0], tf.int32)
    with tf.device("CPU"):  # a GPU's own form fails where operations must be deterministic
        has = tf.raw_ops.DenseBincount(input=wanted, size=vocab_size, weights=no_weights, binary_output=True) > 0
    has = has if forced is None else has | forced
    ids = tf.cast(tf.where(tf.reduce_any(has, 0))[:, 0], tf.int32)
    return Shortlist(ids, tf.where(tf.gather(has, ids, axis=1), 0.0, float("-inf"))[:, None])

"""What a search returns, and the parts that searches share.

A search sees a step function and a state, never a model:

    step_fn(ids [B, Q], position, state) -> (logits [B, Q, V], attention_weights [B, Q, S], state)

Leaves of the state are [B, Q, ...]; a search begins with Q = 1 and repeats them to its width. PAD and BOS are never
produced, and a hypothesis of `max_length` ids must end there: its last id is EOS at EOS's own probability.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID

StepFn = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor, Any]]
NEVER = float("-inf")


class Hypotheses(NamedTuple):
    """N hypotheses for each of B sources, best first; L is the longest."""

    ids: tf.Tensor  # int32 [B, N, L], each ends with EOS, then PAD
    lengths: tf.Tensor  # int32 [B, N], EOS included; 0 where there is no such hypothesis
    log_prob: tf.Tensor  # float32 [B, N], sum of the model's token log probabilities
    score: tf.Tensor  # float32 [B, N], what is ranked
    token_log_probs: tf.Tensor  # float32 [B, N, L], 0 at PAD
    attention_weights: tf.Tensor  # float32 [B, N, L, S], of the position each id was produced at, 0 at PAD


def allowed_log_probs(logits: tf.Tensor, at_last: tf.Tensor) -> tf.Tensor:
    """Log probabilities of the model with -inf for what may not follow.

    Args:
        logits: float32 [B, Q, V].
        at_last: bool [B], rows whose hypotheses must end here.

    Returns:
        float32 [B, Q, V]; the probabilities are not renormalised, and what is not a number is -inf.
    """
    ids = tf.range(tf.shape(logits)[-1])
    possible = tf.where(at_last[:, None], ids[None] == EOS_ID, (ids != PAD_ID)[None] & (ids != BOS_ID)[None])
    log_probs = tf.nn.log_softmax(logits)
    return tf.where(possible[:, None, :] & ~tf.math.is_nan(log_probs), log_probs, NEVER)


def repeat_state(state: Any, width: int | tf.Tensor) -> Any:
    """Repeats every leaf [B, 1, ...] to [B, width, ...]."""
    return tf.nest.map_structure(lambda leaf: tf.repeat(leaf, width, axis=1), state)


def loop_shapes(variables: Any) -> Any:
    """Shape invariants for a search loop: the first two axes of every leaf may be anything."""

    def shape(leaf):
        if isinstance(leaf, tf.TensorArray):
            return tf.TensorShape(None)
        return tf.TensorShape([None if axis < 2 else size for axis, size in enumerate(leaf.shape)])

    return tf.nest.map_structure(shape, variables)

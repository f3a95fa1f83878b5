"""What a search returns, and the parts that searches share.

A search sees a step function and a state, never a model:

    step_fn(ids [B, Q], position, state) -> (logits [B, Q, V], attention_weights [B, Q, S], state)

A search begins with Q = 1. A state is a tensor or a tuple of states; its leaves are [B, Q, ...]. A tuple with the
methods `reordered(parents)`, `repeated(width)` and `reserved(width, positions)` is an exception: its leaves may have
any shape.

XLA compiles a search (`jit_compile`, a TPU) whose arrays do not grow. One that is given `max_positions` has them at
full size from the first position on, with all its hypotheses; it finds the same.

What may follow is said by `nmt_keras.decoding.constraints`, what is best by `nmt_keras.decoding.ranking`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

StepFn = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor, Any]]


class Hypotheses(NamedTuple):
    """N hypotheses for each of B sources, best first; L is the longest."""

    ids: tf.Tensor  # int32 [B, N, L], each ends with EOS, then PAD
    lengths: tf.Tensor  # int32 [B, N], EOS included; 0 where there is no such hypothesis
    log_prob: tf.Tensor  # float32 [B, N], the model's own: the sum of `token_log_probs`
    score: tf.Tensor  # float32 [B, N], what is ranked
    token_log_probs: tf.Tensor  # float32 [B, N, L], 0 at PAD
    attention_weights: tf.Tensor  # float32 [B, N, L, S], of the position each id was produced at, 0 at PAD
    is_placed: tf.Tensor | tuple = ()  # bool [B, N, C], the terms that stand in them; () where none were asked for


def repeat_state(state: Any, width: int | tf.Tensor) -> Any:
    """The state of one hypothesis as that of `width` that are the same so far; none goes on from another."""
    if hasattr(state, "repeated"):
        return state.repeated(width)
    return _of_parts(state, lambda part: repeat_state(part, width), lambda leaf: tf.repeat(leaf, width, axis=1))


def reserve_state(state: Any, width: int | tf.Tensor, positions: int) -> Any:
    """The state of one hypothesis before the first position as that of `width`, of which no leaf grows: it has room for
    so many positions from here on."""
    if hasattr(state, "reserved"):
        return state.reserved(width, positions)
    return _of_parts(
        state, lambda part: reserve_state(part, width, positions), lambda leaf: tf.repeat(leaf, width, axis=1)
    )


def reorder_state(state: Any, parents: tf.Tensor) -> Any:
    """The state of hypotheses that go on from `parents`, int32 [B, K]."""
    if hasattr(state, "reordered"):
        return state.reordered(parents)
    return _of_parts(
        state, lambda part: reorder_state(part, parents), lambda leaf: tf.gather(leaf, parents, batch_dims=1)
    )


def _of_parts(state: Any, of_part: Callable[[Any], Any], of_leaf: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    if not isinstance(state, tuple):
        return of_leaf(state)
    parts = [of_part(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def new_array(dtype: tf.DType, rank: int, max_positions: int | None, **options: Any) -> tf.TensorArray:
    """An array of an element a position: of so many positions, or of as many as are written."""
    grows = max_positions is None
    return tf.TensorArray(
        dtype, 0 if grows else max_positions, dynamic_size=grows, element_shape=[None] * rank, **options
    )


def loop_shapes(variables: Any) -> Any:
    """Shape invariants for a search loop: the first two axes of every leaf may be anything, and so may an axis that is
    empty at first, which grows."""

    def shape(leaf: Any) -> tf.TensorShape:
        if isinstance(leaf, tf.TensorArray):
            return tf.TensorShape(None)
        return tf.TensorShape([None if axis < 2 or not size else size for axis, size in enumerate(leaf.shape)])

    return tf.nest.map_structure(shape, variables)

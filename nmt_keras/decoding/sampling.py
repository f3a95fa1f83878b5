"""Greedy decoding and sampling over a step function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.hypotheses import NEVER, Hypotheses, StepFn, allowed_log_probs, loop_shapes, repeat_state


class _LoopState(NamedTuple):
    position: tf.Tensor  # int32 []
    ids: tf.Tensor  # int32 [B, N], the last ones
    ended: tf.Tensor  # bool [B, N]
    decoder_state: Any  # leaves [B, N, ...]
    all_ids: tf.TensorArray  # of int32 [B, N]
    token_log_probs: tf.TensorArray  # of float32 [B, N]
    attention_weights: tf.TensorArray  # of float32 [B, N, S]


def greedy(step_fn: StepFn, state: Any, max_length: tf.Tensor) -> Hypotheses:
    """The most probable id at each position.

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, leaves [B, 1, ...].
        max_length: int32 [B], ids of a hypothesis at most, EOS included.

    Returns:
        One hypothesis a row.
    """
    return _decode(step_fn, state, max_length, lambda log_probs, _: tf.argmax(log_probs, -1, output_type=tf.int32), 1)


def sample(
    step_fn: StepFn,
    state: Any,
    max_length: tf.Tensor,
    *,
    seeds: tf.Tensor,
    num_samples: int = 1,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0
) -> Hypotheses:
    """Samples from the model's distribution, sharpened and truncated.

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, leaves [B, 1, ...].
        max_length: int32 [B], ids of a hypothesis at most, EOS included.
        seeds: int32 [B, 2], one a row: a row's samples depend on its seed and on no other row.
        num_samples: N, independent samples a row.
        temperature: of the softmax, positive; below 1 sharpens.
        top_k: only the k most probable ids (Fan et al. 2018); 0 is all.
        top_p: only the smallest set of most probable ids with at least this mass (Holtzman et al. 2020); 1 is all.

    Returns:
        N hypotheses a row, in the order they were drawn. `log_prob` is the model's own, before temperature and
        truncation.
    """

    def choose(log_probs, position):
        cumulated = tf.cumsum(tf.nn.softmax(_truncate(log_probs / temperature, top_k, top_p)), axis=-1)
        drawn = tf.map_fn(  # uniform on [0, 1), [B, N]
            lambda seed: tf.random.stateless_uniform(
                [num_samples], tf.random.experimental.stateless_fold_in(seed, position)
            ),
            seeds,
            fn_output_signature=tf.float32,
        )
        return tf.argmax(cumulated > drawn[:, :, None] * cumulated[:, :, -1:], -1, output_type=tf.int32)

    return _decode(step_fn, state, max_length, choose, num_samples)


def _truncate(scores: tf.Tensor, top_k: int | tf.Tensor, top_p: float | tf.Tensor) -> tf.Tensor:
    """-inf for what neither top-k nor top-p keeps; the most probable id is always kept. scores: [B, N, V]."""
    descending = tf.sort(scores, direction="DESCENDING")
    vocab_size = tf.shape(scores)[-1]
    kth = tf.gather(descending, [tf.where(top_k > 0, tf.minimum(top_k, vocab_size), vocab_size) - 1], axis=-1)
    probs = tf.nn.softmax(descending)
    kept = tf.cumsum(probs, axis=-1, exclusive=True) < top_p
    kept = tf.concat([tf.ones_like(kept[..., :1]), kept[..., 1:]], -1)
    nucleus = tf.reduce_min(tf.where(kept, descending, float("inf")), -1, keepdims=True)
    nucleus = tf.where(tf.convert_to_tensor(top_p) < 1.0, nucleus, NEVER)  # rounding makes the sum reach 1 early
    return tf.where(scores >= tf.maximum(kth, nucleus), scores, NEVER)


def _decode(
    step_fn: StepFn,
    state: Any,
    max_length: tf.Tensor,
    choose: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    width: int | tf.Tensor,
) -> Hypotheses:
    batch = tf.shape(max_length)[0]
    limit = tf.reduce_max(max_length)

    def proceed(loop: _LoopState) -> tf.Tensor:
        return (loop.position < limit) & ~tf.reduce_all(loop.ended)

    def body(loop: _LoopState) -> tuple[_LoopState]:
        logits, attention, decoder_state = step_fn(loop.ids, loop.position, loop.decoder_state)
        log_probs = allowed_log_probs(logits, loop.position >= max_length - 1)
        ids = choose(log_probs, loop.position)
        chosen = tf.gather(log_probs, ids, batch_dims=2)
        position = loop.position
        return (
            _LoopState(
                position + 1,
                tf.where(loop.ended, PAD_ID, ids),
                loop.ended | (ids == EOS_ID),
                decoder_state,
                loop.all_ids.write(position, tf.where(loop.ended, PAD_ID, ids)),
                loop.token_log_probs.write(position, tf.where(loop.ended, 0.0, chosen)),
                loop.attention_weights.write(position, tf.where(loop.ended[:, :, None], 0.0, attention)),
            ),
        )

    first = _LoopState(
        tf.constant(0),
        tf.fill([batch, width], BOS_ID),
        tf.fill([batch, width], False),
        repeat_state(state, width),
        tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[None, None]),
        tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None, None]),
        tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None, None, None]),
    )
    (last,) = tf.while_loop(proceed, body, (first,), shape_invariants=(loop_shapes(first),), parallel_iterations=1)
    ids = tf.transpose(last.all_ids.stack(), [1, 2, 0])
    token_log_probs = tf.transpose(last.token_log_probs.stack(), [1, 2, 0])
    log_prob = tf.reduce_sum(token_log_probs, -1)
    lengths = tf.reduce_sum(tf.cast(ids != PAD_ID, tf.int32), -1)
    return Hypotheses(
        ids, lengths, log_prob, log_prob, token_log_probs, tf.transpose(last.attention_weights.stack(), [1, 2, 0, 3])
    )

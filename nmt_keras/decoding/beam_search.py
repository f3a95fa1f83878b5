"""Beam search over a step function (Graves 2012; Sutskever et al. 2014), with the length penalty of Wu et al. 2016.

At each position every live hypothesis offers its end (EOS) to the finished ones, and the K best continuations live on.
Choices are kept as back-pointers, so that no history is copied while searching; ids, token log probabilities and
attention are read off them at the end. The search of a row stops when no live hypothesis can still win: log
probabilities only fall, so the bound of a live one is its log probability over the largest penalty it can reach.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.hypotheses import NEVER, Hypotheses, StepFn, allowed_log_probs, loop_shapes, repeat_state


class _Finished(NamedTuple):
    """The K best hypotheses that have ended, best first."""

    score: tf.Tensor  # float32 [B, K], -inf where there is none yet
    log_prob: tf.Tensor  # float32 [B, K]
    position: tf.Tensor  # int32 [B, K], of EOS
    parent: tf.Tensor  # int32 [B, K], the live hypothesis that EOS was added to


class _History(NamedTuple):
    """What was chosen at each position."""

    ids: tf.TensorArray  # of int32 [B, K]
    parents: tf.TensorArray  # of int32 [B, K]: index into the live hypotheses of the position before
    log_probs: tf.TensorArray  # of float32 [B, K], of `ids`
    end_log_probs: tf.TensorArray  # of float32 [B, K], of EOS after each live hypothesis of the position before
    attention_weights: tf.TensorArray  # of float32 [B, K, S], indexed as `end_log_probs`


class _LoopState(NamedTuple):
    position: tf.Tensor  # int32 []
    ids: tf.Tensor  # int32 [B, K], the last ones
    live_log_probs: tf.Tensor  # float32 [B, K], -inf for a hypothesis that is not there
    decoder_state: Any  # leaves [B, K, ...]
    finished: _Finished
    history: _History


def penalty(length: tf.Tensor, alpha: float | tf.Tensor) -> tf.Tensor:
    """((5 + length) / 6) ** alpha (Wu et al. 2016, eq. 14); length counts EOS."""
    return tf.pow((5.0 + tf.cast(length, tf.float32)) / 6.0, alpha)


def beam_search(
    step_fn: StepFn,
    state: Any,
    max_length: tf.Tensor,
    *,
    beam_size: int | tf.Tensor,
    length_penalty: float | tf.Tensor = 0.0,
    num_hypotheses: int | tf.Tensor = 1
) -> Hypotheses:
    """Searches for the hypotheses of highest score, log_prob / penalty(length).

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, leaves [B, 1, ...].
        max_length: int32 [B], ids of a hypothesis at most, EOS included.
        beam_size: K.
        length_penalty: alpha of `penalty`, not negative; 0 ranks by log probability.
        num_hypotheses: N, at most K.

    Returns:
        The N best hypotheses of each row. A row's result does not depend on the other rows.
    """
    batch = tf.shape(max_length)[0]
    alpha = tf.convert_to_tensor(length_penalty, tf.float32)
    largest_penalty = penalty(max_length, alpha)[:, None]
    limit = tf.reduce_max(max_length)

    def proceed(loop: _LoopState) -> tf.Tensor:
        bound = tf.reduce_max(loop.live_log_probs / largest_penalty, -1)
        worst_wanted = loop.finished.score[:, num_hypotheses - 1]
        return (loop.position < limit) & tf.reduce_any(bound > worst_wanted)

    def body(loop: _LoopState) -> tuple[_LoopState]:
        logits, attention, decoder_state = step_fn(loop.ids, loop.position, loop.decoder_state)
        log_probs = allowed_log_probs(logits, loop.position >= max_length - 1)
        end_log_probs = log_probs[:, :, EOS_ID]
        finished = _finish(loop, end_log_probs, penalty(loop.position + 1, alpha))

        vocab_size = tf.shape(logits)[-1]
        total = loop.live_log_probs[:, :, None] + log_probs
        total = tf.where(tf.range(vocab_size) == EOS_ID, NEVER, total)
        live_log_probs, flat = tf.math.top_k(tf.reshape(total, [batch, -1]), beam_size)
        parents, ids = flat // vocab_size, flat % vocab_size
        chosen = tf.gather(tf.reshape(log_probs, [batch, -1]), flat, batch_dims=1)
        decoder_state = tf.nest.map_structure(lambda leaf: tf.gather(leaf, parents, batch_dims=1), decoder_state)
        written = (ids, parents, chosen, end_log_probs, attention)
        history = _History(*(array.write(loop.position, value) for array, value in zip(loop.history, written)))
        return (_LoopState(loop.position + 1, ids, live_log_probs, decoder_state, finished, history),)

    nothing = tf.fill([batch, beam_size], NEVER)
    none_yet = tf.zeros([batch, beam_size], tf.int32)
    live = tf.concat([tf.zeros([batch, 1]), nothing[:, 1:]], 1)
    first = _LoopState(
        tf.constant(0),
        tf.fill([batch, beam_size], BOS_ID),
        live,
        repeat_state(state, beam_size),
        _Finished(nothing, nothing, none_yet, none_yet),
        _new_history(),
    )
    (last,) = tf.while_loop(proceed, body, (first,), shape_invariants=(loop_shapes(first),), parallel_iterations=1)
    best = _Finished(*(leaf[:, :num_hypotheses] for leaf in last.finished))
    return _read_back(best, last.history)


def _new_history() -> _History:
    def array(dtype, rank):
        return tf.TensorArray(dtype, 0, dynamic_size=True, element_shape=[None] * rank, clear_after_read=False)

    return _History(
        array(tf.int32, 2), array(tf.int32, 2), array(tf.float32, 2), array(tf.float32, 2), array(tf.float32, 3)
    )


def _finish(loop: _LoopState, end_log_probs: tf.Tensor, length_penalty: tf.Tensor) -> _Finished:
    """Offers every live hypothesis's end to the finished ones and keeps the K best of both."""
    log_prob = loop.live_log_probs + end_log_probs
    shape = tf.shape(log_prob)
    ended = _Finished(
        log_prob / length_penalty, log_prob, tf.fill(shape, loop.position), tf.broadcast_to(tf.range(shape[1]), shape)
    )
    both = _Finished(*(tf.concat([old, new], 1) for old, new in zip(loop.finished, ended)))
    _, kept = tf.math.top_k(both.score, shape[1])
    return _Finished(*(tf.gather(leaf, kept, batch_dims=1) for leaf in both))


def _read_back(finished: _Finished, history: _History) -> Hypotheses:
    """Follows the back-pointers of finished hypotheses [B, N] from their last position to their first."""
    exists = finished.score > NEVER
    lengths = tf.where(exists, finished.position + 1, 0)
    size = tf.maximum(tf.reduce_max(lengths), 1)

    def body(position, live, ids, log_probs, attention):
        # `live` [B, N]: each hypothesis's place among the live ones after this position, or for one that ends here,
        # after the position before.
        ends, inside = position == lengths - 1, position < lengths - 1
        parents = tf.where(inside, tf.gather(history.parents.read(position), live, batch_dims=1), live)
        id_here = tf.gather(history.ids.read(position), live, batch_dims=1)
        log_prob = tf.gather(history.log_probs.read(position), live, batch_dims=1)
        end_log_prob = tf.gather(history.end_log_probs.read(position), live, batch_dims=1)
        weights = tf.gather(history.attention_weights.read(position), parents, batch_dims=1)
        here = (ends | inside)[:, :, None]
        return (
            position - 1,
            parents,
            ids.write(position, tf.where(ends, EOS_ID, tf.where(inside, id_here, PAD_ID))),
            log_probs.write(position, tf.where(ends, end_log_prob, tf.where(inside, log_prob, 0.0))),
            attention.write(position, tf.where(here, weights, 0.0)),
        )

    arrays = [
        tf.TensorArray(dtype, size, element_shape=[None] * rank)
        for dtype, rank in ((tf.int32, 2), (tf.float32, 2), (tf.float32, 3))
    ]
    _, _, ids, log_probs, attention = tf.while_loop(
        lambda position, *_: position >= 0, body, (size - 1, finished.parent, *arrays), parallel_iterations=1
    )
    return Hypotheses(
        tf.transpose(ids.stack(), [1, 2, 0]),
        lengths,
        finished.log_prob,
        finished.score,
        tf.transpose(log_probs.stack(), [1, 2, 0]),
        tf.transpose(attention.stack(), [1, 2, 0, 3]),
    )

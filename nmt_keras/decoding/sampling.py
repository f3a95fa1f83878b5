"""Greedy decoding and sampling over a step function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.constraints import NEVER, Constraints, Past
from nmt_keras.decoding.hypotheses import Hypotheses, StepFn, loop_shapes, new_array, repeat_state, reserve_state
from nmt_keras.decoding.ranking import Ranking

_LEAST = 1e-30  # of noise that is uniform, whose logarithm is taken


class _LoopState(NamedTuple):
    position: tf.Tensor  # int32 []
    ids: tf.Tensor  # int32 [B, N], the last ones
    ended: tf.Tensor  # bool [B, N]
    totals: tf.Tensor  # float32 [B, N], sums of scores
    carried: tuple[Any, Past]  # decoder state and past, leaves [B, N, ...]
    all_ids: tf.TensorArray  # of int32 [B, N]
    token_log_probs: tf.TensorArray  # of float32 [B, N]
    attention_weights: tf.TensorArray  # of float32 [B, N, S]


def greedy(
    step_fn: StepFn,
    state: Any,
    constraints: Constraints,
    ranking: Ranking = Ranking(),
    *,
    max_positions: int | None = None,
) -> Hypotheses:
    """The most probable id at each position.

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, leaves [B, 1, ...].
        constraints: what hypotheses may look like.
        ranking: turns log probabilities into scores.
        max_positions: see `beam_search`.

    Returns:
        One hypothesis a row, of length 0 where the constraints leave none.
    """

    def choose(logits: tf.Tensor, position: tf.Tensor, past: Past) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = constraints.continuations(logits, position, past, 1)
        best = tf.reduce_max(found.scores, -1, keepdims=True)
        place = tf.argmax(found.scores, -1, output_type=tf.int32)
        ends = found.end_scores >= best[:, :, 0]
        ids, log_probs = (tf.gather(leaf, place, batch_dims=2) for leaf in (found.ids, found.log_probs))
        return (
            tf.where(ends, EOS_ID, ids),
            tf.where(ends, found.end_scores, best[:, :, 0]),
            tf.where(ends, found.end_log_probs, log_probs),
        )

    return _decode(step_fn, state, constraints, ranking, choose, 1, max_positions)


def sample(
    step_fn: StepFn,
    state: Any,
    constraints: Constraints,
    ranking: Ranking = Ranking(),
    *,
    seeds: tf.Tensor,
    num_samples: int | tf.Tensor = 1,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0,
    among: tuple[tf.Tensor, int] | None = None,
    max_positions: int | None = None,
) -> Hypotheses:
    """Samples from the model's distribution, sharpened and truncated.

    An id is drawn as the one whose score and noise are greatest together (the Gumbel-max trick, Maddison et al. 2014).
    The noise of an id depends on nothing but the row's seed, the position and the id, so that a rounding error of a
    score, as a batch of another size makes one, changes a sample only where two ids were equal but for it.

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, leaves [B, 1, ...].
        constraints: what hypotheses may look like.
        ranking: turns log probabilities into scores.
        seeds: int32 [B, 2], one a row: a row's samples depend on its seed and on no other row.
        num_samples: N, independent samples a row; the first n are those of n samples.
        temperature: of the softmax, positive, [] or [B]; below 1 sharpens.
        top_k: only the k most probable ids (Fan et al. 2018), [] or [B]; 0 is all.
        top_p: only the smallest set of most probable ids with at least this mass (Holtzman et al. 2020), [] or [B]; 1
            is all.
        among: where logits are of some ids only, these, int32 [U], and the size of the vocabulary.
        max_positions: see `beam_search`; `num_samples` must be a constant then. What XLA compiles draws other samples
            of a seed.

    Returns:
        N hypotheses a row, in the order they were drawn. `log_prob` is the model's own, before temperature and
        truncation.
    """
    is_cut = tf.reduce_any(top_k > 0) | tf.reduce_any(tf.cast(top_p, tf.float32) < 1.0)  # else nothing is sorted
    temperature, top_p = (tf.reshape(tf.cast(option, tf.float32), [-1, 1, 1]) for option in (temperature, top_p))
    top_k = tf.reshape(top_k, [-1, 1, 1])

    def choose(logits: tf.Tensor, position: tf.Tensor, past: Past) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        scores, log_probs = constraints.score(logits, position, past)
        num_ids = tf.shape(logits)[-1] if among is None else among[1]

        def noise(seed: tf.Tensor) -> tf.Tensor:  # [N, U]; that of the first n samples is that of n samples
            folded = tf.random.experimental.stateless_fold_in(seed, position)
            uniform = tf.random.stateless_uniform([num_samples, num_ids], folded, _LEAST, alg="philox")
            return -tf.math.log(-tf.math.log(uniform if among is None else tf.gather(uniform, among[0], axis=1)))

        sharpened = scores / temperature
        truncated = tf.cond(is_cut, lambda: _truncate(sharpened, top_k, top_p), lambda: sharpened)
        noises = tf.map_fn(noise, seeds, fn_output_signature=tf.float32)
        ids = tf.argmax(truncated + noises, -1, output_type=tf.int32)
        return ids, *(tf.gather(leaf, ids, batch_dims=2) for leaf in (scores, log_probs))

    return _decode(step_fn, state, constraints, ranking, choose, num_samples, max_positions)


def _truncate(scores: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Replaces by -inf the scores of ids that top-k or top-p drops; the most probable id is always kept.

    scores: [B, N, V]; top_k and top_p: [B, 1, 1] or [1, 1, 1].
    """
    descending = tf.sort(scores, direction="DESCENDING")
    place = tf.range(tf.shape(scores)[-1])
    probs = tf.nn.softmax(descending)
    in_nucleus = tf.cumsum(probs, axis=-1, exclusive=True) < top_p
    kept = (place == 0) | ((top_k == 0) | (place < top_k)) & ((top_p >= 1.0) | in_nucleus)
    return tf.where(scores >= tf.reduce_min(tf.where(kept, descending, float("inf")), -1, keepdims=True), scores, NEVER)


def _decode(
    step_fn: StepFn,
    state: Any,
    constraints: Constraints,
    ranking: Ranking,
    choose: Callable[[tf.Tensor, tf.Tensor, Past], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    width: int | tf.Tensor,
    max_positions: int | None,
) -> Hypotheses:
    """Decodes position by position; the Hypotheses are not sorted.

    `choose` takes (logits [B, N, V], position, past) and returns the next ids, their scores and their log
    probabilities, [B, N] each.
    """
    if max_positions is not None:
        constraints = constraints._replace(max_length=tf.minimum(constraints.max_length, max_positions))
        state = reserve_state(state, 1, max_positions)
    batch = tf.shape(constraints.max_length)[0]
    limit = tf.reduce_max(constraints.max_length)

    def proceed(loop: _LoopState) -> tf.Tensor:
        return (loop.position < limit) & ~tf.reduce_all(loop.ended)

    def body(loop: _LoopState) -> tuple[_LoopState]:
        decoder_state, past = loop.carried
        position = loop.position
        logits, attention, decoder_state = step_fn(loop.ids, position, decoder_state)
        ids, chosen, log_probs = choose(logits, position, past)
        given_up = ~loop.ended & tf.math.is_inf(chosen)  # nothing may follow
        ended = loop.ended | given_up
        ids = tf.where(ended, PAD_ID, ids)
        log_probs = tf.where(ended, 0.0, log_probs)
        return (
            _LoopState(
                position + 1,
                ids,
                ended | (ids == EOS_ID),
                loop.totals + tf.where(given_up, NEVER, tf.where(ended, 0.0, chosen)),
                (decoder_state, constraints.advance(past, ids, position)),
                loop.all_ids.write(position, ids),
                loop.token_log_probs.write(position, log_probs),
                loop.attention_weights.write(position, tf.where(ended[:, :, None], 0.0, attention)),
            ),
        )

    first = _LoopState(
        tf.constant(0),
        tf.fill([batch, width], BOS_ID),
        tf.fill([batch, width], False),
        tf.zeros([batch, width]),
        repeat_state((state, constraints.begin()), width),
        new_array(tf.int32, 2, max_positions),
        new_array(tf.float32, 2, max_positions),
        new_array(tf.float32, 3, max_positions),
    )
    (last,) = tf.while_loop(proceed, body, (first,), shape_invariants=(loop_shapes(first),), parallel_iterations=1)
    exists = last.totals > NEVER
    ids, token_log_probs, attention = (
        tf.transpose(array.stack(), [1, 2, 0, 3][: 3 + extra])
        for array, extra in ((last.all_ids, 0), (last.token_log_probs, 0), (last.attention_weights, 1))
    )
    ids = tf.where(exists[:, :, None], ids, PAD_ID)
    token_log_probs = tf.where(exists[:, :, None], token_log_probs, 0.0)
    attention = tf.where(exists[:, :, None, None], attention, 0.0)
    lengths = tf.reduce_sum(tf.cast(ids != PAD_ID, tf.int32), -1)
    coverage = tf.reduce_sum(attention, 2) if ranking.coverage_penalty else None
    return Hypotheses(
        ids,
        lengths,
        tf.where(exists, tf.reduce_sum(token_log_probs, -1), NEVER),
        ranking.score(last.totals, lengths, coverage),
        token_log_probs,
        attention,
    )

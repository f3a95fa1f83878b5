"""Beam search over a step function (Graves 2012; Sutskever et al. 2014), with the penalties of Wu et al. 2016.

At each position every live hypothesis offers its end (EOS) to the finished ones, and the K best continuations live on.
Choices are kept as back-pointers, so that no history is copied while searching; ids, token log probabilities and
attention are read off them at the end. The search of a row stops when no live hypothesis can still win: totals only
fall and a coverage penalty only lowers scores, so a live hypothesis can at best score its total over the largest length
penalty it can reach.

Rows may ask for different numbers of beams. A row that asked for fewer than the most has its surplus beams at -inf from
the first position on, so that its result is that of a search of its own.

Recombination, the dynamic programming of phrase-based decoders (Och et al. 2001; Koehn et al. 2003), takes hypotheses
of one length that share their last n ids as one: the better lives on, and a beam is free for another. The others stay
as ways to reach it, its derivations, so that n-best lists lack none. What follows a derivation that lost is scored as
it was after the one that won, which is exact for a model that sees n ids, and an estimate for others.

Diverse beam search (Vijayakumar et al. 2016, 4.1, with Hamming diversity) divides the beams into groups, which are
continued one after the other: an id costs something for each time that a group before has chosen it at this position.
That decides alone what is chosen; scores stay those of the model.

Where hypotheses must contain terms (`nmt_keras.decoding.terms`), the beam is divided among those that lack equally
much, and a finished hypothesis with more of the terms is before one with fewer, whatever their scores. Where the terms
of a row cannot all be placed, its search ends at `max_length`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.constraints import NEVER, Constraints, Continuations, Needed, Past
from nmt_keras.decoding.hypotheses import (
    Hypotheses,
    StepFn,
    loop_shapes,
    new_array,
    reorder_state,
    repeat_state,
    reserve_state,
)
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.terms import TermProgress, Terms, allocation


class _Finished(NamedTuple):
    """The K best hypotheses that have ended, best first."""

    score: tf.Tensor  # float32 [B, K], -inf where there is none yet
    position: tf.Tensor  # int32 [B, K], of EOS
    parent: tf.Tensor  # int32 [B, K], the derivation of a live hypothesis that EOS was added to
    is_placed: tf.Tensor | tuple = ()  # bool [B, K, C], the terms that stand in it


class _History(NamedTuple):
    """What was chosen at each position. Derivation r of live hypothesis k has the number k * R + r."""

    ids: tf.TensorArray  # of int32 [B, K]
    parents: tf.TensorArray  # of int32 [B, K * R]: a derivation of the position before
    log_probs: tf.TensorArray  # of float32 [B, K * R], of `ids` after that
    end_log_probs: tf.TensorArray  # of float32 [B, K], of EOS after each live hypothesis of the position before
    attention_weights: tf.TensorArray  # of float32 [B, K, S], indexed as `end_log_probs`


class _LoopState(NamedTuple):
    """Before position 0 there is one live hypothesis, Q = 1, and then Q = K."""

    position: tf.Tensor  # int32 []
    ids: tf.Tensor  # int32 [B, Q], the last ones
    totals: tf.Tensor  # float32 [B, Q, R], sums of scores of its derivations, best first; -inf where there is none
    recent: tf.Tensor | tuple  # int32 [B, Q, n], the last ids, with recombination
    carried: tuple[Any, Past, Any]  # decoder state (see `hypotheses.reorder_state`), past, coverage [B, Q, S] or ()
    finished: _Finished
    history: _History


def beam_search(
    step_fn: StepFn,
    state: Any,
    constraints: Constraints,
    ranking: Ranking = Ranking(),
    *,
    beam_size: int | tf.Tensor,
    num_hypotheses: int | tf.Tensor = 1,
    recombine: int = 0,
    groups: int = 1,
    diversity_penalty: float = 0.0,
    max_positions: int | None = None,
) -> Hypotheses:
    """Searches for the hypotheses of highest score.

    Args:
        step_fn: see `nmt_keras.decoding.hypotheses`.
        state: before BOS, of one hypothesis a row, such as leaves [B, 1, ...].
        constraints: what hypotheses may look like.
        ranking: turns log probabilities into scores.
        beam_size: int32 [] or [B]; K is the largest. 1 is greedy: it ends where EOS is the best.
        num_hypotheses: int32 [] or [B], at most `beam_size`; N is the largest.
        recombine: n of recombination; 0 is off. `constraints` that look back, and a coverage penalty, do not go with
            it, nor do terms.
        groups: of beams, for diverse beam search; 1 is off. Beam k belongs to group k modulo `groups`. Not with
            `recombine`, nor with terms.
        diversity_penalty: what an id costs for each time that a group before has chosen it.
        max_positions: ids of a hypothesis at most, and of L; the search is one that XLA compiles, see `hypotheses`, for
            which `beam_size` and `num_hypotheses` must be constants. Not with `groups`. None lets arrays grow.

    Returns:
        The N best hypotheses of each row, fewer where it asked for fewer or found fewer. A row does not depend on the
        others, but for rounding.

    Raises:
        ValueError: `max_positions` and `groups` are given together.
    """
    if max_positions is not None and groups > 1:
        raise ValueError(f"max_positions does not go with groups. Received: {max_positions} and {groups}")
    if max_positions is not None:
        constraints = constraints._replace(max_length=tf.minimum(constraints.max_length, max_positions))
    max_length = constraints.max_length
    batch, limit = tf.shape(max_length)[0], tf.reduce_max(max_length)
    beam_size, num_hypotheses = (tf.broadcast_to(size, [batch]) for size in (beam_size, num_hypotheses))
    width = tf.reduce_max(beam_size)
    is_beam = tf.range(width) < beam_size[:, None]  # [B, K]
    has_coverage = bool(ranking.coverage_penalty)
    ways = tf.reduce_max(num_hypotheses) if recombine else 1  # R: derivations that are kept of a live hypothesis

    def proceed(loop: _LoopState) -> tf.Tensor:
        best = tf.reduce_max(ranking.bound(loop.totals[:, :, 0], max_length), -1)
        worst_wanted = tf.gather(loop.finished.score, num_hypotheses - 1, batch_dims=1)
        if constraints.terms is not None:  # one that lacks a term is worse than any that may still place it
            assert isinstance(loop.finished.is_placed, tf.Tensor)
            lacks = _num_lacking(constraints.terms, loop.finished.is_placed)
            worst_wanted = tf.where(tf.gather(lacks, num_hypotheses - 1, batch_dims=1) > 0, NEVER, worst_wanted)
        return (loop.position < limit) & tf.reduce_any(best > worst_wanted)

    def body(loop: _LoopState) -> tuple[_LoopState]:
        decoder_state, past, coverage = loop.carried
        logits, attention, decoder_state = step_fn(loop.ids, loop.position, decoder_state)
        coverage = coverage + attention if has_coverage else ()
        found = constraints.continuations(logits, loop.position, past, width)
        ends = found.end_scores >= tf.reduce_max(found.scores, -1)  # [B, Q]
        is_greedy = (beam_size == 1)[:, None]
        end_totals = tf.where((is_greedy & ~ends)[:, :, None], NEVER, loop.totals + found.end_scores[:, :, None])
        end_totals = tf.reshape(end_totals, [batch, -1])
        length = tf.fill(tf.shape(end_totals), loop.position + 1)
        finished = _best_finished(
            loop.finished,
            ranking.score(end_totals, length, coverage if has_coverage else None),
            loop.position,
            constraints.terms,
            past.terms,
        )

        before = tf.where((is_greedy & ends)[:, :, None], NEVER, loop.totals)
        if recombine:
            live = _recombined(
                before,
                found,
                width,
                beam_size,
                loop.recent,
                lambda ids, parents: constraints.stays_in_prefix(
                    () if constraints.prefix is None else tf.gather(past.is_in_prefix, parents, batch_dims=1),
                    ids,
                    loop.position,
                ),
            )
        elif groups > 1:
            live = _diverse(before, found, width, beam_size, groups, diversity_penalty)
        elif constraints.terms is not None:
            live = _allocated(before, found, width, beam_size, constraints.terms, past.terms)
        else:
            live = _continued(before, found, width)
        ids, parents = live.ids, live.parents
        decoder_state, past, coverage = reorder_state((decoder_state, past, coverage), parents)
        carried = (decoder_state, constraints.advance(past, ids, loop.position), coverage)
        missing = width - tf.shape(attention)[1]  # at the first position
        ends_padded = tf.pad(found.end_log_probs, [[0, 0], [0, missing]])
        written = (ids, live.came_from, live.log_probs, ends_padded, tf.pad(attention, [[0, 0], [0, missing], [0, 0]]))
        history = _History(*(array.write(loop.position, value) for array, value in zip(loop.history, written)))
        totals = tf.where(is_beam[:, :, None], live.totals, NEVER)
        return (_LoopState(loop.position + 1, ids, totals, live.recent, carried, finished, history),)

    none_yet = tf.zeros([batch, width], tf.int32)
    size = 1 if max_positions is None else width  # Q at the first position, where all but one are none
    past = constraints.begin()
    if max_positions is not None:
        state, past = reserve_state(state, width, max_positions), repeat_state(past, width)
    coverage = tf.zeros([batch, size, tf.shape(ranking.source_mask)[1]]) if has_coverage else ()
    is_one = (tf.range(size) == 0)[:, None] & (tf.range(ways) == 0)
    first = _LoopState(
        tf.constant(0),
        tf.fill([batch, size], BOS_ID),
        tf.where(is_one, tf.zeros([batch, size, ways]), NEVER),
        tf.zeros([batch, size, recombine], tf.int32) if recombine else (),
        (state, past, coverage),
        _Finished(tf.fill([batch, width], NEVER), none_yet, none_yet, _no_terms(constraints.terms, batch, width)),
        _new_history(max_positions),
    )
    (last,) = tf.while_loop(proceed, body, (first,), shape_invariants=(loop_shapes(first),), parallel_iterations=1)
    count = tf.reduce_max(num_hypotheses)
    finished = tf.nest.map_structure(lambda leaf: leaf[:, :count], last.finished)
    wanted = tf.range(count) < num_hypotheses[:, None]
    finished = finished._replace(score=tf.where(wanted, finished.score, NEVER))
    return _read_back(finished, last.history, ways, max_positions)


class _Live(NamedTuple):
    """The K hypotheses that live on after a position."""

    ids: tf.Tensor  # int32 [B, K], their last ones
    parents: tf.Tensor  # int32 [B, K], the live hypothesis before, whose state they go on with
    totals: tf.Tensor  # float32 [B, K, R]
    came_from: tf.Tensor  # int32 [B, K * R], as in `_History`
    log_probs: tf.Tensor  # float32 [B, K * R], as in `_History`
    recent: tf.Tensor | tuple  # int32 [B, K, n]


def _continued(totals: tf.Tensor, found: Continuations, width: tf.Tensor) -> _Live:
    """The best continuations of hypotheses with `totals`, float32 [B, Q, 1]."""
    sums, places = tf.math.top_k(_flat(totals + found.scores, width, NEVER), width)
    ids = tf.gather(_flat(found.ids, width, PAD_ID), places, batch_dims=1)
    log_probs = tf.gather(_flat(found.log_probs, width, 0.0), places, batch_dims=1)
    parents = tf.minimum(places // tf.shape(found.ids)[2], tf.shape(totals)[1] - 1)
    return _Live(ids, parents, sums[:, :, None], parents, log_probs, ())


def _allocated(
    totals: tf.Tensor,
    found: Continuations,
    width: tf.Tensor,
    beam_size: tf.Tensor,
    terms: Terms,
    progress: TermProgress | tuple,
) -> _Live:
    """The continuations of hypotheses with `totals`, float32 [B, Q, 1], that dynamic beam allocation takes: of the best
    of each hypothesis, as many as a search with the row's own `beam_size` [B] sees, and of those that terms need."""
    assert isinstance(progress, TermProgress) and isinstance(found.needed, Needed)
    is_seen = tf.range(tf.shape(found.ids)[2]) < beam_size[:, None, None] + 3  # as `Constraints.continuations` gives
    scores = tf.where(is_seen, found.scores, NEVER)
    is_known = tf.reduce_any((found.needed.ids[..., None] == found.ids[:, :, None]) & is_seen[:, :, None], -1)
    needed = found.needed._replace(scores=tf.where(is_known, NEVER, found.needed.scores))
    both = [(found.ids, needed.ids, PAD_ID), (scores, needed.scores, NEVER), (found.log_probs, needed.log_probs, 0.0)]
    count = tf.shape(found.ids)[2] + tf.shape(needed.ids)[2]
    ids, scores, log_probs = (_flat(tf.concat([one, other], 2), width, fill) for one, other, fill in both)
    parents = tf.minimum(tf.range(tf.shape(ids)[1]) // count, tf.shape(totals)[1] - 1)
    sums = tf.gather(totals[:, :, 0], parents, axis=1) + scores

    def allocated() -> tf.Tensor:
        before = tf.nest.map_structure(lambda leaf: tf.gather(leaf, parents, axis=1), progress)
        return allocation(sums, terms.needed(terms.advance(before, ids)), width)

    places = tf.cond(terms.is_any, allocated, lambda: tf.math.top_k(sums, width).indices)
    ids, sums, log_probs = (tf.gather(leaf, places, batch_dims=1) for leaf in (ids, sums, log_probs))
    chosen = tf.gather(parents, places)
    return _Live(ids, chosen, sums[:, :, None], chosen, log_probs, ())


def _diverse(
    totals: tf.Tensor,
    found: Continuations,
    width: tf.Tensor,
    beam_size: tf.Tensor,
    groups: int,
    diversity_penalty: float,
) -> _Live:
    """The best continuations of each group of hypotheses with `totals`, float32 [B, Q, 1], a group after the other;
    what beams choose that a row has not, of `beam_size` [B], costs others nothing."""
    size = tf.shape(totals)[1]
    sums = totals + found.scores  # [B, Q, C]
    ids, log_probs = (_flat(leaf, width, fill) for leaf, fill in ((found.ids, PAD_ID), (found.log_probs, 0.0)))
    parents = tf.minimum(tf.range(tf.shape(ids)[1]) // tf.shape(found.ids)[2], size - 1)
    taken = tf.zeros_like(ids)  # how often groups before have chosen each id
    parts, beams = [], []
    for group in range(groups):
        is_own = (tf.range(size) % groups == group) | (size == 1)  # at the first position all have the same one
        own = _flat(tf.where(is_own[:, None], sums, NEVER), width, NEVER)
        numbers = tf.range(group, width, groups)
        _, places = tf.math.top_k(own - diversity_penalty * tf.cast(taken, tf.float32), tf.size(numbers))
        part = [tf.gather(leaf, places, batch_dims=1) for leaf in (ids, own, log_probs)]
        counts = (numbers < beam_size[:, None]) & (part[1] > NEVER)
        taken += tf.reduce_sum(tf.cast((part[0][:, :, None] == ids[:, None]) & counts[:, :, None], tf.int32), 1)
        parts.append([*part, tf.gather(parents, places)])
        beams.append(numbers)
    order = tf.argsort(tf.concat(beams, 0))
    chosen, kept, probs, came_from = (tf.gather(tf.concat(leaves, 1), order, axis=1) for leaves in zip(*parts))
    return _Live(chosen, came_from, kept[:, :, None], came_from, probs, ())


def _recombined(
    totals: tf.Tensor,
    found: Continuations,
    width: tf.Tensor,
    beam_size: tf.Tensor,
    recent: tf.Tensor,
    stays_in_prefix: Callable[[tf.Tensor, tf.Tensor], tf.Tensor | tuple],
) -> _Live:
    """The best continuations, of those that share their last n ids the best one; the others are derivations of it.

    Args:
        totals: float32 [B, Q, R], of the derivations of each hypothesis.
        found: the M / Q best continuations of each.
        width: K.
        beam_size: int32 [B], of each row, which sees as many continuations as a search of its own.
        recent: int32 [B, Q, n], the last ids of each.
        stays_in_prefix: from ids and parents [B, M] to whether a forced beginning goes on, bool [B, M], or ():
            hypotheses inside and outside it may not go on alike.
    """
    batch, ways = tf.shape(totals)[0], tf.shape(totals)[2]
    is_seen = tf.range(tf.shape(found.ids)[2]) < beam_size[:, None, None] + 3  # as `Constraints.continuations` gives
    sums = _flat(tf.where(is_seen, totals[:, :, :1] + found.scores, NEVER), width, NEVER)
    sums, order = tf.math.top_k(sums, tf.shape(sums)[1])  # [B, M], best first
    ids, scores, log_probs = (
        tf.gather(_flat(leaf, width, fill), order, batch_dims=1)
        for leaf, fill in ((found.ids, PAD_ID), (found.scores, NEVER), (found.log_probs, 0.0))
    )
    parents = tf.minimum(order // tf.shape(found.ids)[2], tf.shape(totals)[1] - 1)
    keys = tf.concat([tf.gather(recent, parents, batch_dims=1), ids[:, :, None]], 2)[:, :, 1:]  # [B, M, n]
    exists = sums > NEVER
    same = tf.reduce_all(keys[:, :, None] == keys[:, None], -1) & exists[:, :, None] & exists[:, None]
    is_inside = stays_in_prefix(ids, parents)
    if isinstance(is_inside, tf.Tensor):
        same &= is_inside[:, :, None] == is_inside[:, None]
    number = tf.range(tf.shape(ids)[1])
    repeats = tf.reduce_any(same & (number[None, :] < number[:, None]), -1)  # a better one has the same last ids
    best, chosen = tf.math.top_k(tf.where(repeats, NEVER, sums), width)  # [B, K]
    # All ways to reach a chosen one: each derivation of the parent of each continuation with the same last ids.
    reached = tf.gather(totals, parents, batch_dims=1) + scores[:, :, None]  # [B, M, R]
    leads_here = tf.gather(same, chosen, batch_dims=1) & (best > NEVER)[:, :, None]  # [B, K, M]
    reached = tf.where(leads_here[:, :, :, None], reached[:, None], NEVER)
    kept, places = tf.math.top_k(tf.reshape(reached, [batch, width, -1]), ways)  # [B, K, R]
    continuation = tf.reshape(places // ways, [batch, -1])
    came_from = tf.gather(parents, continuation, batch_dims=1) * ways + tf.reshape(places % ways, [batch, -1])
    return _Live(
        tf.gather(ids, chosen, batch_dims=1),
        tf.gather(parents, chosen, batch_dims=1),
        kept,
        came_from,
        tf.gather(log_probs, continuation, batch_dims=1),
        tf.gather(keys, chosen, batch_dims=1),
    )


def _new_history(max_positions: int | None) -> _History:
    def array(dtype: tf.DType, rank: int) -> tf.TensorArray:
        return new_array(dtype, rank, max_positions, clear_after_read=False)

    return _History(
        array(tf.int32, 2), array(tf.int32, 2), array(tf.float32, 2), array(tf.float32, 2), array(tf.float32, 3)
    )


def _flat(leaf: tf.Tensor, width: tf.Tensor, fill: float) -> tf.Tensor:
    """[B, Q, C] to [B, Q * C], padded to at least `width`."""
    flat = tf.reshape(leaf, [tf.shape(leaf)[0], -1])
    return tf.pad(flat, [[0, 0], [0, tf.maximum(width - tf.shape(flat)[1], 0)]], constant_values=fill)


def _best_finished(
    finished: _Finished, scores: tf.Tensor, position: tf.Tensor, terms: Terms | None, progress: TermProgress | tuple
) -> _Finished:
    """The K best of those finished before and those that end at `position`, whose scores are float32 [B, Q]."""
    shape, width = tf.shape(scores), tf.shape(finished.score)[1]
    is_placed: tf.Tensor | tuple = ()
    if terms is not None:
        assert isinstance(progress, TermProgress)
        is_placed = terms.placed_at_end(progress)
    ended = _Finished(scores, tf.fill(shape, position), tf.broadcast_to(tf.range(shape[1]), shape), is_placed)
    both = tf.nest.map_structure(lambda old, new: tf.concat([old, new], 1), finished, ended)
    kept = tf.argsort(both.score, direction="DESCENDING", stable=True)
    if terms is not None:
        lacking = tf.where(both.score > NEVER, _num_lacking(terms, both.is_placed), tf.int32.max)
        fewest = tf.argsort(tf.gather(lacking, kept, batch_dims=1), stable=True)
        kept = tf.gather(kept, fewest, batch_dims=1)
    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, kept[:, :width], batch_dims=1), both)


def _no_terms(terms: Terms | None, batch: tf.Tensor, width: tf.Tensor) -> tf.Tensor | tuple:
    """That no term is placed, bool [B, K, C]; () where there are none."""
    return () if terms is None else tf.zeros([batch, width, terms.count], tf.bool)


def _num_lacking(terms: Terms, is_placed: tf.Tensor) -> tf.Tensor:
    """How many terms do not stand in hypotheses, int32 [B, K], of `is_placed`, bool [B, K, C]."""
    return tf.reduce_sum(tf.cast(terms.is_possible[:, None] & ~is_placed, tf.int32), -1)


def _read_back(finished: _Finished, history: _History, ways: int | tf.Tensor, max_positions: int | None) -> Hypotheses:
    """Follows the back-pointers of finished hypotheses [B, N] from their last position to their first; a live
    hypothesis has so many derivations. L is `max_positions` if that is given."""
    exists = finished.score > NEVER
    lengths = tf.where(exists, finished.position + 1, 0)
    longest = tf.maximum(tf.reduce_max(lengths), 1)

    def body(
        position: tf.Tensor, live: tf.Tensor, ids: tf.Tensor, log_probs: tf.Tensor, attention: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        # `live` [B, N]: each hypothesis's number among the derivations after this position, or for one that ends here,
        # after the position before.
        ends, inside = position == lengths - 1, position < lengths - 1
        parents = tf.where(inside, tf.gather(history.parents.read(position), live, batch_dims=1), live)
        id_here = tf.gather(history.ids.read(position), live // ways, batch_dims=1)
        log_prob = tf.gather(history.log_probs.read(position), live, batch_dims=1)
        end_log_prob = tf.gather(history.end_log_probs.read(position), live // ways, batch_dims=1)
        weights = tf.gather(history.attention_weights.read(position), parents // ways, batch_dims=1)
        here = (ends | inside)[:, :, None]
        return (
            position - 1,
            parents,
            ids.write(position, tf.where(ends, EOS_ID, tf.where(inside, id_here, PAD_ID))),
            log_probs.write(position, tf.where(ends, end_log_prob, tf.where(inside, log_prob, 0.0))),
            attention.write(position, tf.where(here, weights, 0.0)),
        )

    arrays = [
        tf.TensorArray(dtype, longest if max_positions is None else max_positions, element_shape=[None] * rank)
        for dtype, rank in ((tf.int32, 2), (tf.float32, 2), (tf.float32, 3))
    ]
    _, _, ids, log_probs, attention = tf.while_loop(
        lambda position, *_: position >= 0, body, (longest - 1, finished.parent, *arrays), parallel_iterations=1
    )
    token_log_probs = tf.transpose(log_probs.stack(), [1, 2, 0])
    return Hypotheses(
        tf.transpose(ids.stack(), [1, 2, 0]),
        lengths,
        tf.where(exists, tf.reduce_sum(token_log_probs, -1), NEVER),
        finished.score,
        token_log_probs,
        tf.transpose(attention.stack(), [1, 2, 0, 3]),
        finished.is_placed,
    )

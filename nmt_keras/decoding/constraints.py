"""The rules of which ids may follow: lengths, a forced beginning, repetitions, banned phrases, whole characters; and
the terms to place.

A rule that looks back needs the `Past` of a hypothesis, what it has produced so far. A search carries the past beside
the decoder's state and reorders both together.
"""

from typing import NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.prefixes import Prefix
from nmt_keras.decoding.terms import TermProgress, Terms
from nmt_keras.decoding.top_k import top_k

NEVER = float("-inf")


class Past(NamedTuple):
    """What hypotheses [B, Q] have produced so far; a field that no rule needs is ()."""

    ids: tf.Tensor | tuple  # int32 [B, Q, L], PAD where nothing stands yet
    phrase_states: tf.Tensor | tuple  # int32 [B, Q], of the automaton of banned phrases
    is_in_prefix: tf.Tensor | tuple  # bool [B, Q], whether all ids so far are those of a beginning that is not over
    terms: TermProgress | tuple = ()  # how far they are with their terms
    character_states: tf.Tensor | tuple = ()  # int32 [B, Q], of the automaton of characters; 0 between two


class Scored(NamedTuple):
    """The scores of every id as the next one, float32 [B, Q, V]."""

    scores: tf.Tensor  # what a search adds up: `log_probs` after the repetition penalty, -inf for what may not follow
    log_probs: tf.Tensor  # the model's own


class Continuations(NamedTuple):
    """The best ids other than EOS that may follow each hypothesis, best first, and its end.

    A place whose id may not follow scores -inf.
    """

    ids: tf.Tensor  # int32 [B, Q, C]
    scores: tf.Tensor  # float32 [B, Q, C], as in `Scored`
    log_probs: tf.Tensor  # float32 [B, Q, C]
    end_scores: tf.Tensor  # float32 [B, Q]
    end_log_probs: tf.Tensor  # float32 [B, Q]
    needed: "Needed | tuple" = ()  # with terms


class Needed(NamedTuple):
    """The ids that the phrases of terms go on with, whether they are among the best or not."""

    ids: tf.Tensor  # int32 [B, Q, P]; PAD, which may not follow, where a phrase goes on with none
    scores: tf.Tensor  # float32 [B, Q, P], as in `Scored`
    log_probs: tf.Tensor  # float32 [B, Q, P]


class Constraints(NamedTuple):
    """The rules; the defaults allow everything. PAD and BOS never follow, and at `max_length` ids EOS must.

    Inside a forced beginning no other rule holds, but a piece that goes beyond its end keeps the others where one does.
    Elsewhere a hypothesis that nothing may follow is given up, but that a character is half done gives up none. Terms
    forbid nothing: beam search alone places them.
    """

    max_length: tf.Tensor  # int32 [B], ids of a hypothesis, EOS included
    min_length: int | tf.Tensor = 0  # int32 [] or [B], EOS included; `max_length` wins
    prefix: Prefix | None = None  # what hypotheses begin with; cut to max_length - 1 ids
    no_repeat_ngram: int = 0  # no n ids in a row come twice (Paulus et al. 2018, 2.5); 0 is off
    repetition_penalty: float = 1.0  # of logits of ids that were produced before (Keskar et al. 2019, 4.1); 1 is off
    banned_phrases: tf.Tensor | None = None  # int32 [states, V]: see `nmt_keras.decoding.banned_phrases`
    terms: Terms | None = None  # what hypotheses must contain, where they can
    characters: tf.Tensor | None = None  # int32 [states, V]: see `nmt_keras.decoding.characters`

    def begin(self) -> Past:
        """Before the first position, Q = 1."""
        batch = tf.shape(self.max_length)[0]
        ids: tf.Tensor | tuple = ()
        if self.no_repeat_ngram or self.repetition_penalty != 1.0:
            size = tf.maximum(tf.reduce_max(self.max_length), self.no_repeat_ngram)
            ids = tf.fill([batch, 1, size], PAD_ID)
        return Past(
            ids,
            () if self.banned_phrases is None else tf.zeros([batch, 1], tf.int32),
            () if self.prefix is None else self.prefix.num_positions[:, None] > 0,
            () if self.terms is None else self.terms.begin(),
            () if self.characters is None else tf.zeros([batch, 1], tf.int32),
        )

    def advance(self, past: Past, ids: tf.Tensor, position: tf.Tensor) -> Past:
        """The past once `ids`, int32 [B, Q], stand at `position`."""
        all_ids, states, is_in_prefix, terms, character_states = past
        if self.banned_phrases is not None:
            states = tf.gather_nd(self.banned_phrases, tf.stack([states, ids], -1))
            states = tf.where(states < 0, tf.bitwise.invert(states), states)  # negative after a forced phrase
        if isinstance(all_ids, tf.Tensor):
            all_ids = tf.where(tf.range(tf.shape(all_ids)[2]) == position, ids[:, :, None], all_ids)
        if self.terms is not None:
            assert isinstance(terms, TermProgress)
            terms = self.terms.advance(terms, ids)
        if self.characters is not None:  # 0 after what may not follow, such as a forced piece
            character_states = tf.maximum(tf.gather_nd(self.characters, tf.stack([character_states, ids], -1)), 0)
        return Past(all_ids, states, self.stays_in_prefix(is_in_prefix, ids, position), terms, character_states)

    def stays_in_prefix(
        self, is_in_prefix: tf.Tensor | tuple, ids: tf.Tensor, position: tf.Tensor
    ) -> tf.Tensor | tuple:
        """Whether hypotheses, [B, Q], are still inside the forced beginning once `ids` stand at `position`; () where
        there is none."""
        if self.prefix is None:
            return ()
        is_next = ids == self.prefix.at(position)[:, None]
        return is_in_prefix & is_next & (position + 1 < self.prefix.num_positions)[:, None]

    def continuations(
        self, logits: tf.Tensor, position: tf.Tensor, past: Past, count: int | tf.Tensor
    ) -> Continuations:
        """The best continuations of each hypothesis; without a pass over all ids for each rule if no rule looks back.

        Args:
            logits: float32 [B, Q, V].
            position: int32 [].
            past: of the hypotheses.
            count: how many are wanted; C is a few more, or V where that is less.
        """
        size = tf.minimum(count + 3, tf.shape(logits)[-1])  # EOS, PAD and BOS may be among them
        if self._looks_back:
            return self._of_all(logits, position, past, size)
        rules = []
        if self.prefix is not None:
            rules.append(tf.reduce_any(past.is_in_prefix))
        if self.terms is not None:
            rules.append(self.terms.is_any)
        if self.characters is not None:
            rules.append(tf.reduce_any(tf.greater(past.character_states, 0)))
        if not rules:
            return self._of_the_best(logits, position, past, size)
        return tf.cond(
            tf.reduce_any(rules),
            lambda: self._of_all(logits, position, past, size),
            lambda: self._of_the_best(logits, position, past, size),
        )

    def _of_all(self, logits: tf.Tensor, position: tf.Tensor, past: Past, size: tf.Tensor) -> Continuations:
        """Continuations where any rule may hold."""
        scores, log_probs = self.score(logits, position, past)
        _, ids = top_k(scores, size)
        found = _continuations(ids, tf.gather(scores, ids, batch_dims=2), scores[:, :, EOS_ID], log_probs)
        if self.terms is None:
            return found
        assert isinstance(past.terms, TermProgress)
        ids = self.terms.next_ids(past.terms)
        return found._replace(needed=Needed(ids, *(tf.gather(x, ids, batch_dims=2) for x in (scores, log_probs))))

    def _of_the_best(self, logits: tf.Tensor, position: tf.Tensor, past: Past, size: tf.Tensor) -> Continuations:
        """Continuations where only rules hold that look at the position alone, unless one of the best ids is the rest
        of a character that has not begun."""
        best, ids = top_k(logits, size)
        # A few log probabilities, by that of the best id: oneDNN's softmax takes half the time of a log softmax.
        highest = best[:, :, :1]
        log_best = tf.math.log(tf.gather(tf.nn.softmax(logits), ids[:, :, :1], batch_dims=2))
        end = tf.fill(tf.shape(ids[:, :, :1]), EOS_ID)
        # In this order, or what is rounded would grow with the logits.
        log_probs, end_log_probs = (each - highest + log_best for each in (best, logits[:, :, EOS_ID, None]))
        scores, end_scores = (
            tf.where(self._may_follow(own, position) & ~tf.math.is_nan(scores), scores, NEVER)
            for own, scores in ((ids, log_probs), (end, end_log_probs))
        )
        scores = tf.where(ids == EOS_ID, NEVER, scores)
        found = Continuations(ids, scores, log_probs, end_scores[:, :, 0], end_log_probs[:, :, 0])
        if self.terms is not None:
            found = found._replace(needed=self._none_needed(ids))
        if self.characters is None:
            return found
        is_rest = tf.reduce_any(tf.gather(self.characters[0], ids) < 0)
        return tf.cond(is_rest, lambda: self._of_all(logits, position, past, size), lambda: found)

    def _none_needed(self, ids: tf.Tensor) -> Needed:
        """Of ids [B, Q, C], where no row has a term."""
        assert self.terms is not None
        shape = [*tf.unstack(tf.shape(ids)[:2]), tf.shape(self.terms.phrases)[1]]
        return Needed(tf.fill(shape, PAD_ID), tf.fill(shape, NEVER), tf.zeros(shape))

    def score(self, logits: tf.Tensor, position: tf.Tensor, past: Past) -> Scored:
        """Scores every id as the next one at `position`; an id whose score is NaN may not follow.

        Args:
            logits: float32 [B, Q, V].
            position: int32 [].
            past: of the hypotheses.
        """
        log_probs = scores = tf.nn.log_softmax(logits)
        if self.repetition_penalty != 1.0:
            penalised = tf.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
            seen = _marked(past.ids, past.ids != PAD_ID, tf.shape(logits)[-1])
            scores = tf.nn.log_softmax(tf.where(seen, penalised, logits))
        vocab_size, allowed = tf.shape(logits)[-1], tf.constant(True)
        if self.no_repeat_ngram:
            allowed &= ~self._repeats(position, past.ids, vocab_size)
        if self.banned_phrases is not None:
            allowed &= tf.gather(self.banned_phrases, past.phrase_states) >= 0
        possible = self._may_follow(tf.range(vocab_size)[None, None], position, allowed)
        if self.characters is not None:
            possible = self._with_whole_characters(possible, past.character_states, position)
        if self.prefix is not None:
            possible = self._with_prefix(possible, position, past.is_in_prefix)
        return Scored(tf.where(possible & ~tf.math.is_nan(scores), scores, NEVER), log_probs)

    @property
    def _looks_back(self) -> bool:
        """Whether any rule depends on what a hypothesis has produced so far."""
        return bool(self.no_repeat_ngram or self.repetition_penalty != 1.0 or self.banned_phrases is not None)

    def _may_follow(self, ids: tf.Tensor, position: tf.Tensor, allowed: tf.Tensor | bool = True) -> tf.Tensor:
        """Whether `ids`, which broadcast, may stand at `position`; `allowed` is what the other rules say."""
        too_short = position + 1 < tf.reshape(self.min_length, [-1, 1, 1])
        possible = allowed & (ids != PAD_ID) & (ids != BOS_ID) & ~(too_short & (ids == EOS_ID))
        return tf.where(self._is_last(position), ids == EOS_ID, possible)

    def _with_whole_characters(self, possible: tf.Tensor, states: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """bool [B, Q, V]: what may follow, where some hypotheses may be inside a character."""
        assert self.characters is not None
        table = self.characters
        shape = tf.concat([tf.shape(states), tf.shape(table)[1:]], 0)
        fits = tf.cond(
            tf.reduce_any(states > 0),
            lambda: tf.gather(table, states) >= 0,
            lambda: tf.broadcast_to(table[0] >= 0, shape),
        )
        whole = possible & fits
        is_stuck = ~tf.reduce_any(whole, -1, keepdims=True)  # what a shortlist lacks, or another rule forbids
        return tf.where(is_stuck | self._is_last(position), possible, whole)

    def _is_last(self, position: tf.Tensor) -> tf.Tensor:
        """bool [B, 1, 1]: whether `position` is the last that there may be."""
        return (position >= self.max_length - 1)[:, None, None]

    def _with_prefix(self, possible: tf.Tensor, position: tf.Tensor, is_in_prefix: tf.Tensor) -> tf.Tensor:
        """bool [B, Q, V]: what may follow, where some hypotheses are inside a forced beginning."""
        assert self.prefix is not None
        prefix = self.prefix

        def forced() -> tf.Tensor:
            is_inside = is_in_prefix[:, :, None] & ~self._is_last(position)
            is_next, completes = prefix.is_next(position)[:, None], prefix.completing(position)[:, None]
            allowed = is_next | (completes & possible)  # what goes beyond the beginning keeps the other rules
            is_stuck = ~tf.reduce_any(allowed, -1, keepdims=True)
            return tf.where(is_inside, tf.where(is_stuck, completes, allowed), possible)

        shape = tf.concat([tf.shape(is_in_prefix), tf.shape(possible)[2:]], 0)
        return tf.cond(tf.reduce_any(is_in_prefix), forced, lambda: tf.broadcast_to(possible, shape))

    def _repeats(self, position: tf.Tensor, ids: tf.Tensor, vocab_size: int | tf.Tensor) -> tf.Tensor:
        """bool [B, Q, V]: the ids that would end an n-gram for the second time."""
        n = self.no_repeat_ngram
        starts = tf.shape(ids)[2] - n + 1
        same = (tf.range(starts) + n - 1 < position)[None, None]  # an n-gram that stands there already
        for i in range(n - 1):
            last = ids[:, :, tf.maximum(position - n + 1 + i, 0)]
            same &= ids[:, :, i : starts + i] == last[:, :, None]
        ends = ids[:, :, n - 1 :]
        return _marked(ends, tf.broadcast_to(same, tf.shape(ends)), vocab_size)


def _continuations(ids: tf.Tensor, scores: tf.Tensor, end_scores: tf.Tensor, log_probs: tf.Tensor) -> Continuations:
    """Of ids [B, Q, C] with their scores, the scores of EOS [B, Q] and the log probabilities of all ids [B, Q, V]."""
    return Continuations(
        ids,
        tf.where(ids == EOS_ID, NEVER, scores),
        tf.gather(log_probs, ids, batch_dims=2),
        end_scores,
        log_probs[:, :, EOS_ID],
    )


def _marked(ids: tf.Tensor, counted: tf.Tensor, vocab_size: tf.Tensor) -> tf.Tensor:
    """bool [B, Q, V]: the ids that stand in `ids` [B, Q, L] where `counted` [B, Q, L]."""
    shape = tf.shape(ids)
    rows = tf.reshape(tf.range(shape[0] * shape[1]), [shape[0], shape[1], 1])
    places = tf.reshape(rows * vocab_size + ids, [-1, 1])
    counts = tf.scatter_nd(
        places, tf.reshape(tf.cast(counted, tf.int32), [-1]), tf.reshape(shape[0] * shape[1] * vocab_size, [1])
    )
    return tf.reshape(counts > 0, [shape[0], shape[1], vocab_size])

"""The rules of which ids may follow: lengths, a forced beginning, repetitions, banned phrases.

A rule that looks back needs the `Past` of a hypothesis, what it has produced so far. A search carries the past beside
the decoder's state and reorders both together.
"""

from typing import NamedTuple

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding.top_k import top_k

NEVER = float("-inf")


class Past(NamedTuple):
    """What hypotheses [B, Q] have produced so far; a field that no rule needs is ()."""

    ids: tf.Tensor | tuple  # int32 [B, Q, L], PAD where nothing stands yet
    phrase_states: tf.Tensor | tuple  # int32 [B, Q], of the automaton of banned phrases


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


class Constraints(NamedTuple):
    """The rules; the defaults allow everything. PAD and BOS never follow, and at `max_length` ids EOS must.

    Inside a forced beginning no other rule holds. Elsewhere a hypothesis that nothing may follow is given up.
    """

    max_length: tf.Tensor  # int32 [B], ids of a hypothesis, EOS included
    min_length: int | tf.Tensor = 0  # int32 [] or [B], EOS included; `max_length` wins
    prefix: tf.Tensor | None = None  # int32 [B, P], what hypotheses begin with, then PAD; cut to max_length - 1 ids
    no_repeat_ngram: int = 0  # no n ids in a row come twice (Paulus et al. 2018, 2.5); 0 is off
    repetition_penalty: float = 1.0  # of logits of ids that were produced before (Keskar et al. 2019, 4.1); 1 is off
    banned_phrases: tf.Tensor | None = None  # int32 [states, V]: see `nmt_keras.decoding.banned_phrases`

    def begin(self) -> Past:
        """Before the first position, Q = 1."""
        batch = tf.shape(self.max_length)[0]
        ids: tf.Tensor | tuple = ()
        if self.no_repeat_ngram or self.repetition_penalty != 1.0:
            size = tf.maximum(tf.reduce_max(self.max_length), self.no_repeat_ngram)
            ids = tf.fill([batch, 1, size], PAD_ID)
        return Past(ids, () if self.banned_phrases is None else tf.zeros([batch, 1], tf.int32))

    def advance(self, past: Past, ids: tf.Tensor, position: tf.Tensor) -> Past:
        """The past once `ids`, int32 [B, Q], stand at `position`."""
        all_ids, states = past
        if self.banned_phrases is not None:
            states = tf.gather_nd(self.banned_phrases, tf.stack([states, ids], -1))
            states = tf.where(states < 0, tf.bitwise.invert(states), states)  # negative after a forced phrase
        if isinstance(all_ids, tf.Tensor):
            all_ids = tf.where(tf.range(tf.shape(all_ids)[2]) == position, ids[:, :, None], all_ids)
        return Past(all_ids, states)

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
        size = tf.shape(logits)[-1]
        if self._looks_back:
            scores, log_probs = self.score(logits, position, past)
            _, ids = top_k(scores, tf.minimum(count + 1, size))  # EOS may be among them
            chosen, end_scores = tf.gather(scores, ids, batch_dims=2), scores[:, :, EOS_ID]
        else:
            log_probs = tf.nn.log_softmax(logits)
            _, ids = top_k(log_probs, tf.minimum(count + 3, size))  # EOS, PAD and BOS may be among them
            ids, is_copy = self._forced_among(ids, position)
            end = tf.fill(tf.shape(ids[:, :, :1]), EOS_ID)
            chosen, end_scores = (
                tf.where(self._may_follow(own, position) & ~tf.math.is_nan(scores), scores, NEVER)
                for own, scores in (
                    (ids, tf.gather(log_probs, ids, batch_dims=2)),
                    (end, log_probs[:, :, EOS_ID, None]),
                )
            )
            chosen, end_scores = tf.where(is_copy, NEVER, chosen), end_scores[:, :, 0]
        return Continuations(
            ids,
            tf.where(ids == EOS_ID, NEVER, chosen),
            tf.gather(log_probs, ids, batch_dims=2),
            end_scores,
            log_probs[:, :, EOS_ID],
        )

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
        return Scored(tf.where(possible & ~tf.math.is_nan(scores), scores, NEVER), log_probs)

    @property
    def _looks_back(self) -> bool:
        """Whether any rule depends on what a hypothesis has produced so far."""
        return bool(self.no_repeat_ngram or self.repetition_penalty != 1.0 or self.banned_phrases is not None)

    def _may_follow(self, ids: tf.Tensor, position: tf.Tensor, allowed: tf.Tensor | bool = True) -> tf.Tensor:
        """Whether `ids`, which broadcast, may stand at `position`; `allowed` is what the other rules say."""
        too_short = position + 1 < tf.reshape(self.min_length, [-1, 1, 1])
        possible = allowed & (ids != PAD_ID) & (ids != BOS_ID) & ~(too_short & (ids == EOS_ID))
        at_last = (position >= self.max_length - 1)[:, None, None]
        possible = tf.where(at_last, ids == EOS_ID, possible)
        if self.prefix is not None:
            forced = self._forced(position)
            possible = tf.where((forced != PAD_ID) & ~at_last, ids == forced, possible)
        return possible

    def _forced(self, position: tf.Tensor) -> tf.Tensor:
        """int32 [B, 1, 1]: the id of the prefix at `position`, PAD where there is none."""
        width = tf.shape(self.prefix)[1]
        padded = tf.pad(self.prefix, [[0, 0], [0, 1]], constant_values=PAD_ID)
        return padded[:, tf.minimum(position, width)][:, None, None]

    def _forced_among(self, ids: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The ids [B, Q, C], all replaced by the forced id where there is one, and which of them are then copies."""
        if self.prefix is None:
            return ids, False
        forced = self._forced(position)
        return tf.where(forced != PAD_ID, forced, ids), (forced != PAD_ID) & (tf.range(tf.shape(ids)[-1]) > 0)

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


def _marked(ids: tf.Tensor, counted: tf.Tensor, vocab_size: tf.Tensor) -> tf.Tensor:
    """bool [B, Q, V]: the ids that stand in `ids` [B, Q, L] where `counted` [B, Q, L]."""
    shape = tf.shape(ids)
    rows = tf.reshape(tf.range(shape[0] * shape[1]), [shape[0], shape[1], 1])
    places = tf.reshape(rows * vocab_size + ids, [-1, 1])
    counts = tf.scatter_nd(
        places, tf.reshape(tf.cast(counted, tf.int32), [-1]), tf.reshape(shape[0] * shape[1] * vocab_size, [1])
    )
    return tf.reshape(counts > 0, [shape[0], shape[1], vocab_size])

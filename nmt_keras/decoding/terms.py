"""Terms that a hypothesis must contain: positive lexical constraints by dynamic beam allocation (Post and Vilar 2018).

A term is said in any of several ways, its phrases, each a sequence of ids; it is placed once one of them stands in the
hypothesis as whole words. What a hypothesis still needs is counted in ids, those in the midst of a phrase less, and the
hypotheses that need equally many are a bank. The beam takes the best of each bank in turn, so that the ones that lack a
term do not crowd out the ones that bought it dearly, and a phrase is offered at every position, however improbable.

Where a phrase goes on is followed for all its beginnings at once (Shift-And, Baeza-Yates and Gonnet 1992): "a b a c" is
found in "a b a b a c". All is computed by rows: with what one row needs, another's result does not change.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import PAD_ID

_MANY = 1 << 20  # ids, more than any hypothesis needs


class TermProgress(NamedTuple):
    """How far hypotheses [B, Q] are with the terms of their rows."""

    begun: tf.Tensor  # bool [B, Q, P, L]: whether the last k + 1 ids are the first ones of the phrase, for each k
    placed: tf.Tensor  # bool [B, Q, C]: the terms of which a phrase has stood there, and the next id begins a new word
    in_word: tf.Tensor  # bool [B, Q]: whether the last id ends with a letter


class Letters(NamedTuple):
    """Which ids begin and end with a letter of a script that has spaces between words, bool [V] each.

    Between two such letters is no end of a word.
    """

    first: tf.Tensor
    last: tf.Tensor

    @classmethod
    def of(cls, surfaces: Sequence[bytes], is_letter: Callable[[str], bool]) -> "Letters":
        """Those of a vocabulary as constants; bytes that are no characters are no letters."""
        texts = [surface.decode("utf-8", errors="replace") for surface in surfaces]
        first = np.array([is_letter(text[:1]) for text in texts])
        return cls(tf.constant(first), tf.constant(np.array([is_letter(text[-1:]) for text in texts])))


class Terms(NamedTuple):
    """The terms of B rows: C each at most, said in P phrases of L ids at most."""

    phrases: tf.Tensor  # int32 [B, P, L], then PAD; a phrase of no ids is none
    owners: tf.Tensor  # int32 [B, P], the number of the term that the phrase says
    is_offered: tf.Tensor  # bool [B, P], whether a search begins the phrase, or only counts it where it stands
    count: tf.Tensor  # int32 [], C
    letters: Letters  # of what a search calls ids

    def among(self, ids: tf.Tensor, places: Callable[[tf.Tensor], tf.Tensor]) -> "Terms":
        """The same for a search that knows ids by their places among `ids`, int32 [U], which `places` finds."""
        letters = Letters(*(tf.gather(leaf, ids) for leaf in self.letters))
        return self._replace(phrases=places(self.phrases), letters=letters)

    def possible_ids(self) -> tf.Tensor:
        """bool [B, V]: the ids of the phrases."""
        shape = [tf.shape(self.phrases)[0], tf.size(self.letters.first)]
        flat = tf.reshape(self.phrases, [shape[0], -1])
        places = tf.reshape(tf.range(shape[0])[:, None] * shape[1] + flat, [-1, 1])
        counts = tf.scatter_nd(places, tf.cast(tf.reshape(flat, [-1]) != PAD_ID, tf.int32), [shape[0] * shape[1]])
        return tf.reshape(counts > 0, shape)

    @property
    def lengths(self) -> tf.Tensor:
        """Ids of each phrase, int32 [B, P]."""
        return tf.reduce_sum(tf.cast(self.phrases != PAD_ID, tf.int32), -1)

    @property
    def is_any(self) -> tf.Tensor:
        """bool []: whether any row has a phrase."""
        return tf.reduce_any(self.phrases != PAD_ID)

    @property
    def is_possible(self) -> tf.Tensor:
        """bool [B, C]: whether the term has a phrase that is offered; one without is none that a hypothesis needs."""
        return tf.reduce_any(self._says & ((self.lengths > 0) & self.is_offered)[:, :, None], 1)

    @property
    def _says(self) -> tf.Tensor:
        """bool [B, P, C]: whether the phrase is one of the term's."""
        return self.owners[:, :, None] == tf.range(self.count)

    def begin(self) -> TermProgress:
        """Before the first position, Q = 1."""
        batch = tf.shape(self.phrases)[0]
        begun = tf.zeros_like(self.phrases[:, None], tf.bool)
        return TermProgress(begun, tf.zeros([batch, 1, self.count], tf.bool), tf.zeros([batch, 1], tf.bool))

    def advance(self, progress: TermProgress, ids: tf.Tensor) -> TermProgress:
        """The progress once `ids`, int32 [B, Q], stand next."""
        first, phrases = tf.gather(self.letters.first, ids), self.phrases[:, None]
        goes_on = progress.in_word & first  # within a word
        placed = progress.placed | (self._said(progress) & ~goes_on[:, :, None])
        may_begin = ~(progress.in_word[:, :, None] & tf.gather(self.letters.first, phrases[..., 0]))
        before = tf.concat([may_begin[..., None], progress.begun[..., :-1]], -1)
        begun = before & (phrases == ids[:, :, None, None]) & (phrases != PAD_ID)
        return TermProgress(begun, placed, tf.gather(self.letters.last, ids))

    def placed_at_end(self, progress: TermProgress) -> tf.Tensor:
        """bool [B, Q, C]: the terms that are placed if EOS stands next."""
        return progress.placed | self._said(progress)

    def _said(self, progress: TermProgress) -> tf.Tensor:
        """bool [B, Q, C]: the terms of which a phrase ends with the last id."""
        is_whole = progress.begun & (tf.range(tf.shape(self.phrases)[2]) == self.lengths[:, :, None] - 1)[:, None]
        return tf.reduce_any(tf.reduce_any(is_whole, -1)[..., None] & self._says[:, None], 2)

    def needed(self, progress: TermProgress) -> tf.Tensor:
        """int32 [B, Q]: how many ids at least are needed for the terms that are not placed.

        Of phrases that are begun the one that is nearest to its end counts as begun: they may begin alike, as all words
        do where a space is a piece, and the next id goes on with one of them.
        """
        is_own = (self._says & (self.lengths > 0)[:, :, None])[:, None]
        longest = self._longest(progress)

        def fewest(ids: tf.Tensor, is_way: tf.Tensor) -> tf.Tensor:  # of each term, [B, Q, C]
            return tf.reduce_min(tf.where(is_own & is_way[..., None], ids[..., None], _MANY), 2)

        whole = fewest(self.lengths[:, None], self.is_offered[:, None])
        left = fewest(self.lengths[:, None] - longest, self.is_offered[:, None] | (longest > 0))
        is_needed = self.is_possible[:, None] & ~self.placed_at_end(progress)
        saved = tf.reduce_max(tf.where(is_needed, whole - left, 0), -1)
        return tf.reduce_sum(tf.where(is_needed, whole, 0), -1) - saved

    def next_ids(self, progress: TermProgress) -> tf.Tensor:
        """int32 [B, Q, P]: the id that a phrase goes on with, of those that terms need; PAD where there is none, or an
        id before it is the same."""
        longest = self._longest(progress)
        phrases = tf.pad(self.phrases, [[0, 0], [0, 0], [0, 1]], constant_values=PAD_ID)
        # [B, P, L + 1] by [B, Q, P]: one-hot, for a gather over two batch axes and a third between them is none.
        ids = tf.reduce_sum(
            tf.where(longest[..., None] == tf.range(tf.shape(phrases)[2]), phrases[:, None], PAD_ID), -1
        )
        owners = tf.clip_by_value(self.owners, 0, tf.maximum(self.count - 1, 0))
        is_done = tf.gather(tf.transpose(self.placed_at_end(progress), [0, 2, 1]), owners, batch_dims=1)
        may_go_on = self.is_offered[:, None] | (longest > 0)
        ids = tf.where(tf.transpose(is_done, [0, 2, 1]) | ~may_go_on, PAD_ID, ids)
        number = tf.range(tf.shape(ids)[2])
        repeats = tf.reduce_any((ids[..., None] == ids[..., None, :]) & (number < number[:, None]), -1)
        return tf.where(repeats, PAD_ID, ids)

    def _longest(self, progress: TermProgress) -> tf.Tensor:
        """int32 [B, Q, P]: how many ids of the phrase stand at the end, at most."""
        return tf.reduce_max(tf.where(progress.begun, tf.range(1, tf.shape(self.phrases)[2] + 1), 0), -1)


def allocation(scores: tf.Tensor, needed: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Which continuations a beam takes: the best of each bank, then the second best of each, and so on.

    Args:
        scores: float32 [B, M], -inf for what may not follow.
        needed: int32 [B, M], the number of a continuation's bank; lower goes first.
        width: K, at most M.

    Returns:
        Their places, int32 [B, K]; those that may not follow come last. Where there is one bank, these are the K best.
    """
    by_score = tf.argsort(scores, direction="DESCENDING", stable=True)
    exists = tf.gather(scores, by_score, batch_dims=1) > float("-inf")
    banks = tf.where(exists, tf.gather(needed, by_score, batch_dims=1), _MANY)
    by_bank = tf.argsort(banks, stable=True)  # within a bank by score
    banks = tf.gather(banks, by_bank, batch_dims=1)
    rank = tf.range(tf.shape(banks)[1]) - tf.searchsorted(banks, banks)
    # Ranks first, banks second: what may not follow has the last bank, and no rank before any that may.
    rank = tf.where(banks == _MANY, tf.shape(banks)[1], rank)
    by_turn = tf.argsort(rank, stable=True)[:, :width]  # the order by banks is kept within a rank
    return tf.gather(by_score, tf.gather(by_bank, by_turn, batch_dims=1), batch_dims=1)

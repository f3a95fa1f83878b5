"""A beginning that hypotheses must have, given as text and not as pieces.

The text is cut into pieces, and these are forced one after the other. In the place of any of them may stand a piece
that begins with all the text that is left and goes beyond it: of `▁trans l` for "transl", `▁translation` may stand in
the place of the first, and `lation` in that of the second. A beginning that ends inside a word, or inside a piece, is
so completed as the model would write it. Since the pieces of the text itself are always among the choices, no
hypothesis gets stuck. With n-best lists this is interactive translation (Barrachina et al. 2009; Knowles and Koehn
2016).

What is left when the text has been cut, the tail, is of no piece: a space at the end, or the beginning of a word in a
vocabulary of words. It must be begun with by the piece after the others.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import PAD_ID

_WIDEST = 64  # bytes of a surface that are compared: longer rests of a beginning are not covered by one piece


class Surfaces(NamedTuple):
    """What each id adds to a text."""

    texts: tf.Tensor  # string [V]
    codes: tf.Tensor  # uint8 [V, M], their first bytes, then 0
    lengths: tf.Tensor  # int32 [V], in bytes

    @classmethod
    def of(cls, surfaces: Sequence[bytes]) -> "Surfaces":
        """The surfaces of a vocabulary as constants."""
        width = min(max(map(len, surfaces), default=0), _WIDEST)
        codes = np.zeros([len(surfaces), max(width, 1)], np.uint8)
        for row, surface in zip(codes, surfaces):
            row[: len(surface[:width])] = np.frombuffer(surface[:width], np.uint8)
        lengths = np.array([len(surface) for surface in surfaces], np.int32)
        return cls(tf.constant(list(surfaces), tf.string), tf.constant(codes), tf.constant(lengths))

    def begin_with(self, rests: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Whether each surface begins with each rest of a text, bool [B, V]; never with an empty one.

        Args:
            rests: uint8 [B, M].
            lengths: int32 [B], their true lengths.
        """
        width = tf.shape(self.codes)[1]
        fits = (lengths > 0) & (lengths <= width)

        def body(place: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            here = self.codes[None, :, place] == rests[:, None, place]
            return place + 1, same & (here | (place >= lengths)[:, None])

        possible = fits[:, None] & (self.lengths >= lengths[:, None])
        last = tf.reduce_max(tf.where(fits, lengths, 0))
        return tf.while_loop(lambda place, _: place < last, body, (0, possible))[1]


class Prefix(NamedTuple):
    """The beginnings of B rows."""

    ids: tf.Tensor  # int32 [B, P], the pieces, then PAD
    lengths: tf.Tensor  # int32 [B], how many pieces there are
    rests: tf.Tensor  # uint8 [B, P + 1, M], the text from each piece on, and the tail after the last
    rest_lengths: tf.Tensor  # int32 [B, P + 1], in bytes, also where that is more than M
    surfaces: Surfaces  # of what a search calls ids

    def among(self, ids: tf.Tensor, places: Callable[[tf.Tensor], tf.Tensor]) -> "Prefix":
        """The same for a search that knows ids by their places among `ids`, int32 [U], which `places` finds."""
        surfaces = Surfaces(*(tf.gather(leaf, ids) for leaf in self.surfaces))
        return self._replace(ids=places(self.ids), surfaces=surfaces)

    @property
    def num_positions(self) -> tf.Tensor:
        """The positions that a beginning can take, int32 [B]: one a piece, and one for a tail."""
        tails = tf.gather(self.rest_lengths, self.lengths, batch_dims=1)
        return self.lengths + tf.cast(tails > 0, tf.int32)

    def at(self, position: tf.Tensor) -> tf.Tensor:
        """int32 [B]: the piece at a position, PAD after the last."""
        padded = tf.pad(self.ids, [[0, 0], [0, 1]], constant_values=PAD_ID)
        return padded[:, tf.minimum(position, tf.shape(self.ids)[1])]

    def completing(self, position: tf.Tensor) -> tf.Tensor:
        """bool [B, V]: the ids that begin with all the text that is left at a position."""
        place = tf.minimum(position, tf.shape(self.ids)[1])
        return self.surfaces.begin_with(self.rests[:, place], self.rest_lengths[:, place])

    def is_next(self, position: tf.Tensor) -> tf.Tensor:
        """bool [B, V]: the id that is the piece at a position."""
        ids = self.at(position)
        return (tf.range(tf.shape(self.surfaces.lengths)[0]) == ids[:, None]) & (ids != PAD_ID)[:, None]

    def possible_ids(self) -> tf.Tensor:
        """bool [B, V]: the ids that may stand anywhere in a beginning."""
        none = tf.zeros([tf.shape(self.ids)[0], tf.shape(self.surfaces.lengths)[0]], tf.bool)
        return tf.while_loop(
            lambda position, _: position < tf.reduce_max(self.num_positions),
            lambda position, found: (position + 1, found | self.is_next(position) | self.completing(position)),
            (0, none),
        )[1]


def make_prefix(ids: tf.Tensor, tails: tf.Tensor, surfaces: Surfaces) -> tuple[Prefix, tf.Tensor]:
    """Beginnings of their pieces and tails.

    Args:
        ids: int32 [B, P], the pieces, then PAD.
        tails: string [B], what is left of the text.
        surfaces: of all ids.

    Returns:
        The beginnings, and whether each has its tail, bool [B]: one that no piece begins with is left out.
    """
    lengths = tf.reduce_sum(tf.cast(ids != PAD_ID, tf.int32), 1)
    width = tf.shape(surfaces.codes)[1]
    tail_lengths = tf.strings.length(tails)
    codes = tf.io.decode_raw(tails, tf.uint8, fixed_length=width)
    is_begun = tf.reduce_any(surfaces.begin_with(codes, tail_lengths), 1)
    has_tail = is_begun | (tail_lengths == 0)
    tails = tf.where(is_begun, tails, "")
    texts = tf.strings.reduce_join(tf.gather(surfaces.texts, ids), 1)
    texts = tf.strings.join([texts, tails])
    whole = tf.strings.length(texts)
    starts = tf.pad(tf.cumsum(tf.gather(surfaces.lengths, ids), axis=1), [[0, 0], [1, 0]])  # [B, P + 1]
    size = tf.reduce_max(tf.pad(whole, [[0, 1]]))
    codes = tf.io.decode_raw(texts, tf.uint8, fixed_length=size + width)
    places = starts[:, :, None] + tf.range(width)
    rests = tf.gather(codes, places, batch_dims=1)
    return Prefix(ids, lengths, rests, whole[:, None] - starts, surfaces), has_tail

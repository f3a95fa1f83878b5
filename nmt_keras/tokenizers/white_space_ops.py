"""`white_space.fold` as graph operations, and where spans of folded texts are in the texts as they came."""

import tensorflow as tf

from nmt_keras.tokenizers import white_space


def fold_tf(text: tf.Tensor) -> tf.Tensor:
    """`fold` as graph operations, of strings of any shape in valid UTF-8."""
    text = tf.strings.regex_replace(text, _re2(white_space.INVISIBLE) + "+", "")
    text = tf.strings.regex_replace(text, f"(^|{_re2(white_space.NEVER_JOINED)}){_re2(white_space.JOINERS)}+", r"\1")
    text = tf.strings.regex_replace(text, _re2(white_space.WHITE) + "+", " ")
    return tf.strings.regex_replace(text, "^ | $", "")


def spans_before_folding(text: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps spans of folded texts to the texts before folding.

    A space stands for the whole run of white space that it was made of. What was removed belongs to no span, unless it
    is inside one.

    Args:
        text: string [N], valid UTF-8, before folding.
        starts: int32 [N, L], the bytes of `fold_tf(text)` where spans start.
        ends: int32 [N, L], those where they end.

    Returns:
        Both as bytes of `text`, int32 [N, L] each.
    """
    codes, offsets = tf.strings.unicode_decode_with_offsets(text, "UTF-8")
    rows, values = codes.value_rowids(), codes.values
    first = tf.cast(offsets.values, tf.int32)
    last = first + _utf8_size(values)

    def keep(mask: tf.Tensor, *leaves: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(tf.boolean_mask(leaf, mask) for leaf in leaves)

    rows, values, first, last = keep(~_is_in(values, white_space.INVISIBLE), rows, values, first, last)
    rows, values, first, last = keep(~_is_useless_joiner(rows, values), rows, values, first, last)
    is_white = _is_in(values, white_space.WHITE)
    same_row = tf.equal(rows[1:], rows[:-1])
    continues = tf.pad(is_white[1:] & is_white[:-1] & same_row, [[1, 0]])[: tf.size(rows)]  # not a run's first
    is_first_of_row = tf.pad(~same_row, [[1, 0]], constant_values=True)[: tf.size(rows)]
    run = tf.cumsum(tf.cast(~continues, tf.int32)) - 1
    starts_run = tf.where(~continues)[:, 0]
    rows, is_white, is_first_of_row = (tf.gather(leaf, starts_run) for leaf in (rows, is_white, is_first_of_row))
    values, first = tf.gather(values, starts_run), tf.gather(first, starts_run)
    last = tf.math.segment_max(last, run)
    is_last_of_row = tf.pad(~tf.equal(rows[1:], rows[:-1]), [[0, 1]], constant_values=True)[: tf.size(rows)]
    kept = ~(is_white & (is_first_of_row | is_last_of_row))
    rows, is_white, first, last = keep(kept, rows, is_white, first, last)
    sizes = tf.where(is_white, 1, tf.boolean_mask(_utf8_size(values), kept))

    def ragged(flat: tf.Tensor) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_value_rowids(flat, tf.cast(rows, tf.int64), tf.size(text, tf.int64), validate=False)

    folded_ends = tf.cumsum(ragged(sizes).to_tensor(0), axis=-1)
    folded_ends = tf.pad(folded_ends, [[0, 0], [0, 1]], constant_values=tf.int32.max)  # [N, C + 1], of characters
    number_of_end = tf.searchsorted(folded_ends, tf.maximum(ends, 1))
    number_of_start = tf.searchsorted(folded_ends, starts, side="right")

    def place(flat: tf.Tensor, number: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        """The value of `flat` at character `number`, less the bytes from the offset to the character's folded end."""
        table = tf.pad(ragged(flat).to_tensor(0), [[0, 0], [0, 1]])
        less = tf.gather(folded_ends, number, batch_dims=1) - offsets
        return tf.where(number < tf.shape(table)[1] - 1, tf.gather(table, number, batch_dims=1) - less, 0)

    first_places, last_places = place(first + sizes, number_of_start, starts), place(last, number_of_end, ends)
    is_empty = starts >= ends
    return (
        tf.where(is_empty & (starts > 0), last_places, first_places),
        tf.where(is_empty & (starts <= 0), first_places, last_places),
    )


def _is_useless_joiner(rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """bool [C]: which of the characters [C], in rows [C], are joiners at the start of a row or after a character that
    is never joined."""
    is_joiner = _is_in(values, white_space.JOINERS)
    others = tf.where(~is_joiner)[:, 0]
    place = tf.cumsum(tf.cast(~is_joiner, tf.int64)) - 1  # in `others`, of the last one that is no joiner
    before = tf.gather(tf.pad(others, [[0, 1]]), tf.maximum(place, 0))
    joined = (place >= 0) & tf.equal(tf.gather(tf.pad(rows, [[0, 1]], constant_values=-1), before), rows)
    joined &= ~_is_in(tf.gather(tf.pad(values, [[0, 1]]), before), white_space.NEVER_JOINED)
    return is_joiner & ~joined


def _utf8_size(codes: tf.Tensor) -> tf.Tensor:
    return 1 + sum(tf.cast(codes >= bound, tf.int32) for bound in (0x80, 0x800, 0x10000))


def _is_in(codes: tf.Tensor, ranges: white_space.Ranges) -> tf.Tensor:
    found = tf.zeros_like(codes, tf.bool)
    for low, high in ranges:
        found |= (codes >= low) & (codes <= high)
    return found


def _re2(ranges: white_space.Ranges) -> str:
    """A class of characters in a regular expression of RE2's."""
    return "[" + "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in ranges) + "]"

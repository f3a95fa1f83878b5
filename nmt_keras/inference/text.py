"""From strings to source ids and from hypotheses to strings, as graph operations."""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import EOS_ID, UNK_ID
from nmt_keras.data.padding import source_tensor
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.layers.masks import padding_mask
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space_ops import fold_tf, spans_before_folding

_REPLACEMENT = 0xFFFD
CONTROL = r"[\x00-\x08\x0A-\x1F\x7F]"  # all but the tab: a line stays a line


class Source(NamedTuple):
    """A batch of B texts, S ids at most."""

    text: tf.Tensor  # string [B], valid UTF-8, of at most `max_source_characters`
    ids: tf.Tensor  # int32 [B, S], each with EOS
    truncated: tf.Tensor  # bool [B], whether a limit cut the text

    @property
    def lengths(self) -> tf.Tensor:
        """Ids of each text, EOS included, int32 [B]."""
        return tf.reduce_sum(tf.cast(padding_mask(self.ids), tf.int32), -1)


def is_blank(text: tf.Tensor) -> tf.Tensor:
    """Whether there is nothing to translate in strings of any shape, bool."""
    return tf.equal(fold_tf(text), "")


def cut(text: tf.Tensor, config: DecodingConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Strings [B] as valid UTF-8 of at most `max_source_characters`, and whether that cut them, bool [B]."""
    limit = config.max_source_characters
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.substr(text, 0, limit, unit="UTF8_CHAR"), tf.strings.length(text, "UTF8_CHAR") > limit


def tokenize(tokenizer: Tokenizer, text: tf.Tensor, config: DecodingConfig, tags: tf.Tensor | None = None) -> Source:
    """Strings [B] as the model takes them, with `tags`, int32 [B, K], before their ids."""
    text, truncated = cut(text, config)
    ids = tokenizer.encode_tf(fold_tf(text))  # folded for tokenizers of old runs too, which do not fold
    limit = config.max_source_length
    lengths = ids.row_lengths() + (0 if tags is None else tf.shape(tags, tf.int64)[1])
    return Source(text, source_tensor(ids, limit, tags), truncated | (lengths >= limit))


def at_least_two_rows(source: Source, others: Any = ()) -> tuple[Source, Any]:
    """Pads a batch to two rows with empty texts, and tensors [B, ...], or None, with zeros: one row alone rounds
    differently."""
    missing = tf.maximum(2 - tf.shape(source.text)[0], 0)
    size = tf.shape(source.ids)[1]
    width = tf.maximum(size, 1)
    ends = tf.pad(tf.fill([missing, 1], EOS_ID), [[0, 0], [0, width - 1]])
    ids = tf.concat([tf.pad(source.ids, [[0, 0], [0, width - size]]), ends], 0)

    def padded(leaf):
        return None if leaf is None else tf.pad(leaf, [[0, missing]] + [[0, 0]] * (leaf.shape.rank - 1))

    text = tf.concat([source.text, tf.fill([missing], "")], 0)
    return Source(text, ids, padded(source.truncated)), tf.nest.map_structure(padded, others)


def source_spans(tokenizer: Tokenizer, source: Source, num_tags: int | tf.Tensor = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes of the text where each source piece starts and ends, int32 [B, S] each; 0 for the `num_tags` before
    them, for EOS and beyond."""
    _, *spans = tokenizer.encode_with_offsets_tf(fold_tf(source.text))
    size = tf.shape(source.ids)[1]
    found = spans_before_folding(source.text, *(offsets[:, : size - 1 - num_tags].to_tensor(0) for offsets in spans))
    is_piece = tf.sequence_mask(source.lengths - 1, size)

    def padded(offsets):
        padding = [[0, 0], [num_tags, size - num_tags - tf.shape(offsets)[1]]]
        return tf.where(is_piece, tf.pad(offsets, padding), 0)

    return padded(found[0]), padded(found[1])


def detokenize(
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    config: DecodingConfig,
    source: Source,
    hypotheses: Hypotheses,
) -> tuple[tf.Tensor, Hypotheses]:
    """Hypotheses of a batch as text, string [B, N], and the hypotheses: none for a blank source."""
    if config.replace_unknown:
        text = tf.strings.reduce_join(_words(source_tokenizer, target_tokenizer, source, hypotheses), -1)
        text = tf.strings.regex_replace(text, "^ ", "")
    else:
        flat = tf.reshape(hypotheses.ids, [-1, tf.shape(hypotheses.ids)[2]])
        lengths = tf.reshape(hypotheses.lengths, [-1])
        text = target_tokenizer.decode_tf(tf.RaggedTensor.from_tensor(flat, lengths=lengths))
        text = tf.reshape(text, tf.shape(hypotheses.lengths))
    text = tf.strings.regex_replace(text, CONTROL, " ")
    blank = is_blank(source.text)

    def unless_blank(leaf):
        return tf.where(tf.reshape(blank, [-1] + [1] * (leaf.shape.rank - 1)), tf.zeros_like(leaf), leaf)

    return tf.nest.map_structure(unless_blank, (text, hypotheses))


def target_spans(
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    config: DecodingConfig,
    source: Source,
    hypotheses: Hypotheses,
    text: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes of a translation, string [B, N], where each piece starts and ends, int32 [B, N, L] each.

    A character that is spread over several pieces belongs to the last of them.
    """
    if config.replace_unknown:
        surfaces = _words(source_tokenizer, target_tokenizer, source, hypotheses)
    else:
        surfaces = tf.gather(tf.constant(surfaces_of(target_tokenizer)), hypotheses.ids)
    shape = tf.shape(surfaces)
    raw = tf.reshape(tf.strings.reduce_join(surfaces, -1), [-1])
    raw_ends = tf.reshape(tf.cumsum(tf.strings.length(surfaces), axis=-1), [-1, shape[2]])
    ends = _decoded_places(raw, raw_ends, target_tokenizer.replaces_each_byte)
    text_length = tf.strings.length(tf.reshape(text, [-1]))[:, None]
    begins_with_space = (tf.strings.substr(raw, 0, 1) == " ")[:, None]
    stripped = tf.where(begins_with_space, tf.maximum(ends[:, -1:] - text_length, 0), 0)
    ends = tf.clip_by_value(ends - stripped, 0, text_length)
    starts = tf.pad(ends[:, :-1], [[0, 0], [1, 0]])
    is_piece = tf.sequence_mask(hypotheses.lengths - 1, shape[2])
    return tuple(tf.where(is_piece, tf.reshape(offsets, shape), 0) for offsets in (starts, ends))


def _decoded_places(raw: tf.Tensor, places: tf.Tensor, replaces_each_byte: bool) -> tf.Tensor:
    """Maps byte positions `places`, int32 [N, L], in strings [N] of any bytes to positions in the decoded strings.

    A position inside a character moves to its start. Bytes that make no character are decoded to U+FFFD, three bytes:
    a run of them to one U+FFFD, or with `replaces_each_byte` to one each.
    """
    codes, starts = tf.strings.unicode_decode_with_offsets(raw, "UTF-8", errors="replace")
    rows, starts = codes.value_rowids(), starts.with_values(tf.cast(starts.values, tf.int32))
    raw_lengths = tf.strings.length(raw)
    is_last = tf.range(tf.size(rows)) == tf.gather(tf.cast(codes.row_limits(), tf.int32), rows) - 1
    ends = tf.where(is_last, tf.gather(raw_lengths, rows), tf.concat([starts.values[1:], [0]], 0))
    sizes = 1 + sum(tf.cast(codes.values >= bound, tf.int32) for bound in (0x80, 0x800, 0x10000))
    broken = tf.zeros_like(codes.values, tf.bool)
    if replaces_each_byte:
        doubtful = tf.where(codes.values == _REPLACEMENT)[:, 0]
        own = tf.strings.substr(
            tf.gather(raw, tf.gather(rows, doubtful)),
            tf.gather(starts.values, doubtful),
            tf.gather(ends - starts.values, doubtful),
        )
        is_broken = own != chr(_REPLACEMENT)
        broken = tf.tensor_scatter_nd_update(broken, doubtful[:, None], is_broken)
        sizes = tf.where(broken, 3 * (ends - starts.values), sizes)

    def padded(values, padding_row):
        return codes.with_values(values).to_tensor(padding_row)

    char_ends = padded(ends, tf.int32.max)
    number = tf.searchsorted(char_ends, places, side="right")  # of characters that end before
    before = tf.pad(tf.cumsum(padded(sizes, 0), axis=-1), [[0, 0], [1, 0]])
    inside = tf.gather(tf.pad(padded(starts.values, 0), [[0, 0], [0, 1]]), number, batch_dims=1)
    is_inside_broken = tf.gather(tf.pad(padded(broken, False), [[0, 0], [0, 1]]), number, batch_dims=1)
    decoded = tf.gather(before, number, batch_dims=1)
    return decoded + tf.where(is_inside_broken, 3 * tf.maximum(places - inside, 0), 0)


def pieces(tokenizer: Tokenizer, ids: tf.Tensor) -> tf.Tensor:
    """Ids of any shape as the pieces' names; empty at padding."""
    names = tf.constant(["", *(tokenizer.piece(number) for number in range(1, tokenizer.vocab_size))])
    return tf.gather(names, ids)


def alignment(hypotheses: Hypotheses) -> tf.Tensor:
    """The place of the source piece that each piece reads most, int32 [B, N, L]; -1 where it reads none, for EOS and
    beyond."""
    is_piece = tf.sequence_mask(hypotheses.lengths - 1, tf.shape(hypotheses.ids)[2])
    is_aligned = is_piece & tf.reduce_any(hypotheses.attention_weights > 0.0, -1)
    return tf.where(is_aligned, tf.argmax(hypotheses.attention_weights, -1, output_type=tf.int32), -1)


def surfaces_of(tokenizer: Tokenizer) -> list[bytes]:
    """What each id adds to a text."""
    return [tokenizer.surface(number) for number in range(tokenizer.vocab_size)]


def _words(
    source_tokenizer: Tokenizer, target_tokenizer: Tokenizer, source: Source, hypotheses: Hypotheses
) -> tf.Tensor:
    """Words with the space before them, string [B, N, L]; an unknown word becomes the source word that it reads most
    (Luong et al. 2015, Addressing the Rare Word Problem; Jean et al. 2015)."""
    surfaces, places = tf.gather(tf.constant(surfaces_of(target_tokenizer)), hypotheses.ids), alignment(hypotheses)
    words = tf.strings.join([" ", source_tokenizer.words_tf(source.text).to_tensor("")])
    words = tf.pad(words, [[0, 0], [0, 1]], constant_values="")  # EOS reads as nothing
    last = tf.shape(words)[1] - 1
    read = tf.gather(words, tf.clip_by_value(places, 0, last), batch_dims=1)
    is_unknown = (hypotheses.ids == UNK_ID) & (places >= 0) & (places < (source.lengths - 1)[:, None, None])
    return tf.where(is_unknown, read, surfaces)

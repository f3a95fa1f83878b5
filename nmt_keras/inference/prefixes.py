"""Beginnings of translations: from strings to what a search takes."""

import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import PAD_ID, UNK_ID
from nmt_keras.decoding.prefixes import Prefix, Surfaces, make_prefix
from nmt_keras.inference.text import cut
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space_ops import fold_tf


def tokenize_prefixes(
    tokenizer: Tokenizer, surfaces: Surfaces, text: tf.Tensor, config: DecodingConfig
) -> tuple[Prefix, tf.Tensor]:
    """Cuts beginnings of translations into pieces.

    White space is folded, and a space at the end is kept: the next word then begins after it.

    Args:
        tokenizer: of the target.
        surfaces: of its vocabulary.
        text: string [B], characters that a translation begins with; "" is none.
        config: of the search.

    Returns:
        The beginnings, and whether each is all of its text, bool [B]. From the first character on that the vocabulary
        cannot write it is left out, and what `max_length` leaves no room for.
    """
    text, is_cut = cut(text, config)
    ends_with_space = tf.strings.regex_full_match(fold_tf(tf.strings.join([text, "x"])), "(?s).* x")
    text = fold_tf(text)
    pieces, _, piece_ends = tokenizer.encode_with_offsets_tf(text)
    all_ids = tf.cast(pieces.to_tensor(PAD_ID), tf.int32)
    is_known = tf.cumsum(tf.cast(all_ids == UNK_ID, tf.int32), axis=1) == 0
    ids = tf.where(is_known, all_ids, PAD_ID)[:, : config.max_length]
    ends = tf.where(is_known & (all_ids != PAD_ID), tf.cast(piece_ends.to_tensor(0), tf.int32), 0)
    written = tf.reduce_max(tf.pad(ends, [[0, 0], [0, 1]]), 1)
    tails = tf.strings.substr(text, written, tf.strings.length(text) - written)
    tails = tf.where(ends_with_space, tf.strings.join([tails, " "]), tails)
    if tokenizer.surface(tokenizer.encode("a")[0]).startswith(b" "):  # text begins as if a space stood before it
        tails = tf.where((written == 0) & (tails != ""), tf.strings.join([" ", tails]), tails)
    prefix, has_tail = make_prefix(ids, tails, surfaces)
    return prefix, has_tail & ~is_cut

"""Terms of translations: from strings to what a search takes.

The terms of a text are one string, which a signature can take: a term a line, and the ways to say it between tabs.
"""

import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import PAD_ID, UNK_ID
from nmt_keras.data.scripts import WITHOUT_SPACES, is_letter
from nmt_keras.decoding.terms import Letters, Terms
from nmt_keras.inference.glossary import MAX_CHARACTERS, MAX_TERMS
from nmt_keras.inference.text import surfaces_of
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space_ops import fold_tf

_MAX_PHRASES = 32  # of a text: the ways to say its terms, each term's first before any second
_MAX_WAYS = 16  # of a term, that are looked at
_MAX_IDS = 24  # of a phrase
_COMMA = "，"  # of scripts without spaces: a phrase after it is cut as one in the midst of a sentence


def tokenize_terms(tokenizer: Tokenizer, letters: Letters, text: tf.Tensor, config: DecodingConfig) -> Terms:
    """Cuts terms into pieces.

    A phrase that begins in a script without spaces is cut twice, as the beginning of a text and as what goes on with
    one. One that the vocabulary cannot write, or that has more than 24 ids or than a translation may have, is none.

    Args:
        tokenizer: of the target.
        letters: of its vocabulary.
        text: string [B], terms a line, phrases between tabs; "" is none.
        config: of the search.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = tf.strings.substr(text, 0, MAX_TERMS * _MAX_WAYS * MAX_CHARACTERS, unit="UTF8_CHAR")
    lines = tf.strings.split(text, "\n")[:, :MAX_TERMS]
    phrases = tf.strings.split(lines.values, "\t")[:, :_MAX_WAYS]
    flat = fold_tf(phrases.values)
    owners = tf.gather(_places_in_rows(lines), phrases.value_rowids())
    rows = tf.gather(lines.value_rowids(), phrases.value_rowids())
    fits = (flat != "") & (tf.strings.length(flat, "UTF8_CHAR") <= MAX_CHARACTERS)
    begins_anywhere = fits & tf.strings.regex_full_match(flat, f"(?s){WITHOUT_SPACES.pattern}.*")
    inside, is_cut_there = _cut_inside(tokenizer, tf.where(begins_anywhere, flat, ""))
    every = [(tokenizer.encode_tf(tf.where(fits, flat, "")), fits), (inside, begins_anywhere & is_cut_there)]
    ids = tf.concat([each for each, _ in every], 0)
    is_known = tf.reduce_all(ids != UNK_ID, 1)
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    fits_search = (lengths > 0) & (lengths <= min(_MAX_IDS, config.max_length - 1))
    is_phrase = tf.concat([each for _, each in every], 0) & is_known & fits_search
    ways = _places_in_rows(phrases)
    turns = tf.concat([2 * ways, 2 * ways + 1], 0)  # of a term's phrases: of too many the last are left out
    rows, owners = (tf.concat([each, each], 0) for each in (rows, owners))
    rows, owners, turns = (tf.boolean_mask(each, is_phrase) for each in (rows, owners, turns))
    order = tf.argsort(rows * (2 * _MAX_WAYS) + tf.cast(turns, rows.dtype), stable=True)
    padded = tf.cast(tf.ragged.boolean_mask(ids, is_phrase).to_tensor(PAD_ID), tf.int32)

    def by_row(values: tf.Tensor) -> tf.Tensor:
        """[phrases, ...] to [B, P, ...]; P is at least 1, and so is L."""
        gathered = tf.RaggedTensor.from_value_rowids(
            tf.gather(values, order), tf.gather(rows, order), tf.size(text, tf.int64)
        )
        dense = gathered[:, :_MAX_PHRASES].to_tensor(0)
        missing = [[0, 0]] + [[0, tf.maximum(1 - size, 0)] for size in tf.unstack(tf.shape(dense)[1:])]
        return tf.pad(dense, missing)

    count = tf.cast(lines.bounding_shape(1), tf.int32)
    return Terms(by_row(padded), by_row(tf.cast(owners, tf.int32)), count, letters)


def letters_of(tokenizer: Tokenizer) -> Letters:
    """Which ids of a vocabulary begin and end with a letter, a digit or a mark, of scripts with spaces."""
    return Letters.of(surfaces_of(tokenizer), is_letter)


def num_terms(text: tf.Tensor) -> tf.Tensor:
    """How many terms, int32 [B], are in strings [B]; at most those that are looked at."""
    lines = tf.cast(tf.strings.split(text, "\n").row_lengths(), tf.int32)
    return tf.where(text == "", 0, tf.minimum(lines, MAX_TERMS))


def _places_in_rows(lines: tf.RaggedTensor) -> tf.Tensor:
    """The place of each value in its row, int32."""
    starts = tf.gather(lines.row_starts(), lines.value_rowids())
    return tf.cast(tf.range(tf.size(lines.values, tf.int64)) - starts, tf.int32)


def _cut_inside(tokenizer: Tokenizer, phrases: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """The ids of phrases as of the midst of a text, and whether a piece begins where the phrase does, bool."""
    ids, starts, _ = tokenizer.encode_with_offsets_tf(tf.strings.join([_COMMA, phrases]))
    size = len(_COMMA.encode("utf-8"))
    starts = tf.cast(starts.values, tf.int32)
    inside = ids.with_values(starts >= size)
    begins = tf.reduce_any(ids.with_values(starts == size), 1)
    return tf.ragged.boolean_mask(ids, inside), begins

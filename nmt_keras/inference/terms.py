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

_MAX_PHRASES = 64  # of a text: the ways to say its terms, each term's first before any second
_MAX_WAYS = 16  # of a term, that are looked at
_MAX_IDS = 24  # of a phrase
_COMMA = "，"  # of scripts without spaces: a phrase after it is cut as one that no space is before
# What a phrase begins with that a translation may have no space before.
_BEGINS_ANYWHERE = rf"(?s)(?:{WITHOUT_SPACES.pattern}|[^\pL\pN\pM]).*"


def tokenize_terms(tokenizer: Tokenizer, letters: Letters, text: tf.Tensor, config: DecodingConfig) -> Terms:
    """Cuts terms into pieces.

    A phrase is cut twice, as the beginning of a text and as what no space is before: a search finds both, "shirt" in
    "a shirt" and in "T-shirt", and offers the second where the script has no spaces or the phrase begins with no
    letter. A phrase that is no UTF-8, that the vocabulary cannot write, or that has more than 24 ids or than a
    translation may have, is none.

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
    fits &= ~tf.strings.regex_full_match(flat, "(?s).*\ufffd.*")
    flat = tf.where(fits, flat, "")
    begins_anywhere = tf.strings.regex_full_match(flat, _BEGINS_ANYWHERE)
    first, (inside, is_cut_there) = tokenizer.encode_tf(flat), _cut_inside(tokenizer, flat)
    every = [(first, fits), (inside, fits & is_cut_there & ~_are_equal(first, inside))]
    ids = tf.concat([each for each, _ in every], 0)
    is_known = tf.reduce_all(ids != UNK_ID, 1)
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    fits_search = (lengths > 0) & (lengths <= min(_MAX_IDS, config.max_length - 1))
    is_phrase = tf.concat([each for _, each in every], 0) & is_known & fits_search
    ways = _places_in_rows(phrases)
    # Of a term's phrases: of too many the last are left out, at first those that are not offered.
    turns = tf.concat([2 * ways, 2 * ways + tf.where(begins_anywhere, 1, 1 + 2 * _MAX_WAYS)], 0)
    is_offered = tf.concat([fits, begins_anywhere], 0)
    rows, owners = (tf.concat([each, each], 0) for each in (rows, owners))
    rows, owners, turns, is_offered = (tf.boolean_mask(each, is_phrase) for each in (rows, owners, turns, is_offered))
    order = tf.argsort(rows * (4 * _MAX_WAYS) + tf.cast(turns, rows.dtype), stable=True)
    padded = tf.cast(tf.ragged.boolean_mask(ids, is_phrase).to_tensor(PAD_ID), tf.int32)

    def by_row(values: tf.Tensor) -> tf.Tensor:
        """[phrases, ...] to [B, P, ...]; P is at least 1, and so is L."""
        gathered = tf.RaggedTensor.from_value_rowids(
            tf.gather(values, order), tf.gather(rows, order), tf.size(text, tf.int64)
        )
        dense = gathered[:, :_MAX_PHRASES].to_tensor(tf.zeros([], values.dtype))
        missing = [[0, 0]] + [[0, tf.maximum(1 - size, 0)] for size in tf.unstack(tf.shape(dense)[1:])]
        return tf.pad(dense, missing)

    count = tf.cast(lines.bounding_shape(1), tf.int32)
    return Terms(by_row(padded), by_row(tf.cast(owners, tf.int32)), by_row(is_offered), count, letters)


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


def _are_equal(first: tf.RaggedTensor, second: tf.RaggedTensor) -> tf.Tensor:
    """Which rows of ids, [N, (ids)], are equal, bool [N]."""
    dense = [each.to_tensor(PAD_ID) for each in (first, second)]
    width = tf.reduce_max([tf.shape(each)[1] for each in dense])
    padded = [tf.pad(each, [[0, 0], [0, width - tf.shape(each)[1]]], constant_values=PAD_ID) for each in dense]
    return tf.reduce_all(tf.equal(*padded), 1)


def _cut_inside(tokenizer: Tokenizer, phrases: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """The ids of phrases as of the midst of a text, and whether a piece begins where the phrase does, bool."""
    ids, starts, _ = tokenizer.encode_with_offsets_tf(tf.strings.join([_COMMA, phrases]))
    size = len(_COMMA.encode("utf-8"))
    starts = tf.cast(starts.values, tf.int32)
    inside = ids.with_values(starts >= size)
    begins = tf.reduce_any(ids.with_values(starts == size), 1)
    return tf.ragged.boolean_mask(ids, inside), begins

"""Text longer than a sentence, as graph operations: split, translated and joined in order.

Rules, not a model: a sentence ends at its punctuation, before a letter that may begin one, and at a line feed.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.batching import source_tensor
from nmt_keras.data.tokenizer import Tokenizer
from nmt_keras.inference.text import Source, cut, is_blank

_MARK = "\x1e"  # ASCII's record separator
_ENDS = (
    (r"\s*[\n\x1e]\s*", r"\x1e"),
    (r"([。！？｡]+[”’」』）》〉】]*)", r"\1\x1e"),
    (r"([؟۔।॥]+)\s+", r"\1\x1e"),
    (r"([.!?…]+[\"'”’»)\]]*)\s+([\"'“‘«(\[¿¡]*[\p{Lu}\p{Lt}\p{Lo}\p{N}])", r"\1\x1e\2"),
)
_NO_ENDS = (
    (
        r"\b(Mr|Mrs|Ms|Dr|Prof|Rev|Hon|Gen|Col|Capt|Sgt|Lt|Gov|Sen|Rep|Pres|St|Mt|Jr|Sr|vs|cf|ca|approx|e\.g|i\.e"
        r"|Hr|Fr|Mme|Mlle|bzw|z\.\s?B|d\.\s?h|\p{Lu}|\d{1,2})\.\x1e",
        r"\1. ",
    ),
    (r"\b(No|Nos|Nr|Fig|Figs|Vol|pp?)\.\x1e(\p{N})", r"\1. \2"),
)
_NO_SPACE_AFTER = r"([\p{Han}\p{Hiragana}\p{Katakana}。！？，、；：｡」』）》〉】][”’…]*)\x1e+"


class _Parts(NamedTuple):
    """What is translated of B texts: P parts in all, and an empty one at the end."""

    text: tf.Tensor  # string [P + 1]
    ids: tf.RaggedTensor  # int32 [P + 1, None], without EOS
    counts: tf.Tensor  # int64 [B], parts of each text


def split_sentences(text: tf.Tensor) -> tf.RaggedTensor:
    """The sentences of strings [B], string [B, None]; none of a blank text."""
    for pattern, rewrite in _ENDS + _NO_ENDS:
        text = tf.strings.regex_replace(text, pattern, rewrite.replace(r"\x1e", _MARK))
    sentences = tf.strings.split(text, _MARK)
    sentences = tf.ragged.map_flat_values(tf.strings.strip, sentences)
    return tf.ragged.boolean_mask(sentences, tf.ragged.map_flat_values(lambda text: ~is_blank(text), sentences))


def join_sentences(sentences: tf.RaggedTensor) -> tf.Tensor:
    """Sentences [B, None] as texts [B], with a space between two unless the script has none there."""
    text = tf.strings.reduce_join(sentences, -1, separator=_MARK)
    text = tf.strings.regex_replace(text, f"^{_MARK}+|{_MARK}+$", "")
    return tf.strings.regex_replace(tf.strings.regex_replace(text, _NO_SPACE_AFTER, r"\1"), f"{_MARK}+", " ")


def translate_paragraphs(
    translate: Callable[[Source], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    tokenizer: Tokenizer,
    config: DecodingConfig,
    text: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Translates texts of any number of sentences, `batch_sentences` at a time; those of similar length together.

    A sentence over the model's limit is translated in as many parts as it needs.

    Args:
        translate: of a `Source`, texts, log probabilities and scores, [rows] each.
        tokenizer: of the source.
        config: of the search.
        text: string [B].

    Returns:
        Translations, string [B]; the sums of their sentences' log probabilities and scores, float32 [B] each; whether
        `max_source_characters` cut the text, bool [B].
    """
    text, truncated = cut(text, config)
    parts = _split(tokenizer, split_sentences(text), config.max_source_length - 1)
    order = tf.argsort(parts.ids.row_lengths(), direction="DESCENDING", stable=True)
    count, size = tf.shape(order)[0], config.batch_sentences
    groups = -(-count // size)

    def translate_group(number, *arrays):
        rows = order[number * size : (number + 1) * size]
        ids = source_tensor(tf.gather(parts.ids, rows), config.max_source_length)
        found = translate(Source(tf.gather(parts.text, rows), ids, tf.fill(tf.shape(rows), False)))
        return number + 1, *(array.write(number, value) for array, value in zip(arrays, found))

    arrays = [
        tf.TensorArray(dtype, groups, infer_shape=False, element_shape=[None])
        for dtype in (tf.string, tf.float32, tf.float32)
    ]
    _, *arrays = tf.while_loop(
        lambda number, *_: number < groups, translate_group, (tf.constant(0), *arrays), parallel_iterations=1
    )
    places = tf.argsort(order)[:-1]
    translations, log_probs, scores = (
        tf.RaggedTensor.from_row_lengths(tf.gather(array.concat(), places), parts.counts) for array in arrays
    )
    return join_sentences(translations), tf.reduce_sum(log_probs, -1), tf.reduce_sum(scores, -1), truncated


def _split(tokenizer: Tokenizer, sentences: tf.RaggedTensor, limit: int) -> _Parts:
    """Cuts sentences into parts of at most `limit` ids."""
    ids, span_starts, span_ends = tokenizer.encode_with_offsets_tf(sentences.values)
    starts = tf.ragged.range(ids.row_starts(), ids.row_limits(), limit)
    splits = tf.concat([starts.values, [tf.size(ids.values, tf.int64)]], 0)
    text_starts = tf.gather(span_starts.values, splits[:-1])
    text_sizes = tf.gather(span_ends.values, splits[1:] - 1) - text_starts
    text = tf.strings.substr(tf.gather(sentences.values, starts.value_rowids()), text_starts, text_sizes)
    counts = tf.reduce_sum(sentences.with_values(starts.row_lengths()), -1)
    splits = tf.concat([splits, splits[-1:]], 0)
    return _Parts(tf.concat([text, [""]], 0), tf.RaggedTensor.from_row_splits(ids.values, splits), counts)

"""A tokenizer of words."""

import tensorflow as tf

from nmt_keras.tokenizers.symbols import SymbolTokenizer
from nmt_keras.tokenizers.white_space_ops import fold_tf

_ASCII_SPACE = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")


class WordTokenizer(SymbolTokenizer):
    """Words between ASCII white space. The training log reports the share of words that are not in the list."""

    kind = "word"
    separator = " "

    @staticmethod
    def split(text: str) -> list[str]:
        return [
            word.decode("utf-8") for word in text.encode("utf-8", errors="replace").split()
        ]  # bytes split at ASCII space, as TF does

    def words_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        return self.split_tf(fold_tf(text))

    @staticmethod
    def split_tf(text: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.split(text)

    @staticmethod
    def spans_tf(text: tf.Tensor, symbols: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        bytes_ = tf.strings.bytes_split(tf.strings.join([" ", text, " "]))
        is_space = tf.reduce_any(bytes_.values[:, None] == list(_ASCII_SPACE), -1)
        turns = tf.where(is_space[1:] != is_space[:-1])[:, 0]  # each row begins and ends with space
        row_starts = tf.cast(tf.gather(bytes_.row_starts(), symbols.value_rowids()), tf.int32)
        starts, ends = (
            symbols.with_values(tf.cast(places, tf.int32) - row_starts) for places in (turns[::2], turns[1::2])
        )
        return starts, ends

"""What tokenizers with a list of symbols share."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from nmt_keras.constants import UNK_ID
from nmt_keras.tokenizers.base import NUM_SPECIALS, SPECIALS, UNK_SURFACE, hash_of, without_specials, write_card
from nmt_keras.tokenizers.white_space import fold
from nmt_keras.tokenizers.white_space_ops import fold_tf


class SymbolTokenizer:
    """Ids by place in a list of symbols; what is not in the list is UNK. Subclasses split and join."""

    kind: str
    samples = False
    replaces_each_byte = False

    def __init__(self, symbols: Sequence[str], folds: bool = True):
        self.folds = folds
        self._symbols = list(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(symbols, NUM_SPECIALS)}
        self.vocab_size = NUM_SPECIALS + len(self._symbols)
        self._table: tf.lookup.StaticHashTable | None = None

    @classmethod
    def train(cls, sentences: Iterable[str], vocab_size: int) -> "SymbolTokenizer":
        """The `vocab_size` - 4 most frequent symbols; ties go to the smaller one."""
        counts = Counter(symbol for sentence in sentences for symbol in cls.split(fold(sentence)))
        ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        return cls(ranked[: max(vocab_size - NUM_SPECIALS, 0)])

    @staticmethod
    def split(text: str) -> list[str]:
        raise NotImplementedError

    @staticmethod
    def split_tf(text: tf.Tensor) -> tf.RaggedTensor:
        raise NotImplementedError

    separator: str

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(symbol, UNK_ID) for symbol in self.split(fold(text) if self.folds else text)]

    def sample(self, texts: Sequence[str], alpha: float, seeds: Sequence[int]) -> list[list[int]]:
        raise NotImplementedError("this tokenizer has one segmentation of a text")

    def decode(self, ids: Sequence[int]) -> str:
        return self.separator.join(
            UNK_SURFACE if i == UNK_ID else self._symbols[i - NUM_SPECIALS]
            for i in ids
            if i == UNK_ID or i >= NUM_SPECIALS
        )

    def encode_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tf.ragged.map_flat_values(self.resource().lookup, self.split_tf(fold_tf(text) if self.folds else text))

    def encode_with_offsets_tf(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        text = fold_tf(text) if self.folds else text
        symbols = self.split_tf(text)
        ids = tf.ragged.map_flat_values(self.resource().lookup, symbols)
        return ids, *self.spans_tf(text, symbols)

    @staticmethod
    def spans_tf(text: tf.Tensor, symbols: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """The bytes of strings [N] where the symbols that `split_tf` made of them start and end."""
        raise NotImplementedError

    def words_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        raise NotImplementedError("the ids of this tokenizer are not of words")

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        surfaces = tf.constant(["", UNK_SURFACE, "", "", *self._symbols])
        pieces = tf.ragged.map_flat_values(lambda i: tf.gather(surfaces, i), without_specials(ids))
        return tf.strings.reduce_join(pieces, axis=-1, separator=self.separator)

    def piece(self, token_id: int) -> str:
        return SPECIALS.get(token_id) or self._symbols[token_id - NUM_SPECIALS]

    def control_id(self, piece: str) -> int | None:
        return None

    def begins_word(self, token_id: int) -> bool:
        return self.surface(token_id).startswith(b" ")

    def surface(self, token_id: int) -> bytes:
        if token_id < NUM_SPECIALS and token_id != UNK_ID:
            return b""
        symbol = UNK_SURFACE if token_id == UNK_ID else self._symbols[token_id - NUM_SPECIALS]
        return (self.separator + symbol).encode("utf-8")

    def resource(self) -> Any:
        if self._table is None:
            with tf.init_scope():
                self._table = tf.lookup.StaticHashTable(
                    tf.lookup.KeyValueTensorInitializer(
                        tf.constant(self._symbols, tf.string), tf.range(NUM_SPECIALS, self.vocab_size)
                    ),
                    UNK_ID,
                )
        return self._table

    def renew(self) -> None:
        self._table = None

    def save(self, folder: pathlib.Path) -> None:
        write_card(folder, {"kind": self.kind, "symbols": self._symbols}, self.folds)

    @property
    def sha256(self) -> str:
        return hash_of(json.dumps([self.kind, self._symbols]).encode(), self.folds)

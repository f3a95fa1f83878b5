"""Tokenizers of bytes and of Unicode code points."""

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nmt_keras.tokenizers.base import NUM_SPECIALS, SPECIALS, hash_of, spans, write_card
from nmt_keras.tokenizers.symbols import SymbolTokenizer
from nmt_keras.tokenizers.white_space import fold
from nmt_keras.tokenizers.white_space_ops import fold_tf


class ByteTokenizer:
    """The bytes of the text's UTF-8 form (Xue et al. 2022): byte b is the id b + 4, and nothing is unknown."""

    vocab_size = NUM_SPECIALS + 256
    samples = False
    replaces_each_byte = False

    def __init__(self, folds: bool = True):
        self.folds = folds

    def encode(self, text: str) -> list[int]:
        text = fold(text) if self.folds else text
        return [byte + NUM_SPECIALS for byte in text.encode("utf-8", errors="replace")]

    def sample(self, texts: Sequence[str], alpha: float, seeds: Sequence[int]) -> list[list[int]]:
        raise NotImplementedError("this tokenizer has one segmentation of a text")

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - NUM_SPECIALS for i in ids if i >= NUM_SPECIALS).decode("utf-8", errors="replace")

    def encode_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        raw = tf.strings.bytes_split(fold_tf(text) if self.folds else text)
        return tf.ragged.map_flat_values(
            lambda s: tf.cast(tf.reshape(tf.io.decode_raw(s, tf.uint8), [-1]), tf.int32) + NUM_SPECIALS, raw
        )

    def encode_with_offsets_tf(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        ids = self.encode_tf(text)
        return ids, *spans(ids.with_values(tf.ones_like(ids.values)))

    def words_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        raise NotImplementedError("the ids of this tokenizer are not of words")

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        kept = tf.ragged.boolean_mask(ids, ids >= NUM_SPECIALS)
        table = tf.constant([bytes([b]) for b in range(256)])
        pieces = tf.ragged.map_flat_values(lambda i: tf.gather(table, i - NUM_SPECIALS), kept)
        joined = tf.strings.reduce_join(pieces, axis=-1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def piece(self, token_id: int) -> str:
        return SPECIALS.get(token_id) or f"<0x{token_id - NUM_SPECIALS:02X}>"

    def control_id(self, piece: str) -> int | None:
        return None

    def begins_word(self, token_id: int) -> bool:
        return self.surface(token_id) == b" "

    def surface(self, token_id: int) -> bytes:
        return bytes([token_id - NUM_SPECIALS]) if token_id >= NUM_SPECIALS else b""

    def resource(self) -> Any:
        return None

    def renew(self) -> None:
        pass

    def save(self, folder: pathlib.Path) -> None:
        write_card(folder, {"kind": "byte"}, self.folds)

    @property
    def sha256(self) -> str:
        return hash_of(b"byte", self.folds)


class CharacterTokenizer(SymbolTokenizer):
    """Unicode code points, spaces included."""

    kind = "char"
    separator = ""

    @staticmethod
    def split(text: str) -> list[str]:
        return list(text)

    @staticmethod
    def split_tf(text: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.unicode_split(text, "UTF-8")

    @staticmethod
    def spans_tf(text: tf.Tensor, symbols: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        return spans(tf.ragged.map_flat_values(tf.strings.length, symbols))

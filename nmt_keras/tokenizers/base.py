"""Text to ids and back, the same for Python strings and for `tf.string` tensors.

Every tokenizer has the special ids of `nmt_keras.constants` at 0..3 and adds none of them itself: BOS and EOS belong to
batching. `encode`/`decode` work on Python strings, `encode_tf`/`decode_tf` in a graph; tests hold them equal. White
space is folded before text is cut into pieces (`white_space.fold`), unless the tokenizer was saved by an older version.
A tokenizer is saved as one folder with `tokenizer.json` and, for SentencePiece, `sentencepiece.model`.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID

SPECIALS = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
NUM_SPECIALS = len(SPECIALS)
UNK_SURFACE = "\u2047"  # what stands for an unknown piece in text


class Tokenizer(Protocol):
    """What every tokenizer does. `N` strings, ragged ids without BOS and EOS."""

    vocab_size: int
    folds: bool  # whether white space is folded first
    samples: bool  # whether `sample` can be called
    replaces_each_byte: bool  # if True, each byte that makes no character is decoded to U+FFFD; else each run of them

    def encode(self, text: str) -> list[int]:
        """The ids of one string."""

    def sample(self, texts: Sequence[str], alpha: float, seeds: Sequence[int]) -> list[list[int]]:
        """A random segmentation of each text by its own seed; equal seeds, equal samples.

        Raises:
            NotImplementedError: not `samples`.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The string of `ids`; special ids but UNK are left out."""

    def encode_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        """The ids, int32 [N, None], of strings [N]."""

    def encode_with_offsets_tf(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """The ids of strings [N], and the byte of its string where each piece starts and ends, int32 [N, None] each.

        The bytes are those of the string as `fold_tf` leaves it, where `folds`. A character that is spread over several
        pieces may belong to the last of them.
        """

    def words_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        """The words of strings [N], string [N, None], where each id is of one word.

        Raises:
            NotImplementedError: ids are of other pieces.
        """

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """The strings [N] of ids, int32 [N, None]."""

    def piece(self, token_id: int) -> str:
        """The piece with that id, as it is shown to people."""

    def control_id(self, piece: str) -> int | None:
        """The id of a control symbol, a piece that no text is cut into; None if there is none of that name."""

    def begins_word(self, token_id: int) -> bool:
        """Whether a space is before the piece, or is the piece: a word between spaces begins with it."""

    def surface(self, token_id: int) -> bytes:
        """What the piece adds to a text, in UTF-8; a character may be spread over several pieces."""

    def resource(self) -> Any:
        """What a module that uses `encode_tf` or `decode_tf` must track to be saved, or None."""

    def renew(self) -> None:
        """Forgets the resource, which is made again when it is needed: `tf.random.set_seed` destroys it
        (tensorflow/text#570)."""

    def save(self, folder: pathlib.Path) -> None:
        """Writes the tokenizer to `folder`, which is made."""

    @property
    def sha256(self) -> str:
        """The hash of everything that decides the ids."""


class Tokenizers(NamedTuple):
    """The tokenizers of both sides; the same object twice where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer


def unknown_rate(tokenizer: Tokenizer, sentences: Iterable[str]) -> float:
    """The share of ids of `sentences` that are UNK."""
    ids = [i for sentence in sentences for i in tokenizer.encode(sentence)]
    return ids.count(UNK_ID) / max(len(ids), 1)


def spans(lengths: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """The starts and ends of consecutive pieces, in bytes, from their lengths; int32 [N, None] each."""
    ends = tf.cumsum(lengths.values)
    starts = ends - lengths.values
    row_starts = tf.concat([starts, [0]], 0)
    first = tf.gather(tf.gather(row_starts, lengths.row_starts()), lengths.value_rowids())
    return lengths.with_values(starts - first), lengths.with_values(ends - first)


def without_specials(ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """Ids, int32 [N, None], without the special ids but UNK."""
    return tf.ragged.boolean_mask(ids, (ids == UNK_ID) | (ids >= NUM_SPECIALS))


def hash_of(content: bytes, folds: bool) -> str:
    """The SHA-256, in hex, of what decides the ids: the content of a tokenizer, and whether it folds."""
    return hashlib.sha256(content + (b" folds" if folds else b"")).hexdigest()


def write_card(folder: pathlib.Path, card: dict, folds: bool) -> None:
    """Writes `tokenizer.json` to a folder, which is made; it says whether the tokenizer folds."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {**card, "folds_white_space": True} if folds else card  # a card without it: does not fold
    (folder / "tokenizer.json").write_text(json.dumps(card, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")

"""Text to ids and back, the same for Python strings and for `tf.string` tensors.

Every tokenizer has the special ids of `nmt_keras.constants` at 0..3 and adds none of them itself: BOS and EOS belong to
batching. `encode`/`decode` work on Python strings, `encode_tf`/`decode_tf` in a graph; tests hold them equal. White
space is folded before text is cut into pieces (`white_space.fold`), unless a tokenizer was saved before that was so. A
tokenizer is saved as one folder with `tokenizer.json` and, for SentencePiece, `sentencepiece.model`.
"""

import functools
import hashlib
import io
import json
import pathlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import sentencepiece
import tensorflow as tf
from google.protobuf import message
from sentencepiece import sentencepiece_model_pb2

from nmt_keras.config import DataConfig
from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt_keras.data.white_space import fold
from nmt_keras.data.white_space_ops import fold_tf
from nmt_keras.errors import UserError

if TYPE_CHECKING:
    import tensorflow_text as tf_text

_SPECIALS = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
NUM_SPECIALS = len(_SPECIALS)
_UNK_SURFACE = "\u2047"  # what stands for an unknown piece in text
WORD_START = "\u2581"  # what SentencePiece writes for a space
_LONGEST_SENTENCE = 4192  # bytes: SentencePiece's trainer passes over longer ones
_ASCII_SPACE = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")


class Tokenizer(Protocol):
    """What every tokenizer does. `N` strings, ragged ids without BOS and EOS."""

    vocab_size: int
    folds: bool  # whether white space is folded first
    samples: bool  # whether `sample` can be called
    replaces_each_byte: bool  # whether each byte that makes no character, or each run of them, is decoded to U+FFFD

    def encode(self, text: str) -> list[int]:
        """The ids of one string."""

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
        """A random segmentation of each text; equal seeds, equal samples.

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
        pieces may be all of the last one's.
        """

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """The strings [N] of ids, int32 [N, None]."""

    def piece(self, token_id: int) -> str:
        """The piece with that id, as it is shown to people."""

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
        """Of everything that decides the ids."""


class SentencePieceTokenizer:
    """SentencePiece unigram (Kudo 2018) or BPE (Sennrich et al. 2016).

    The model may be anyone's: its special pieces are mapped to the project's special ids, wherever it has them, and its
    other pieces follow in the order of their ids.

    Args:
        model: as SentencePiece serializes it.
        folds: whether white space is folded first.

    Raises:
        UserError: `model` is no SentencePiece model.
    """

    replaces_each_byte = True

    def __init__(self, model: bytes, folds: bool = True):
        self._model = model
        self.folds = folds
        try:
            if not model:
                raise RuntimeError("empty model")
            self._quiet_model = _quiet(model)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self._quiet_model)
        except (RuntimeError, message.DecodeError) as error:
            raise UserError(
                "The tokenizer's model is not a SentencePiece model; train one with "
                "sentencepiece or leave the field empty"
            ) from error
        processor = self._processor
        specials = {
            processor.unk_id(): UNK_ID,
            processor.bos_id(): BOS_ID,
            processor.eos_id(): EOS_ID,
            processor.pad_id(): PAD_ID,
        }
        specials.pop(-1, None)
        size = processor.get_piece_size()
        ordinary = [i for i in range(size) if i not in specials]
        self._to_model = np.array([processor.unk_id()] * NUM_SPECIALS + ordinary, np.int32)
        self._from_model = np.empty(size, np.int32)
        self._from_model[ordinary] = np.arange(NUM_SPECIALS, NUM_SPECIALS + len(ordinary))
        for theirs, ours in specials.items():
            self._from_model[theirs] = ours
        self._ids: list[int] = self._from_model.tolist()  # an array takes longer to look up a sentence
        self.vocab_size = len(self._to_model)
        self._graph_tokenizer: "tf_text.SentencepieceTokenizer | None" = None
        spec = sentencepiece_model_pb2.TrainerSpec  # of other types there is one segmentation
        self.samples = _proto(model).trainer_spec.model_type in (spec.UNIGRAM, spec.BPE)

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        model_type: str,
        *,
        character_coverage: float,
        byte_fallback: bool,
        normalization: str,
        may_shrink: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> "SentencePieceTokenizer":
        """Trains a model on `sentences`; the arguments are those of SentencePiece's trainer, but for the last ones.

        SentencePiece passes over sentences of more than 4,192 bytes: they are cut at spaces.

        Args:
            sentences: can be gone through several times.
            vocab_size: of the model.
            model_type: unigram or bpe.
            character_coverage: of the characters of the text, the share that gets pieces of its own.
            byte_fallback: the others are written as bytes.
            normalization: the name of a rule.
            may_shrink: whether a vocabulary that the text cannot fill becomes smaller, and is not refused.
            report: takes a line for the user.

        Raises:
            UserError: the text cannot fill the vocabulary, or asks for more than `vocab_size` pieces.
        """
        model, cutter = io.BytesIO(), _Cutter()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=cutter(sentences),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=model_type,
                character_coverage=character_coverage,
                byte_fallback=byte_fallback,
                normalization_rule_name=normalization,
                pad_id=PAD_ID,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                input_sentence_size=2_000_000,
                shuffle_input_sentence=True,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            possible = re.search(r"set it to a value <= (\d+)", str(error))
            if possible and may_shrink and 0 < int(possible[1]) < vocab_size:
                report(f"tokenizer: the text fills {int(possible[1]):,} pieces, not {vocab_size:,}: so many are made")
                return cls.train(
                    sentences,
                    int(possible[1]),
                    model_type,
                    character_coverage=character_coverage,
                    byte_fallback=byte_fallback,
                    normalization=normalization,
                    may_shrink=True,
                    report=report,
                )
            reason = str(error).strip().split("\n")[-1].rpartition("] ")[2].strip(" .")
            reason = reason.replace(" with --character_coverage option", " (data.character_coverage)")
            raise UserError(
                f"SentencePiece cannot train {vocab_size:,} pieces on this text: {reason}; set "
                "data.source_vocab_size (or data.target_vocab_size) to a size it can reach"
            ) from error
        if cutter.count:
            report(
                f"tokenizer: {cutter.count:,} line(s) of over {_LONGEST_SENTENCE:,} bytes were cut at spaces to "
                f"train it"
            )
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        return [self._ids[i] for i in self._processor.encode(self._prepared(text))]

    def _prepared(self, text: str) -> str:
        """The text as SentencePiece takes it: a surrogate alone, which is no character, becomes a question mark."""
        text = text.encode("utf-8", errors="replace").decode("utf-8")
        return fold(text) if self.folds else text

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
        """One random segmentation of each text (Kudo 2018, n-best size unlimited); equal seeds, equal samples.

        Not thread safe: SentencePiece keeps one seed for the process. A thread makes its generator from that seed when
        it first samples, and never again, so that each call has a thread of its own.
        """

        def draw():
            sentencepiece.set_random_generator_seed(seed % (1 << 32))
            return [self._processor.sample_encode_as_ids(self._prepared(text), -1, alpha) for text in texts]

        with ThreadPoolExecutor(1) as thread:
            return [[self._ids[i] for i in ids] for ids in thread.submit(draw).result()]

    def decode(self, ids: Sequence[int]) -> str:
        kept = [i for i in ids if i == UNK_ID or i >= NUM_SPECIALS]
        return self._processor.decode(self._to_model[kept].tolist())

    def encode_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        text = fold_tf(text) if self.folds else text
        ids = self._run(lambda graph: graph.tokenize(text))
        return tf.ragged.map_flat_values(lambda i: tf.gather(self._from_model, i), ids)

    def encode_with_offsets_tf(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        text = fold_tf(text) if self.folds else text
        ids, starts, ends = self._run(lambda graph: graph.tokenize_with_offsets(text))
        starts, ends = (tf.cast(offsets, tf.int32) for offsets in (starts, ends))
        return tf.ragged.map_flat_values(lambda i: tf.gather(self._from_model, i), ids), starts, ends

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        kept = tf.ragged.map_flat_values(lambda i: tf.gather(self._to_model, i), _without_specials(ids))
        return self._run(lambda graph: graph.detokenize(kept))

    def _run(self, function: Callable[["tf_text.SentencepieceTokenizer"], Any]) -> Any:
        """Calls the tokenizer of the graph; outside a graph once more with a new one, where the resource was
        destroyed."""
        try:
            return function(self._graph())
        except tf.errors.NotFoundError:
            self.renew()
            return function(self._graph())

    def piece(self, token_id: int) -> str:
        return _SPECIALS.get(token_id) or self._processor.id_to_piece(int(self._to_model[token_id]))

    def surface(self, token_id: int) -> bytes:
        if token_id < NUM_SPECIALS:
            return _proto(self._model).trainer_spec.unk_surface.encode("utf-8") if token_id == UNK_ID else b""
        piece = self.piece(token_id)
        if self._processor.is_control(int(self._to_model[token_id])):
            return b""
        if self._processor.is_byte(int(self._to_model[token_id])):  # such as <0xE5>
            return bytes([int(piece[3:5], 16)])
        return piece.replace(WORD_START, " ").encode("utf-8")

    def resource(self) -> Any:
        return self._graph()

    def renew(self) -> None:
        self._graph_tokenizer = None

    def save(self, folder: pathlib.Path) -> None:
        _save(folder, {"kind": "sentencepiece"}, self.folds)
        (folder / "sentencepiece.model").write_bytes(self._model)

    @property
    def sha256(self) -> str:
        return _sha256(self._model, self.folds)

    def _graph(self) -> "tf_text.SentencepieceTokenizer":
        # Made on first use and outside any graph, so that a job that seeds TensorFlow first (see pipelines/_runtime.py)
        # may still build tokenizers before it. tensorflow_text is 120 MiB, which training has no use for.
        if self._graph_tokenizer is None:
            with tf.init_scope():
                import tensorflow_text as tf_text

                # The name becomes that of the resource when a SavedModel is loaded: without one of its own, the second
                # tokenizer of an export would silently be the first.
                self._graph_tokenizer = tf_text.SentencepieceTokenizer(
                    self._quiet_model, name=f"sentencepiece_{self.sha256[:16]}"
                )
        return self._graph_tokenizer


class _Cutter:
    """Folds sentences, and cuts them into parts that SentencePiece does not pass over.

    Attributes:
        count: of sentences that were cut.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sentences: Iterable[str]) -> Iterator[str]:
        for sentence in map(fold, sentences):
            rest = sentence.encode("utf-8", errors="replace")
            self.count += len(rest) > _LONGEST_SENTENCE
            while len(rest) > _LONGEST_SENTENCE:
                place = rest.rfind(b" ", 1, _LONGEST_SENTENCE)
                if place < 0:  # of a script without spaces: between two characters
                    place = _LONGEST_SENTENCE
                    while rest[place] & 0xC0 == 0x80:
                        place -= 1
                yield rest[:place].decode("utf-8")
                rest = rest[place:].lstrip()
            yield rest.decode("utf-8")


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

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
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
        return ids, *_spans(ids.with_values(tf.ones_like(ids.values)))

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        kept = tf.ragged.boolean_mask(ids, ids >= NUM_SPECIALS)
        table = tf.constant([bytes([b]) for b in range(256)])
        pieces = tf.ragged.map_flat_values(lambda i: tf.gather(table, i - NUM_SPECIALS), kept)
        joined = tf.strings.reduce_join(pieces, axis=-1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def piece(self, token_id: int) -> str:
        return _SPECIALS.get(token_id) or f"<0x{token_id - NUM_SPECIALS:02X}>"

    def surface(self, token_id: int) -> bytes:
        return bytes([token_id - NUM_SPECIALS]) if token_id >= NUM_SPECIALS else b""

    def resource(self) -> Any:
        return None

    def renew(self) -> None:
        pass

    def save(self, folder: pathlib.Path) -> None:
        _save(folder, {"kind": "byte"}, self.folds)

    @property
    def sha256(self) -> str:
        return _sha256(b"byte", self.folds)


class _ListTokenizer:
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
    def train(cls, sentences: Iterable[str], vocab_size: int) -> "_ListTokenizer":
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

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
        raise NotImplementedError("this tokenizer has one segmentation of a text")

    def decode(self, ids: Sequence[int]) -> str:
        return self.separator.join(
            _UNK_SURFACE if i == UNK_ID else self._symbols[i - NUM_SPECIALS]
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

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        surfaces = tf.constant(["", _UNK_SURFACE, "", "", *self._symbols])
        pieces = tf.ragged.map_flat_values(lambda i: tf.gather(surfaces, i), _without_specials(ids))
        return tf.strings.reduce_join(pieces, axis=-1, separator=self.separator)

    def piece(self, token_id: int) -> str:
        return _SPECIALS.get(token_id) or self._symbols[token_id - NUM_SPECIALS]

    def surface(self, token_id: int) -> bytes:
        if token_id < NUM_SPECIALS and token_id != UNK_ID:
            return b""
        symbol = _UNK_SURFACE if token_id == UNK_ID else self._symbols[token_id - NUM_SPECIALS]
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
        _save(folder, {"kind": self.kind, "symbols": self._symbols}, self.folds)

    @property
    def sha256(self) -> str:
        return _sha256(json.dumps([self.kind, self._symbols]).encode(), self.folds)


class CharacterTokenizer(_ListTokenizer):
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
        return _spans(tf.ragged.map_flat_values(tf.strings.length, symbols))


class WordTokenizer(_ListTokenizer):
    """Words between ASCII white space. The training log reports the share of words that are not in the list."""

    kind = "word"
    separator = " "

    @staticmethod
    def split(text: str) -> list[str]:
        return [
            word.decode("utf-8") for word in text.encode("utf-8", errors="replace").split()
        ]  # bytes split at ASCII space, as TF does

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


_LIST_TOKENIZERS: dict[str, type[_ListTokenizer]] = {"char": CharacterTokenizer, "word": WordTokenizer}


def train_tokenizer(
    kind: str,
    sentences: Iterable[str],
    vocab_size: int,
    *,
    character_coverage: float = DataConfig.character_coverage,
    byte_fallback: bool = DataConfig.byte_fallback,
    normalization: str = DataConfig.normalization,
    may_shrink: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Tokenizer:
    """Trains a tokenizer of `kind`: unigram, bpe, char, word, or byte (which needs no training).

    `sentences` can be gone through several times. The options are those of `SentencePieceTokenizer.train`.

    Raises:
        UserError: the text cannot give such a vocabulary.
    """
    if kind == "byte":
        return ByteTokenizer()
    if kind in _LIST_TOKENIZERS:
        return _LIST_TOKENIZERS[kind].train(sentences, vocab_size)
    return SentencePieceTokenizer.train(
        sentences,
        vocab_size,
        kind,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
        normalization=normalization,
        may_shrink=may_shrink,
        report=report,
    )


def load_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Reads what a tokenizer's `save` wrote.

    Raises:
        UserError: `folder` holds no tokenizer.
    """
    try:
        card = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        kind, folds = card["kind"], card.get("folds_white_space", False)
        if kind == "byte":
            return ByteTokenizer(folds)
        if kind in _LIST_TOKENIZERS:
            return _LIST_TOKENIZERS[kind](card["symbols"], folds)
        return SentencePieceTokenizer((folder / "sentencepiece.model").read_bytes(), folds)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} holds no complete tokenizer ({error}); restore the run directory") from error


def unknown_rate(tokenizer: Tokenizer, sentences: Iterable[str]) -> float:
    """The share of ids of `sentences` that are UNK."""
    ids = [i for sentence in sentences for i in tokenizer.encode(sentence)]
    return ids.count(UNK_ID) / max(len(ids), 1)


def _spans(lengths: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Where pieces of so many bytes, int32 [N, None], start and end when they stand one after the other."""
    ends = tf.cumsum(lengths.values)
    starts = ends - lengths.values
    row_starts = tf.concat([starts, [0]], 0)
    first = tf.gather(tf.gather(row_starts, lengths.row_starts()), lengths.value_rowids())
    return lengths.with_values(starts - first), lengths.with_values(ends - first)


def _proto(model: bytes) -> Any:
    """A SentencePiece model as the message that it is."""
    return sentencepiece_model_pb2.ModelProto.FromString(model)


def _quiet(model: bytes) -> bytes:
    """The same model with a table of normalization where it has none, since SentencePiece logs a line for each of
    those.

    The one rule of the table maps a code point that is no character to itself.
    """
    proto = _proto(model)
    if proto.normalizer_spec.precompiled_charsmap:
        return model
    proto.normalizer_spec.precompiled_charsmap = _charsmap()
    return proto.SerializeToString()


@functools.lru_cache(1)
def _charsmap() -> bytes:
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        rules.write_text("10FFFF\t10FFFF\n", encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b"]),
            model_writer=model,
            vocab_size=5,
            model_type="char",
            normalization_rule_tsv=str(rules),
            minloglevel=2,
        )
    return _proto(model.getvalue()).normalizer_spec.precompiled_charsmap


def _without_specials(ids: tf.RaggedTensor) -> tf.RaggedTensor:
    return tf.ragged.boolean_mask(ids, (ids == UNK_ID) | (ids >= NUM_SPECIALS))


def _sha256(content: bytes, folds: bool) -> str:
    return hashlib.sha256(content + (b" folds" if folds else b"")).hexdigest()


def _save(folder: pathlib.Path, card: dict, folds: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    card = {**card, "folds_white_space": True} if folds else card  # those from before cards said so did not
    (folder / "tokenizer.json").write_text(json.dumps(card, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")

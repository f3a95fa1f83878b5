"""SentencePiece's unigram and BPE tokenizers."""

import _thread
import builtins
import contextlib
import functools
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece
import tensorflow as tf
from google.protobuf import message
from sentencepiece import sentencepiece_model_pb2

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt_keras.errors import UserError
from nmt_keras.reports import Report, counted, silent
from nmt_keras.tokenizers.base import NUM_SPECIALS, SPECIALS, hash_of, without_specials, write_card
from nmt_keras.tokenizers.white_space import fold
from nmt_keras.tokenizers.white_space_ops import fold_tf

if TYPE_CHECKING:
    import tensorflow_text as tf_text

WORD_START = "\u2581"  # what SentencePiece writes for a space
_LONGEST_SENTENCE = 4192  # bytes: SentencePiece's trainer passes over longer ones
_MOST_SENTENCES_HERE = 20_000  # that are trained on in this process, and
_MOST_CHARACTERS_HERE = 2_000_000  # of them all, which take seconds
_TRAINER = """
import io, json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has started this ends it
given = json.loads(sys.stdin.buffer.readline())
sys.path[:] = given["path"]
import sentencepiece
sentences, model = (line[:-1].decode() for line in sys.stdin.buffer), io.BytesIO()
try:
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=sentences, model_writer=model, **given["options"])
    sys.stdout.buffer.write(b"model" + model.getvalue())
except Exception as error:
    sys.stdout.buffer.write(b"error" + json.dumps([type(error).__name__, str(error)]).encode())
"""


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
        spec = sentencepiece_model_pb2.TrainerSpec  # other types have one segmentation only
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
        user_symbols: Sequence[str] = (),
        control_symbols: Sequence[str] = (),
        may_shrink: bool = False,
        report: Report = silent,
    ) -> "SentencePieceTokenizer":
        """Trains a model on `sentences`; the arguments but the last two are those of SentencePiece's trainer.

        Sentences of more than 4,192 bytes, which SentencePiece would skip, are cut at spaces. Where there are more than
        20,000, or 2 million characters, it trains in a process of its own, since it lets no other thread of its process
        run for minutes; the model is the same.

        Args:
            sentences: can be gone through several times.
            vocab_size: of the model.
            model_type: unigram or bpe.
            character_coverage: of the characters of the text, the share that gets pieces of its own.
            byte_fallback: whether the other characters are written as bytes.
            normalization: the name of a rule.
            user_symbols: texts that are one piece each, whatever is around them.
            control_symbols: pieces that no text is cut into.
            may_shrink: whether a vocabulary that the text cannot fill becomes smaller, and is not refused.
            report: takes a line for the user.

        Raises:
            UserError: the text cannot fill the vocabulary, or asks for more than `vocab_size` pieces; or the process
                was ended.
        """
        cutter = _Cutter()
        options = {
            "vocab_size": vocab_size,
            "model_type": model_type,
            "character_coverage": character_coverage,
            "byte_fallback": byte_fallback,
            "normalization_rule_name": normalization,
            "user_defined_symbols": list(user_symbols),
            "control_symbols": list(control_symbols),
            "pad_id": PAD_ID,
            "unk_id": UNK_ID,
            "bos_id": BOS_ID,
            "eos_id": EOS_ID,
            "input_sentence_size": 2_000_000,
            "shuffle_input_sentence": True,
            "num_threads": 1,
            "minloglevel": 2,
        }
        parts = cutter(sentences)
        first, is_all = _first_of(parts)
        try:
            if is_all:
                model = _train_here(first, options)
            else:
                model = _train_apart(itertools.chain(first, parts), options)
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
                    user_symbols=user_symbols,
                    control_symbols=control_symbols,
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
                f"tokenizer: {counted(cutter.count, 'line')} of over {_LONGEST_SENTENCE:,} bytes cut at spaces to "
                "train it"
            )
        return cls(model)

    def encode(self, text: str) -> list[int]:
        return [self._ids[i] for i in self._processor.encode(self._prepared(text))]

    def _prepared(self, text: str) -> str:
        """The text as SentencePiece takes it: a surrogate alone, which is no character, becomes a question mark."""
        text = text.encode("utf-8", errors="replace").decode("utf-8")
        return fold(text) if self.folds else text

    def sample(self, texts: Sequence[str], alpha: float, seeds: Sequence[int]) -> list[list[int]]:
        """A random segmentation of each text (Kudo 2018, n-best size unlimited; of a `bpe` model Provilkov et al. 2020)
        by its own seed.

        Not thread safe: SentencePiece keeps one seed for the process. A thread makes its generator from that seed when
        it first samples, and never again, so that each text has a thread of its own; one of `threading` takes 0.1 ms
        longer.
        """
        found: list[list[int]] = []
        done = _thread.allocate_lock()

        def draw(text: str, seed: int) -> None:
            try:
                sentencepiece.set_random_generator_seed(seed % (1 << 32))
                found.append(self._processor.sample_encode_as_ids(text, -1, alpha))
            finally:
                done.release()

        for number, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            done.acquire()
            _thread.start_new_thread(draw, (self._prepared(text), seed))
            with done:  # until it has drawn
                assert len(found) == number + 1, f"SentencePiece cannot sample {text!r}"
        return [[self._ids[i] for i in ids] for ids in found]

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

    def words_tf(self, text: tf.Tensor) -> tf.RaggedTensor:
        raise NotImplementedError("the ids of this tokenizer are not of words")

    def decode_tf(self, ids: tf.RaggedTensor) -> tf.Tensor:
        kept = tf.ragged.map_flat_values(lambda i: tf.gather(self._to_model, i), without_specials(ids))
        return self._run(lambda graph: graph.detokenize(kept))

    def _run(self, function: Callable[["tf_text.SentencepieceTokenizer"], Any]) -> Any:
        """Calls `function` with the graph tokenizer; if that fails eagerly because its resource was destroyed, once
        more with a new one."""
        try:
            return function(self._graph())
        except tf.errors.NotFoundError:
            self.renew()
            return function(self._graph())

    def piece(self, token_id: int) -> str:
        return SPECIALS.get(token_id) or self._processor.id_to_piece(int(self._to_model[token_id]))

    def control_id(self, piece: str) -> int | None:
        theirs = self._processor.piece_to_id(piece)
        ours = self._ids[theirs]
        return ours if ours >= NUM_SPECIALS and self._processor.is_control(theirs) else None

    def begins_word(self, token_id: int) -> bool:
        return token_id >= NUM_SPECIALS and self.piece(token_id).startswith(WORD_START)

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
        write_card(folder, {"kind": "sentencepiece"}, self.folds)
        (folder / "sentencepiece.model").write_bytes(self._model)

    @property
    def sha256(self) -> str:
        return hash_of(self._model, self.folds)

    @property
    def quiet_model(self) -> bytes:
        """The model for programs of others: the same pieces, and SentencePiece logs nothing when it reads it."""
        return self._quiet_model

    def _graph(self) -> "tf_text.SentencepieceTokenizer":
        # Made on first use and outside any graph, so that a job that seeds TensorFlow first (see training/precision.py)
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


def _first_of(sentences: Iterator[str]) -> tuple[list[str], bool]:
    """As many sentences as this process trains on, or a few more, and whether these are all."""
    first, size = [], 0
    for sentence in sentences:
        first.append(sentence)
        size += len(sentence)
        if len(first) > _MOST_SENTENCES_HERE or size > _MOST_CHARACTERS_HERE:
            return first, False
    return first, True


def _train_here(sentences: Iterable[str], options: Mapping[str, Any]) -> bytes:
    """Trains a model with these options of SentencePiece's trainer, and serializes it.

    Raises:
        RuntimeError: SentencePiece's own.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, **options)
    return model.getvalue()


def _train_apart(sentences: Iterable[str], options: Mapping[str, Any]) -> bytes:
    """Does as `_train_here`, in a process of its own, to which each sentence goes as a line: none has a line's end.

    Raises:
        RuntimeError: SentencePiece's own, as are others.
        UserError: the process was ended.
    """
    with subprocess.Popen([sys.executable, "-c", _TRAINER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as lines:  # it has given up, and says why
                lines.write(json.dumps({"path": sys.path, "options": options}).encode() + b"\n")
                for sentence in sentences:
                    lines.write(sentence.encode("utf-8") + b"\n")
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    kind, content = answer[:5], answer[5:]
    if kind == b"error":
        name, text = json.loads(content)
        raise getattr(builtins, name, RuntimeError)(text)
    if kind != b"model" or process.returncode:
        raise UserError(
            f"The process that trains SentencePiece ended with status {process.returncode} and without a model: read "
            "what it printed; if the system killed it (-9), free memory or give it fewer sentences"
        )
    return content


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


def _proto(model: bytes) -> Any:
    """A SentencePiece model as the message that it is."""
    return sentencepiece_model_pb2.ModelProto.FromString(model)


def _quiet(model: bytes) -> bytes:
    """Adds a table of normalization to a model that has none, since SentencePiece logs a line for each such model.

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

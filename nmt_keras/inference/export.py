"""The served artefact: a SavedModel from strings to strings, and the proof that it says what the model says.

The module that is saved owns the tokenizers, the tables and the raw variables. The Keras model is hidden from it: a
Keras model that is tracked is written twice, and TensorFlow Serving's loader restores the copy that nothing reads.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_text
from google.protobuf import message as protobuf_message
from tensorflow.core.protobuf import saved_model_pb2

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import BOS_ID
from nmt_keras.data.tokenizer import Tokenizer
from nmt_keras.errors import UserError
from nmt_keras.inference import c_session
from nmt_keras.inference.search import Knobs, Search
from nmt_keras.inference.strings import to_bytes
from nmt_keras.inference.text import (
    alignment,
    at_least_two_rows,
    detokenize,
    pieces,
    source_spans,
    target_spans,
    tokenize,
)
from nmt_keras.inference.translator import translate_text
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.seq2seq import Seq2Seq

_TEXT = tf.TensorSpec([None], tf.string)
_PADDING = {"alignment": -1, "truncated": True}  # of rows beyond the limit; 0 of the others
_KNOBS = Knobs(*(tf.TensorSpec([None], dtype) for dtype in (tf.int32,) * 3 + (tf.float32,) * 2 + (tf.int32,)))


class TranslationModule(tf.Module):
    """What is saved. Every input and output begins with B, so that a server may merge calls.

    Args:
        model: built.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search.
    """

    def __init__(
        self, model: Seq2Seq, source_tokenizer: Tokenizer, target_tokenizer: Tokenizer, config: DecodingConfig
    ):
        super().__init__(name="translation")
        self.tracked_variables = [variable.value for variable in model.variables]
        self.tracked_tokenizers = [source_tokenizer.resource(), target_tokenizer.resource()]
        self._parts = lambda: (model, source_tokenizer, target_tokenizer, config)
        search = Search(model, target_tokenizer, config)
        self._search = lambda: search

    @tf.function(input_signature=[_TEXT], autograph=False)
    def serve(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """The best translation: string [B] to `translation`, string [B], `log_prob` and `score`, float32 [B], and
        `truncated`, bool [B]."""
        _, source_tokenizer, target_tokenizer, config = self._parts()

        def serve(text):
            found = translate_text(self._search(), source_tokenizer, target_tokenizer, config, text)
            return {
                "translation": found.text[:, 0],
                "log_prob": found.hypotheses.log_prob[:, 0],
                "score": found.hypotheses.score[:, 0],
                "truncated": found.truncated,
            }

        return self._within_limit(serve, text)

    @tf.function(input_signature=[_TEXT, *_KNOBS], autograph=False)
    def translate(self, text, beam_size, num_hypotheses, max_length, length_penalty, temperature, seed):
        """Several translations of each text, a sentence, with all that is known of them.

        Args:
            text: string [B]. The others are the fields of `Knobs`, [B] each.

        Returns:
            `num_hypotheses` int32 [B]; `translation` string, `log_prob` and `score` float32, `num_pieces` int32, [B, N]
            each; `pieces` string, `token_log_probs` float32, `alignment`, `piece_starts` and `piece_ends` int32,
            [B, N, L] each, </s> included, of which `alignment` is the place of the source piece read most, -1 where
            none is, for </s> and beyond, and the last two are the bytes of the translation where the piece starts and
            ends; `source_pieces` string, `source_piece_starts` and `source_piece_ends` int32, [B, S] each,
            `num_source_pieces` int32 [B], </s> included; `truncated` bool [B]. Bytes are those of the text as valid
            UTF-8.
        """
        _, source_tokenizer, target_tokenizer, config = self._parts()

        def translate(text, *knobs):
            source, knobs = at_least_two_rows(tokenize(source_tokenizer, text, config), Knobs(*knobs))
            hypotheses = self._search().with_knobs(source.ids, knobs)
            of_batch = (source_tokenizer, target_tokenizer, config, source)
            translation, hypotheses = detokenize(*of_batch, hypotheses)
            source_starts, source_ends = source_spans(source_tokenizer, source)
            starts, ends = target_spans(*of_batch, hypotheses, translation)
            return {
                "num_hypotheses": tf.reduce_sum(tf.cast(hypotheses.lengths > 0, tf.int32), -1),
                "translation": translation,
                "log_prob": hypotheses.log_prob,
                "score": hypotheses.score,
                "num_pieces": hypotheses.lengths,
                "pieces": pieces(target_tokenizer, hypotheses.ids),
                "piece_starts": starts,
                "piece_ends": ends,
                "token_log_probs": hypotheses.token_log_probs,
                "alignment": alignment(hypotheses),
                "source_pieces": pieces(source_tokenizer, source.ids),
                "source_piece_starts": source_starts,
                "source_piece_ends": source_ends,
                "num_source_pieces": source.lengths,
                "truncated": source.truncated,
            }

        return self._within_limit(
            translate, text, beam_size, num_hypotheses, max_length, length_penalty, temperature, seed
        )

    @tf.function(input_signature=[_TEXT, _TEXT], autograph=False)
    def score(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """How probable the model finds translations that are given.

        Args:
            source: string [B].
            target: string [B].

        Returns:
            `log_prob` float32 [B], the sum of `token_log_probs` float32 [B, T]; `pieces` string [B, T], `num_pieces`
            int32 [B], </s> included; `truncated` bool [B], where either was over the limit.
        """
        model, source_tokenizer, target_tokenizer, config = self._parts()

        def score(source_text, target_text):
            source, _ = at_least_two_rows(tokenize(source_tokenizer, source_text, config))
            target, _ = at_least_two_rows(tokenize(target_tokenizer, target_text, config))
            shifted = tf.pad(target.ids[:, :-1], [[0, 0], [1, 0]], constant_values=BOS_ID)
            hidden, _ = model(source.ids, shifted)
            log_probs = tf.nn.log_softmax(model.project(hidden))
            is_real = padding_mask(target.ids)
            token_log_probs = tf.where(is_real, tf.gather(log_probs, target.ids, batch_dims=2), 0.0)
            return {
                "log_prob": tf.reduce_sum(token_log_probs, -1),
                "token_log_probs": token_log_probs,
                "pieces": pieces(target_tokenizer, target.ids),
                "num_pieces": target.lengths,
                "truncated": source.truncated | target.truncated,
            }

        return self._within_limit(score, source, target)

    @tf.function(input_signature=[_TEXT], autograph=False)
    def encode(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Sentence vectors: string [B] to `vector`, float32 [B, D], the mean of the encoder's states, and `truncated`,
        bool [B]."""
        model, source_tokenizer, _, config = self._parts()

        def encode(text):
            source, _ = at_least_two_rows(tokenize(source_tokenizer, text, config))
            return {"vector": model.sentence_vectors(source.ids), "truncated": source.truncated}

        return self._within_limit(encode, text)

    def _within_limit(self, function: Callable[..., dict[str, tf.Tensor]], *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs of the first `max_request_sentences` rows; of rows beyond, padding, and `truncated`."""
        _, _, _, config = self._parts()
        rows = tf.shape(inputs[0])[0]
        kept = tf.minimum(rows, config.max_request_sentences)
        outputs = function(*(value[:kept] for value in inputs))

        def padded(name, value):
            missing = [[0, rows - kept]] + [[0, 0]] * (value.shape.rank - 1)
            return tf.pad(value[:kept], missing, constant_values=_PADDING.get(name, tf.zeros([], value.dtype)))

        return {name: padded(name, value) for name, value in outputs.items()}


def save(module: TranslationModule, base: pathlib.Path) -> pathlib.Path:
    """Saves under a temporary name in `base`, which is made; see `publish`.

    Raises:
        UserError: `base` cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(dir=base, prefix=".tmp-"))
        folder.chmod(0o755)
        tf.saved_model.save(module, str(folder), signatures=_signatures_of(module))
        return folder
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"Cannot write the export to {base}: {str(error).split(chr(10))[0]}; give another " "--output"
        ) from error


def _signatures_of(module: TranslationModule) -> dict[str, Callable]:
    return {
        "serving_default": module.serve,
        "translate": module.translate,
        "score": module.score,
        "encode": module.encode,
    }


def publish(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Renames what `save` wrote to the next integer version under `base`, where TF Serving finds it."""
    version = max((int(path.name) for path in base.iterdir() if path.name.isdigit()), default=0) + 1
    return folder.rename(base / str(version))


def answers(folder: pathlib.Path, requests: Sequence[tuple[str, dict[str, list]]]) -> list[dict[str, list]]:
    """Runs signatures of a SavedModel in a fresh, CPU-only process, through TensorFlow's C library, which loads it as
    TF Serving does.

    Args:
        folder: with `saved_model.pb`.
        requests: each a signature and its inputs, lists of strings or numbers.

    Returns:
        The outputs of each, nested lists.

    Raises:
        RuntimeError: the process failed; the message ends with its last line.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    setup = {"folder": str(folder.resolve()), "libraries": _c_libraries(), "signatures": signatures(folder)}
    lines = [setup, *({"signature": name, "inputs": inputs} for name, inputs in requests)]
    with tempfile.TemporaryDirectory() as elsewhere:  # where no module of ours is found by accident
        result = subprocess.run(
            [sys.executable, "-I", c_session.__file__],
            env=environment,
            cwd=elsewhere,
            text=True,
            encoding="utf-8",
            input="".join(json.dumps(line) + "\n" for line in lines),
            capture_output=True,
            check=False,
        )
    if result.returncode:
        raise RuntimeError(f"the export does not load: {result.stderr.strip().rpartition(chr(10))[2]}")
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


def reloaded_translations(folder: pathlib.Path, batches: Sequence[Sequence[str]]) -> list[list[tuple[str, float]]]:
    """Of each text of each batch its translation and `log_prob`, as `answers` gives them."""
    replies = answers(folder, [("serving_default", {"text": list(batch)}) for batch in batches])
    return [list(zip(reply["translation"], reply["log_prob"])) for reply in replies]


def signatures(folder: pathlib.Path) -> dict[str, dict[str, dict[str, tuple[str, int]]]]:
    """Of each signature of a SavedModel, `inputs` and `outputs`: name to the tensor's name and TF_DataType.

    Raises:
        RuntimeError: `folder` holds no SavedModel.
    """
    return {
        name: {
            side: {key: (info.name, info.dtype) for key, info in sorted(getattr(definition, side).items())}
            for side in ("inputs", "outputs")
        }
        for name, definition in _graph(folder).signature_def.items()
    }


def functions_that_must_compile(folder: pathlib.Path) -> list[str]:
    """The functions of a SavedModel that a server without XLA's compiler refuses to run; there should be none.

    Raises:
        RuntimeError: `folder` holds no SavedModel.
    """
    functions = _graph(folder).graph_def.library.function
    return [f.signature.name for f in functions if "_XlaMustCompile" in f.attr and f.attr["_XlaMustCompile"].b]


def _graph(folder: pathlib.Path):
    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except (OSError, protobuf_message.DecodeError) as error:
        raise RuntimeError(f"the export does not load: {error}") from error
    return saved.meta_graphs[0]


def _c_libraries() -> list[str]:
    """TensorFlow's C library, and the operations of TF Text that TF Serving links too."""
    text = pathlib.Path(tensorflow_text.__file__).parent / "python" / "ops"
    return [str(pathlib.Path(tf.__file__).parent / "libtensorflow_cc.so.2"), str(text / "_sentencepiece_tokenizer.so")]


def load_signature(folder: pathlib.Path) -> Callable[[Sequence[str]], list[tuple[str, bool]]]:
    """Loads a SavedModel, or the newest version in a folder of them.

    Returns:
        A function from a list of texts to pairs (translation, whether the text was truncated).

    Raises:
        UserError: `folder` is no export.
    """
    versions = [path for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if versions:
        folder = max((path.parent for path in versions), key=lambda path: int(path.name))
    try:
        serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    except (OSError, LookupError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{folder} is no export of this toolkit; give saved_models/<name>/<version>") from error

    def translate(texts: Sequence[str]) -> list[tuple[str, bool]]:
        result = serve(text=tf.constant([to_bytes(text) for text in texts]))
        return [
            (text.decode("utf-8"), bool(truncated))
            for text, truncated in zip(result["translation"].numpy(), result["truncated"].numpy())
        ]

    return translate

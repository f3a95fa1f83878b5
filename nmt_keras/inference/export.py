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
from nmt_keras.data.tokenizer import Tokenizer
from nmt_keras.errors import UserError
from nmt_keras.inference import c_session
from nmt_keras.inference.search import Search
from nmt_keras.inference.translator import translate_text
from nmt_keras.models.seq2seq import Seq2Seq


class TranslationModule(tf.Module):
    """What is saved.

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
        search = Search(model, target_tokenizer, config)
        self._translate = lambda text: translate_text(search, source_tokenizer, target_tokenizer, config, text)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def serve(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [B] to `translation`, string [B], `log_prob` and `score`, float32 [B], and `truncated`, bool [B]."""
        result = self._translate(text)
        return {
            "translation": result.text[:, 0],
            "log_prob": result.hypotheses.log_prob[:, 0],
            "score": result.hypotheses.score[:, 0],
            "truncated": result.truncated,
        }


def save(module: TranslationModule, base: pathlib.Path) -> pathlib.Path:
    """Saves under a temporary name in `base`, which is made; see `publish`.

    Raises:
        UserError: `base` cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(dir=base, prefix=".tmp-"))
        folder.chmod(0o755)
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
        return folder
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"Cannot write the export to {base}: {str(error).split(chr(10))[0]}; give another " "--output"
        ) from error


def publish(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Renames what `save` wrote to the next integer version under `base`, where TF Serving finds it."""
    version = max((int(path.name) for path in base.iterdir() if path.name.isdigit()), default=0) + 1
    return folder.rename(base / str(version))


def reloaded_translations(folder: pathlib.Path, batches: Sequence[Sequence[str]]) -> list[list[tuple[str, float]]]:
    """Translates batches with the SavedModel in a fresh, CPU-only process, through TensorFlow's C library, which loads
    it as TF Serving does.

    Returns:
        Of each text its translation and `log_prob`.

    Raises:
        RuntimeError: the process failed; the message ends with its last line.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    setup = {"folder": str(folder.resolve()), "libraries": _c_libraries(), "signatures": signatures(folder)}
    requests = [{"signature": "serving_default", "inputs": {"text": list(batch)}} for batch in batches]
    with tempfile.TemporaryDirectory() as elsewhere:  # where no module of ours is found by accident
        result = subprocess.run(
            [sys.executable, "-I", c_session.__file__],
            env=environment,
            cwd=elsewhere,
            text=True,
            encoding="utf-8",
            input="".join(json.dumps(line) + "\n" for line in (setup, *requests)),
            capture_output=True,
            check=False,
        )
    if result.returncode:
        raise RuntimeError(f"the export does not load: {result.stderr.strip().rpartition(chr(10))[2]}")
    answers = map(json.loads, result.stdout.strip().split("\n"))
    return [list(zip(answer["translation"], answer["log_prob"])) for answer in answers]


def signatures(folder: pathlib.Path) -> dict[str, dict[str, dict[str, tuple[str, int]]]]:
    """Of each signature of a SavedModel, `inputs` and `outputs`: name to the tensor's name and TF_DataType.

    Raises:
        RuntimeError: `folder` holds no SavedModel.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except (OSError, protobuf_message.DecodeError) as error:
        raise RuntimeError(f"the export does not load: {error}") from error
    return {
        name: {
            side: {key: (info.name, info.dtype) for key, info in sorted(getattr(definition, side).items())}
            for side in ("inputs", "outputs")
        }
        for name, definition in saved.meta_graphs[0].signature_def.items()
    }


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
        result = serve(text=tf.constant([text.encode("utf-8", errors="replace") for text in texts]))
        return [
            (text.decode("utf-8"), bool(truncated))
            for text, truncated in zip(result["translation"].numpy(), result["truncated"].numpy())
        ]

    return translate

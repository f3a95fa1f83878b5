"""The proof of an export: what TensorFlow Serving would find in it, found without TensorFlow's Python."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text
from google.protobuf import message as protobuf_message
from tensorflow.core.protobuf import saved_model_pb2

from nmt_keras.serving import c_session
from nmt_keras.serving.transports import Tensors, as_tensor

# The operations of TF Text that we use and that TensorFlow Serving links (its SUPPORTED_TENSORFLOW_OPS).
_TEXT_OPERATIONS = frozenset(
    ("SentencepieceOp", "SentencepieceTokenizeOp", "SentencepieceTokenizeWithOffsetsOp", "SentencepieceDetokenizeOp")
)


class FreshProcess:
    """A SavedModel in a fresh, CPU-only process, through TensorFlow's C library, which loads it as TF Serving does.

    Example:
        with FreshProcess(folder) as served:
            reply = served.ask("serving_default", {"text": ["A man rides a horse."]})

    Args:
        folder: with `saved_model.pb`.
        libraries: as `c_libraries` gives them, of another version; None is this one.

    Raises:
        RuntimeError: `folder` holds no SavedModel.
    """

    def __init__(self, folder: pathlib.Path, libraries: Sequence[str] | None = None):
        libraries = list(c_libraries() if libraries is None else libraries)
        self._setup = {"folder": str(folder.resolve()), "libraries": libraries, "signatures": signatures(folder)}

    def __enter__(self) -> "FreshProcess":
        self._elsewhere = tempfile.TemporaryDirectory()  # where no module of ours is found by accident
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-I", c_session.__file__],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=self._elsewhere.name,
            text=True,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._write(self._setup)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._elsewhere.cleanup()

    def ask(self, signature: str, inputs: Mapping[str, list]) -> dict[str, list]:
        """The outputs of a signature as nested lists; the inputs are lists of strings or numbers.

        Raises:
            RuntimeError: the process failed; the message ends with its last line.
        """
        self._write({"signature": signature, "inputs": inputs})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"the export does not load: {last}")
        return json.loads(line)

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # `ask` tells why
            pass


class FreshTransport:
    """A `Transport` to an export in a fresh process, for a client of it."""

    def __init__(self, process: FreshProcess):
        self._process = process

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """See `Transport`."""
        outputs = self._process.ask(signature, {name: value.tolist() for name, value in inputs.items()})
        return {name: as_tensor(value) for name, value in outputs.items()}

    def close(self) -> None:
        """See `Transport`: who started the process ends it."""


def signatures(folder: pathlib.Path) -> dict[str, dict[str, dict[str, tuple[str, int]]]]:
    """The `inputs` and `outputs` of each signature of a SavedModel: name to the tensor's name and TF_DataType.

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


def unsupported_operations(folder: pathlib.Path) -> list[str]:
    """The operations of a SavedModel that are neither TensorFlow's own nor of TF Text's that TF Serving links; there
    should be none.

    Raises:
        RuntimeError: `folder` holds no SavedModel.
    """
    graph = _graph(folder).graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    functions = {function.signature.name for function in graph.library.function}
    used = {node.op for node in nodes} - functions - _TEXT_OPERATIONS
    return sorted(name for name in used if not hasattr(tf.raw_ops, name))


def _graph(folder: pathlib.Path) -> Any:
    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except (OSError, protobuf_message.DecodeError) as error:
        raise RuntimeError(f"the export does not load: {error}") from error
    return saved.meta_graphs[0]


def c_libraries(packages: pathlib.Path | None = None) -> list[str]:
    """TensorFlow's C library, and the operations of TF Text that TF Serving links too, of a folder of packages; None is
    where this process has its own."""
    engine, text = (
        pathlib.Path(package.__file__).parent if packages is None else packages / package.__name__
        for package in (tf, tensorflow_text)
    )
    return [str(engine / "libtensorflow_cc.so.2"), str(text / "python" / "ops" / "_sentencepiece_tokenizer.so")]

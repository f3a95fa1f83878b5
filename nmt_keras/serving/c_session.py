"""Runs a SavedModel through TensorFlow's C library, as TensorFlow Serving's loader does, without TensorFlow's Python.

A program of its own, run by file name in a fresh process: what it finds in an export, a server finds too. It is given
`{"folder", "libraries", "signatures"}` on the first line of its input, then requests `{"signature", "inputs"}`, and
answers each with the outputs, all as JSON; strings are UTF-8 with surrogate escapes.
"""

import ctypes
import json
import sys
from typing import Any

import numpy as np

_STRING = 7  # TF_STRING
_TYPES = {1: np.float32, 3: np.int32, 9: np.int64, 10: np.bool_}  # TF_DataType to NumPy's
_STRING_BYTES = 24  # of a TF_TString


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class Session:
    """A loaded SavedModel.

    Args:
        folder: with `saved_model.pb`.
        libraries: paths of TensorFlow's C library, then of what registers further operations.
        signatures: of each name, `inputs` and `outputs`: name to (tensor's name, TF_DataType).

    Raises:
        RuntimeError: it does not load; the message is TensorFlow's.
    """

    def __init__(self, folder: str, libraries: list[str], signatures: dict[str, Any]):
        self._c = ctypes.CDLL(libraries[0], mode=ctypes.RTLD_GLOBAL)
        for name in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadLibrary", "LoadSessionFromSavedModel"):
            getattr(self._c, f"TF_{name}").restype = ctypes.c_void_p
        for name in ("GraphOperationByName", "AllocateTensor", "TensorData", "StringGetDataPointer"):
            getattr(self._c, f"TF_{name}").restype = ctypes.c_void_p
        for name in ("StringGetSize", "TensorElementCount"):
            getattr(self._c, f"TF_{name}").restype = ctypes.c_size_t
        self._c.TF_Dim.restype = ctypes.c_int64
        self._c.TF_Message.restype = ctypes.c_char_p
        self._status = ctypes.c_void_p(self._c.TF_NewStatus())
        self._graph = ctypes.c_void_p(self._c.TF_NewGraph())
        self._signatures = signatures
        for library in libraries[1:]:
            self._c.TF_LoadLibrary(library.encode(), self._status)
            self._check()
        options, tags = ctypes.c_void_p(self._c.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve")
        loaded = self._c.TF_LoadSessionFromSavedModel(
            options, None, folder.encode(), tags, 1, self._graph, None, self._status
        )
        self._check()
        self._session = ctypes.c_void_p(loaded)

    def run(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs of a signature: numbers as arrays, strings as nested lists of bytes.

        `inputs` are arrays, lists of numbers or lists of bytes.

        Raises:
            RuntimeError: an operation failed.
        """
        known = self._signatures[signature]
        fed = [self._tensor(inputs[name], kind) for name, (_, kind) in known["inputs"].items()]
        results = (ctypes.c_void_p * len(known["outputs"]))()
        self._c.TF_SessionRun(
            self._session,
            None,
            self._places(known["inputs"]),
            (ctypes.c_void_p * len(fed))(*fed),
            len(fed),
            self._places(known["outputs"]),
            results,
            len(known["outputs"]),
            None,
            0,
            None,
            self._status,
        )
        self._check()
        values = {name: self._value(results[i], kind) for i, (name, (_, kind)) in enumerate(known["outputs"].items())}
        for tensor in (*fed, *results):
            self._c.TF_DeleteTensor(ctypes.c_void_p(tensor))
        return values

    def _places(self, tensors: dict[str, tuple[str, int]]) -> ctypes.Array:
        places = (_Output * len(tensors))()
        for place, (name, _) in zip(places, tensors.values()):
            operation, _, index = name.partition(":")
            place.operation = self._c.TF_GraphOperationByName(self._graph, operation.encode())
            place.index = int(index)
        return places

    def _tensor(self, values: Any, kind: int) -> Any:
        if kind != _STRING:
            array: np.ndarray = np.ascontiguousarray(values, _TYPES[kind])
            tensor = self._allocate(kind, array.shape, array.nbytes)
            ctypes.memmove(self._c.TF_TensorData(ctypes.c_void_p(tensor)), array.ctypes.data, array.nbytes)
            return tensor
        tensor = self._allocate(kind, (len(values),), len(values) * _STRING_BYTES)
        start = self._c.TF_TensorData(ctypes.c_void_p(tensor))
        for i, text in enumerate(values):
            place = ctypes.c_void_p(start + i * _STRING_BYTES)
            self._c.TF_StringInit(place)
            self._c.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
        return tensor

    def _allocate(self, kind: int, shape: tuple[int, ...], size: int) -> Any:
        dims = (ctypes.c_int64 * len(shape))(*shape)
        return self._c.TF_AllocateTensor(kind, dims, len(shape), ctypes.c_size_t(size))

    def _value(self, address: int | None, kind: int) -> Any:
        tensor = ctypes.c_void_p(address)
        shape = [self._c.TF_Dim(tensor, axis) for axis in range(self._c.TF_NumDims(tensor))]
        count, start = self._c.TF_TensorElementCount(tensor), self._c.TF_TensorData(tensor)
        if kind != _STRING:
            size = count * np.dtype(_TYPES[kind]).itemsize
            return np.frombuffer(ctypes.string_at(start, size) if size else b"", _TYPES[kind]).reshape(shape)
        texts = np.empty(count, object)
        for i in range(count):
            place = ctypes.c_void_p(start + i * _STRING_BYTES)
            size = self._c.TF_StringGetSize(place)
            texts[i] = ctypes.string_at(self._c.TF_StringGetDataPointer(place), size)
        return texts.reshape(shape).tolist()

    def _check(self) -> None:
        if self._c.TF_GetCode(self._status):
            raise RuntimeError(self._c.TF_Message(self._status).decode("utf-8", "replace"))


def main() -> None:
    """Serves requests until the input ends."""
    session = Session(**json.loads(sys.stdin.readline()))

    def to_json(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        return [to_json(v) for v in value] if isinstance(value, list) else value.tolist()

    for line in sys.stdin:
        request = json.loads(line)
        inputs = {
            name: [v.encode("utf-8", "surrogateescape") if isinstance(v, str) else v for v in values]
            for name, values in request["inputs"].items()
        }
        outputs = session.run(request["signature"], inputs)
        print(json.dumps({name: to_json(value) for name, value in outputs.items()}), flush=True)


if __name__ == "__main__":
    main()

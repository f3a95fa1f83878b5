"""One request to TensorFlow Serving, by REST or by gRPC, and what became of it.

Both take and give NumPy arrays: float32, int32, bool, and strings as `str` objects, in which bytes that are no UTF-8
are surrogate escapes. Both raise a `Failure` of one of the kinds below when a request goes wrong. REST needs no
TensorFlow; the messages of gRPC contain its tensors, so gRPC imports it.
"""

import base64
import enum
import http.client
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import urllib3

from nmt_keras.engine import load_tensorflow
from nmt_keras.errors import UserError
from nmt_keras.inference.strings import from_bytes, to_bytes

_SERVER = re.compile(r"(grpcs?|https?)://([^/\s@]+:\d{1,5})/([^/:\s]+)(?:/(\d+))?/?")
_DTYPES = {bool: np.bool_, int: np.int32, float: np.float32, str: object}
_DTYPE_OF_KIND = {"b": np.bool_, "i": np.int32, "u": np.int32, "f": np.float32}
_LOADING = {"START", "LOADING"}

Tensors = dict[str, np.ndarray]


class Address(NamedTuple):
    """Where a model is served."""

    scheme: str  # grpc, grpcs, http or https
    place: str  # host:port
    model: str
    version: int | None  # the server's choice, the newest usually, if None

    @property
    def path(self) -> str:
        """The path of the model in the REST interface."""
        version = "" if self.version is None else f"/versions/{self.version}"
        return f"/v1/models/{urllib.parse.quote(self.model, safe='')}{version}"


class Kind(enum.Enum):
    """The kinds of failures."""

    DOWN = "nothing answers there"
    UNKNOWN_HOST = "there is no such host"
    BUSY = "the server is overloaded or going down"
    TIMEOUT = "no answer in time"
    LOADING = "the model is being loaded"
    NO_MODEL = "the server has no such model, or not this version"
    NO_SIGNATURE = "the model has no such signature"
    TOO_LARGE = "the request is over a limit of the server"
    FOREIGN = "the server is no TensorFlow Serving"
    REFUSED = "the server reports another error"


class Failure(Exception):
    """A request that failed.

    Args:
        kind: what that means.
        reason: in the words of the server or the library.
    """

    def __init__(self, kind: Kind, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = " ".join(reason.split()).rstrip(".") or kind.value


class Transport(Protocol):
    """A way to a server; threads may share it."""

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """Runs a signature.

        Raises:
            Failure: it did not run.
        """

    def close(self) -> None:
        """Ends connections."""


def parse_address(server: str) -> Address:
    """Reads `grpc://host:port/model[/version]`; the scheme may be grpcs, http or https.

    Raises:
        UserError: it is none, or its port is out of range.
    """
    match = _SERVER.fullmatch(server)
    if not match:
        raise UserError(
            f"The server {server!r} must be grpc://host:port/model or http://host:port/model, and /version after it if "
            "that is not the newest; give e.g. grpc://localhost:8500/en_zh, or http://localhost:8501/en_zh/3"
        )
    scheme, place, model, version = match.groups()
    port = int(place.rpartition(":")[2])
    if not 0 < port < 65536:
        raise UserError(f"The port of the server {server!r} is {port}: give one from 1 to 65535")
    return Address(scheme, place, urllib.parse.unquote(model), None if version is None else int(version))


def as_tensor(values: Any) -> np.ndarray:
    """Strings, numbers or an array of them in a type that is sent.

    Raises:
        LookupError: they are neither strings alone nor numbers alone.
    """
    array = np.array(values, object)
    are_strings = [isinstance(value, str) for value in array.flat]
    if all(are_strings):
        return array
    if any(are_strings):
        raise LookupError("strings and others")
    numbers = np.asarray(values)
    return numbers.astype(_DTYPE_OF_KIND[numbers.dtype.kind])


class RestTransport:
    """TensorFlow Serving's REST interface.

    Args:
        address: with scheme http or https.
        timeout: of connecting, and of waiting for an answer, in seconds.
        connections: how many are kept open.
    """

    def __init__(self, address: Address, timeout: float, connections: int):
        self._base = f"{address.scheme}://{address.place}{address.path}"
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=timeout, retries=False)

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """See `Transport`."""
        request = {"signature_name": signature, "inputs": {name: _to_json(value) for name, value in inputs.items()}}
        reply = self._ask("POST", ":predict", json.dumps(request).encode())
        try:
            outputs = reply["outputs"]
            if not isinstance(outputs, dict):  # of a signature with one output, whose name is left out
                outputs = {self._name_of_output(signature): outputs}
            return {name: _from_json(value) for name, value in outputs.items()}
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Failure(Kind.FOREIGN, f"a reply that cannot be read, {error!r}") from error

    def close(self) -> None:
        """See `Transport`."""
        self._pool.clear()

    def _name_of_output(self, signature: str) -> str:
        reply = self._ask("GET", "/metadata")
        [name] = reply["metadata"]["signature_def"]["signature_def"][signature]["outputs"]
        return name

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        try:
            response = self._pool.request(
                method, self._base + path, body=body, headers={"Content-Type": "application/json"}
            )
        except urllib3.exceptions.NameResolutionError as error:
            raise Failure(Kind.UNKNOWN_HOST, str(error)) from error
        except urllib3.exceptions.NewConnectionError as error:  # to urllib3 a kind of time-out
            raise Failure(Kind.DOWN, str(error)) from error
        except urllib3.exceptions.TimeoutError as error:
            raise Failure(Kind.TIMEOUT, str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise _lost(error) from error
        content = response.headers.get("Content-Type", "no content type")
        try:
            reply = json.loads(from_bytes(response.data))
            text = reply["error"] if isinstance(reply, dict) and isinstance(reply.get("error"), str) else None
        except ValueError:
            reply = text = None
        if response.status == 200 and reply is not None:
            return reply
        raise self._failure(response.status, text, f"HTTP {response.status}, {content}")

    def _failure(self, status: int, text: str | None, summary: str) -> Failure:
        kind = _kind_of_text(text or "")
        if kind is Kind.NO_MODEL:
            return _no_model(str(text), self._states)
        if kind is None and status == 413:
            kind = Kind.TOO_LARGE
        elif kind is None and status in (429, 502, 503, 504):
            kind = Kind.BUSY
        return Failure(kind or (Kind.FOREIGN if text is None else Kind.REFUSED), text or summary)

    def _states(self) -> dict[str, str]:
        reply = self._ask("GET", "")
        return {version["version"]: version["state"] for version in reply["model_version_status"]}


class GrpcTransport:
    """TensorFlow Serving's gRPC interface.

    Args:
        address: with scheme grpc or grpcs.
        timeout: of a request, in seconds.

    Raises:
        UserError: the package with the interface is missing.
    """

    def __init__(self, address: Address, timeout: float):
        try:
            load_tensorflow()  # whose messages these are
            import grpc
            from tensorflow_serving.apis import (
                get_model_status_pb2,
                model_pb2,
                model_service_pb2_grpc,
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise UserError(
                f"{address.scheme}:// needs a package that cannot be imported ({error}): "
                "pip install tensorflow-serving-api, or give http:// and the port of REST"
            ) from error
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if address.scheme == "grpcs":
            self._channel = grpc.secure_channel(address.place, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(address.place, options)
        self._timeout = timeout
        self._error = grpc.RpcError
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._request, self._status_request = predict_pb2.PredictRequest, get_model_status_pb2.GetModelStatusRequest
        self._state = get_model_status_pb2.ModelVersionStatus.State
        self._model = model_pb2.ModelSpec(name=address.model)
        if address.version is not None:
            self._model.version.value = address.version

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """See `Transport`."""
        import tensorflow as tf

        request = self._request(model_spec=self._model)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            if value.dtype == object:
                value = bytes_of(value)
            dtype = tf.string if value.dtype == object else None  # which an empty list does not show
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
        try:
            reply = self._prediction.Predict(request, self._timeout)
        except self._error as error:
            raise self._failure(error) from error
        return {name: strings_of(tf.make_ndarray(value)) for name, value in reply.outputs.items()}

    def close(self) -> None:
        """See `Transport`."""
        self._channel.close()

    def _failure(self, error: Any) -> Failure:
        code, text = error.code().name, error.details() or ""
        kind = _kind_of_text(text)
        if kind is Kind.NO_MODEL:
            return _no_model(text, self._states)
        if kind is None and code == "UNAVAILABLE":
            lost = re.search("failed to connect|socket closed|connection|tcp", text, re.IGNORECASE)
            kind = Kind.DOWN if lost else Kind.BUSY
        of_code = {"DEADLINE_EXCEEDED": Kind.TIMEOUT, "UNIMPLEMENTED": Kind.FOREIGN}
        return Failure(kind or of_code.get(code, Kind.REFUSED), text or code)

    def _states(self) -> dict[str, str]:
        try:
            reply = self._models.GetModelStatus(self._status_request(model_spec=self._model), self._timeout)
        except self._error as error:
            raise Failure(Kind.REFUSED, error.details() or "") from error
        return {str(status.version): self._state.Name(status.state) for status in reply.model_version_status}


# What TensorFlow Serving, its batcher and gRPC say, whatever the code.
_TEXTS = (
    ("larger than max", Kind.TOO_LARGE),
    ("Servable not found", Kind.NO_MODEL),
    ("Serving signature", Kind.NO_SIGNATURE),
    ("batch scheduling queue", Kind.BUSY),
    ("DNS resolution failed", Kind.UNKNOWN_HOST),
    ("errors resolving", Kind.UNKNOWN_HOST),
    ("Failed parsing HTTP/2", Kind.FOREIGN),
    ("handshake failed", Kind.FOREIGN),
)


def _kind_of_text(text: str) -> Kind | None:
    return next((kind for words, kind in _TEXTS if words in text), None)


def _lost(error: urllib3.exceptions.HTTPError) -> Failure:
    """The failure behind a lost reply: a gRPC port answers without a status line of HTTP, a dying server not at all."""
    cause = error.args[-1] if error.args else None
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, http.client.RemoteDisconnected):
        return Failure(Kind.FOREIGN, "its reply is not HTTP")
    if isinstance(error, urllib3.exceptions.SSLError):
        return Failure(Kind.FOREIGN, str(error))
    return Failure(Kind.DOWN, str(error))


def _no_model(text: str, states: Callable[[], dict[str, str]]) -> Failure:
    """Distinguishes a model that is still being loaded from one that the server does not have."""
    try:
        found = states()
    except (Failure, LookupError, TypeError):
        return Failure(Kind.NO_MODEL, text)
    told = ", ".join(f"version {version} is {state}" for version, state in found.items())
    return Failure(Kind.LOADING if _LOADING & set(found.values()) else Kind.NO_MODEL, f"{text} ({told})")


def _to_json(value: np.ndarray) -> Any:
    def escaped(leaf: Any) -> Any:
        if isinstance(leaf, list):
            return [escaped(each) for each in leaf]
        data = to_bytes(leaf)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(data).decode()}

    return escaped(value.tolist()) if value.dtype == object else value.tolist()


def _from_json(value: Any) -> np.ndarray:
    """An output as an array; its type is that of the JSON values, since TensorFlow Serving writes a point or an
    exponent in every float and in no integer."""
    leaf = value
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    return np.array(value, object if isinstance(leaf, list) else _DTYPES[type(leaf)])


def bytes_of(array: np.ndarray) -> np.ndarray:
    """Strings, in an array of any shape, as bytes."""
    return np.array([to_bytes(text) for text in array.flat], object).reshape(array.shape)


def strings_of(array: np.ndarray) -> np.ndarray:
    """Bytes, in an array of any shape, as strings; numbers stay."""
    if array.dtype != object:
        return array
    return np.array([from_bytes(data) for data in array.flat], object).reshape(array.shape)

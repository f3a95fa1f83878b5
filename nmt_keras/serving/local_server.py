"""A server of one export, for a laptop and for tests: the REST and gRPC interface of TensorFlow Serving, and its way to
merge requests, over TensorFlow's C library. It is no replacement for TensorFlow Serving: it has no TLS, no versions
beside each other, no metrics, and runs one batch at a time.

Replies, statuses and texts of errors are those of tensorflow/serving (json_tensor.cc, http_rest_api_handler.cc,
predict_util.cc, get_model_status_impl.cc) and of its batcher (shared_batch_scheduler.h).
"""

import base64
import contextlib
import http.server
import json
import pathlib
import queue
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from nmt_keras.errors import UserError
from nmt_keras.serving import c_session, proof
from nmt_keras.serving.ports import family_of, require_free
from nmt_keras.serving.versions import needs_of

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?(:predict|/metadata)?")
_HTTP = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503, "INTERNAL": 500}
_DTYPES: dict[int, type] = {1: np.float32, 3: np.int32, 7: object, 10: np.bool_}  # TF_DataType to NumPy's
_NAMES = {1: "DT_FLOAT", 3: "DT_INT32", 7: "DT_STRING", 9: "DT_INT64", 10: "DT_BOOL"}
_JSON_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {  # of Python, and what the type is called
    object: ((str, dict), "string"),
    np.int32: ((int,), "int32"),
    np.float32: ((int, float), "float"),
    np.bool_: ((bool,), "bool"),
}
_MOST_BYTES = 64 << 20  # of a REST request
_SECONDS = 60  # that a slow sender is waited for
_LINGERING_SECONDS = 2.0  # that one is listened to who was refused


class Refusal(Exception):
    """An error status.

    Args:
        code: the name of gRPC's.
        text: what is told.
    """

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code
        self.text = text


class Batching(NamedTuple):
    """How requests are merged: fields of TensorFlow Serving's `batching_parameters.txt`."""

    max_batch_size: int = 64  # rows
    batch_timeout_micros: int = 2000  # that a batch waits to be filled
    max_enqueued_batches: int = 100  # that wait; more requests are refused

    @classmethod
    def read(cls, path: pathlib.Path) -> "Batching":
        """Reads a file, in which a field that is not there has its default.

        Raises:
            UserError: it cannot be read, or a value is not positive.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: give the batching_parameters.txt of an export") from error
        found = {name: int(value) for name, value in re.findall(r"(\w+)\s*\{\s*value\s*:\s*(\d+)\s*\}", text)}
        values = {name: found[name] for name in cls._fields if name in found}
        wrong = [name for name, value in values.items() if value < 1 and name != "batch_timeout_micros"]
        if wrong:
            raise UserError(f"{path}: {wrong[0]} must be positive, it is {values[wrong[0]]}")
        return cls(**values)


class _Request(NamedTuple):
    """A call that waits to be merged."""

    inputs: dict[str, Any]
    rows: int
    reply: "Future[dict[str, Any]]"


class _Merger:
    """Merges calls of one signature: each batch is of calls that came before it was begun, in their order.

    Args:
        run: runs a signature on inputs.
        batching: how.
    """

    def __init__(self, run: Any, batching: Batching):
        self._run = run
        self._batching = batching
        self._waiting: queue.Queue[_Request] = queue.Queue()
        self._rows = 0  # that wait
        self._counting = threading.Lock()
        self._left: _Request | None = None  # what did not fit into the batch before
        threading.Thread(target=self._serve, daemon=True).start()

    def call(self, inputs: dict[str, Any], rows: int) -> dict[str, Any]:
        """The outputs of a call, padded to the longest of those it was merged with."""
        most = self._batching.max_batch_size
        if rows > most:
            limit = f"Task size {rows} is larger than maximum input batch size {most}"
            raise Refusal("INVALID_ARGUMENT", limit)
        with self._counting:
            if self._rows + rows > most * self._batching.max_enqueued_batches:
                raise Refusal("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            self._rows += rows
        request = _Request(inputs, rows, Future())
        self._waiting.put(request)
        return request.reply.result()

    def _serve(self) -> None:
        while True:
            batch = self._next()
            with self._counting:
                self._rows -= sum(request.rows for request in batch)
            try:
                names = batch[0].inputs
                merged = {name: _joined([request.inputs[name] for request in batch]) for name in names}
                outputs = self._run(merged)
                start = 0
                for request in batch:
                    stop = start + request.rows
                    request.reply.set_result({name: value[start:stop] for name, value in outputs.items()})
                    start = stop
            except Exception as error:  # told to each caller, as a failing operation is on a server
                for request in batch:
                    if not request.reply.done():
                        request.reply.set_exception(error)

    def _next(self) -> list[_Request]:
        """The calls of the next batch; the first is waited for, and others as long as the time-out says."""
        first, self._left = self._left or self._waiting.get(), None
        batch, rows = [first], first.rows
        end = time.monotonic() + self._batching.batch_timeout_micros / 1e6
        while rows < self._batching.max_batch_size:
            try:
                other = self._waiting.get(timeout=max(end - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if rows + other.rows > self._batching.max_batch_size:
                self._left = other
                break
            batch.append(other)
            rows += other.rows
        return batch


def _joined(parts: list[Any]) -> Any:
    """Inputs of several calls one after the other: strings are lists, numbers arrays."""
    if isinstance(parts[0], np.ndarray) and parts[0].dtype != object:
        return np.concatenate(parts)
    return [value for part in parts for value in part]


class ServedModel:
    """One version of a model on a server. Threads may share it.

    Args:
        folder: the export.
        model: its name.
        version: its number.
        batching: how requests are merged; None runs each on its own.

    Raises:
        RuntimeError: `folder` is no SavedModel that loads.
    """

    max_body = _MOST_BYTES

    def __init__(self, folder: pathlib.Path, model: str, version: int = 1, batching: Batching | None = None):
        self.model = model
        self.version = version
        self.state = "AVAILABLE"
        self._signatures = proof.signatures(folder)
        self._session = c_session.Session(str(folder), proof.c_libraries(), self._signatures)
        self._running = threading.Lock()
        self._mergers = {}
        if batching:
            self._mergers = {name: _Merger(self._runner(name), batching) for name in self._signatures}

    def find(self, model: str, version: int | None) -> None:
        """Raises unless the model is there and loaded."""
        if model != self.model or version not in (None, self.version) or self.state != "AVAILABLE":
            request = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {request}")

    def states(self, model: str, version: int | None) -> dict[int, str]:
        """The states of the versions of a model, as the model service tells them."""
        if model != self.model:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {model}")
        if version not in (None, self.version):
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {model}")
        return {self.version: self.state}

    def inputs_of(self, signature: str) -> dict[str, type]:
        """The names of a signature's inputs, and NumPy's types."""
        return {name: _DTYPES[kind] for name, (_, kind) in self._signatures[signature]["inputs"].items()}

    def has(self, signature: str) -> bool:
        """Whether the model has a signature."""
        return signature in self._signatures

    def warm_up(self, folder: pathlib.Path) -> None:
        """Runs the requests that an export has for this, as TensorFlow Serving does before it serves a model.

        Raises:
            UserError: one fails, so that a server would not serve it.
        """
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        for record in tf.data.TFRecordDataset([str(path)] if path.exists() else []).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            signature = request.model_spec.signature_name
            try:
                self._runner(signature)({name: tf.make_ndarray(value) for name, value in request.inputs.items()})
            except RuntimeError as error:
                needs = needs_of(folder)
                remedy = f"; the export needs {needs}" if needs else "; export it again on a machine like this one"
                raise UserError(
                    f"{folder}: a warm-up request fails, of the signature {signature}: {error}{remedy}"
                ) from error

    def metadata(self) -> dict[str, Any]:
        """The signatures as TensorFlow Serving's REST interface tells them."""

        def told(tensors: dict[str, tuple[str, int]]) -> dict[str, Any]:
            return {
                name: {"dtype": _NAMES.get(kind, str(kind)), "name": place} for name, (place, kind) in tensors.items()
            }

        definitions = {
            name: {"inputs": told(sides["inputs"]), "outputs": told(sides["outputs"])}
            for name, sides in self._signatures.items()
        }
        return {
            "model_spec": {"name": self.model, "signature_name": "", "version": str(self.version)},
            "metadata": {"signature_def": {"signature_def": definitions}},
        }

    def predict(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Runs a signature, merged with other calls where the model merges: outputs as `c_session.Session.run` gives
        them.

        Raises:
            Refusal: the inputs do not fit, too many calls wait, or an operation failed.
        """
        sizes = {len(values) for values in inputs.values()}
        if len(sizes) > 1:
            raise Refusal(
                "INVALID_ARGUMENT", "Batching input tensors supplied in a given call must have equal 0th size"
            )
        try:
            if signature in self._mergers and sizes != {0}:
                return self._mergers[signature].call(inputs, sizes.pop())
            return self._runner(signature)(inputs)
        except RuntimeError as error:
            raise Refusal("INTERNAL", str(error)) from error

    def _runner(self, signature: str) -> Any:
        def run(inputs: dict[str, Any]) -> dict[str, Any]:
            with self._running:
                return self._session.run(signature, inputs)

        return run


def rest_handler(served: ServedModel) -> type[http.server.BaseHTTPRequestHandler]:
    """The REST interface of a model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers one connection."""

        protocol_version = "HTTP/1.1"
        timeout = _SECONDS

        def do_GET(self) -> None:
            """The state of the model, or its signatures."""
            self._answer("/metadata", "")

        def do_POST(self) -> None:
            """A prediction."""
            self._answer(":predict")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: texts are the callers'."""

        def _answer(self, *verbs: str) -> None:
            header = self.headers.get("Content-Length", "0")
            length = int(header) if re.fullmatch("[0-9]{1,18}", header) else served.max_body + 1
            if self.headers.get("Transfer-Encoding", "identity").lower() != "identity":
                text = "Send the body whole, with its Content-Length: this server reads none in chunks"
                self._send_without_body(411, "application/json", json.dumps({"error": text}).encode())
                return
            if length > served.max_body:
                page = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
                self._send_without_body(413, "text/html", page)
                return
            body = self.rfile.read(length)
            match = _PATH.fullmatch(self.path)
            status = 200
            try:
                if not match or (match[3] or "") not in verbs:
                    raise Refusal("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
                model, version = urllib.parse.unquote(match[1]), None if match[2] is None else int(match[2])
                value = _reply(served, match[3] or "", model, version, body)
            except Refusal as refusal:
                status, value = _HTTP[refusal.code], {"error": refusal.text}
            text = json.dumps(value, indent=4, ensure_ascii=False)
            self._send(status, "application/json", text.encode("utf-8", "surrogateescape"))

        def _send_without_body(self, status: int, kind: str, body: bytes) -> None:
            """Answers a request whose body is not wanted, and ends the connection.

            What the caller still sends is taken for a moment and forgotten: it may send all before it reads, and a
            connection that is closed before would be reset, with the answer.
            """
            self._send(status, kind, body)
            self.close_connection = True
            end = time.monotonic() + _LINGERING_SECONDS
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(_LINGERING_SECONDS)
                while time.monotonic() < end and self.connection.recv(1 << 16):
                    pass

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            try:
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:  # nobody waits for it any more
                self.close_connection = True

    return Handler


def _reply(served: ServedModel, verb: str, model: str, version: int | None, body: bytes) -> dict[str, Any]:
    if not verb:
        health = {"error_code": "OK", "error_message": ""}
        states = served.states(model, version).items()
        return {"model_version_status": [{"version": str(v), "state": s, "status": health} for v, s in states]}
    served.find(model, version)
    return served.metadata() if verb == "/metadata" else _prediction(served, body)


def _prediction(served: ServedModel, body: bytes) -> dict[str, Any]:
    """The reply to a request by columns, `inputs`, or by rows, `instances`."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict) or ("inputs" in request) == ("instances" in request):
        has_both = isinstance(request, dict) and "inputs" in request
        text = (
            "One of 'inputs' and 'instances' is wanted, not both" if has_both else "Missing 'inputs' or 'instances' key"
        )
        raise Refusal("INVALID_ARGUMENT", text)
    signature = request.get("signature_name", "serving_default")
    if not isinstance(signature, str) or not served.has(signature):
        text = f'Serving signature name: "{signature}" not found in signature def'
        raise Refusal("INVALID_ARGUMENT", text)
    known = served.inputs_of(signature)
    given = request["inputs"] if "inputs" in request else _columns(request["instances"], list(known))
    if not isinstance(given, dict):  # of a signature with one input its value may stand alone
        given = {next(iter(known)): given}
    inputs = {}
    for name, dtype in known.items():
        if name in given and not isinstance(given[name], list):
            raise Refusal("INVALID_ARGUMENT", f"Batching input {name} must have one dimension: give a list")
        if name not in given:
            raise Refusal("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
        inputs[name] = _from_json(given[name], dtype)
    outputs = {name: _to_json(value) for name, value in served.predict(signature, inputs).items()}
    if "instances" in request:
        rows = [dict(zip(outputs, values)) for values in zip(*outputs.values())]
        return {"predictions": rows if len(outputs) > 1 else next(iter(outputs.values()))}
    return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


def _columns(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    """Rows as columns; a row is an object, or of one input its value."""
    if not isinstance(instances, list) or not instances:
        raise Refusal("INVALID_ARGUMENT", "Expecting 'instances' value to be a non-empty list")
    if not isinstance(instances[0], dict) or "b64" in instances[0]:
        return {names[0]: instances}
    if not all(isinstance(row, dict) and row.keys() == instances[0].keys() for row in instances):
        raise Refusal("INVALID_ARGUMENT", "Failed to process element of 'instances' list: rows have other keys")
    return {name: [row[name] for row in instances] for name in instances[0]}


def _from_json(values: list[Any], dtype: type) -> Any:
    accepted, kind = _JSON_TYPES[dtype]
    for value in values:
        if not isinstance(value, accepted) or isinstance(value, bool) != (dtype is np.bool_):
            raise Refusal(
                "INVALID_ARGUMENT", f"JSON Value: {value} Type: {type(value)} is not of expected type: {kind}"
            )
    try:
        if dtype is object:
            return [
                base64.b64decode(v["b64"], validate=True) if isinstance(v, dict) else v.encode("utf-8") for v in values
            ]
        return np.array(values, dtype)
    except (ValueError, KeyError, OverflowError, TypeError) as error:  # no base64, lone surrogates, beyond int32
        raise Refusal("INVALID_ARGUMENT", f"JSON Value cannot be read: {error}") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_to_json(each) for each in value]
    if value.dtype == np.float32:  # in the fewest digits that tell it from its neighbours
        return np.vectorize(lambda number: float(str(number)), otypes=[object])(value).tolist()
    return value.tolist()


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """The gRPC interface of a model.

    Args:
        served: the model.
    """

    def __init__(self, served: ServedModel):
        self._served = served

    def Predict(self, request: Any, context: Any) -> Any:
        """Runs a signature."""
        signature = request.model_spec.signature_name or "serving_default"
        with _told(context):
            self._served.find(*_model_of(request))
            if not self._served.has(signature):
                raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
            known = self._served.inputs_of(signature)
            if set(request.inputs) != set(known):
                sizes = f"{len(request.inputs)}!={len(known)}"
                raise Refusal("INVALID_ARGUMENT", f"input size does not match signature: {sizes}")
            inputs = {name: _array_of(name, value) for name, value in request.inputs.items()}
            for name, dtype in known.items():
                if inputs[name].dtype != dtype:
                    text = f"Expected input {name} to be {np.dtype(dtype)} but got {inputs[name].dtype}"
                    raise Refusal("INVALID_ARGUMENT", text)
                if inputs[name].ndim != 1:
                    raise Refusal("INVALID_ARGUMENT", f"Batching input {name} must have one dimension")
            reply = predict_pb2.PredictResponse()
            for name, value in self._served.predict(signature, inputs).items():
                kind = tf.string if isinstance(value, list) else None
                reply.outputs[name].CopyFrom(tf.make_tensor_proto(value, kind))
            return reply

    def GetModelStatus(self, request: Any, context: Any) -> Any:
        """The states of a model's versions."""
        with _told(context):
            reply = get_model_status_pb2.GetModelStatusResponse()
            for version, state in self._served.states(*_model_of(request)).items():
                reply.model_version_status.add(version=version, state=state)
            return reply


def _array_of(name: str, tensor: Any) -> np.ndarray:
    """A tensor of a request as an array.

    Raises:
        Refusal: it is none.
    """
    try:
        if any(dimension.size < 0 for dimension in tensor.tensor_shape.dim):
            raise ValueError("a dimension is negative")
        return tf.make_ndarray(tensor)
    except (ValueError, TypeError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise Refusal("INVALID_ARGUMENT", f"Input {name} is no tensor: {reason}") from error


@contextlib.contextmanager
def _told(context: Any) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        context.abort(grpc.StatusCode[refusal.code], refusal.text)


def _model_of(request: Any) -> tuple[str, int | None]:
    spec = request.model_spec
    return spec.name, spec.version.value if spec.HasField("version") else None


class Ports(NamedTuple):
    """Where a model is served."""

    rest: int
    grpc: int


class _RestServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any):
        self.address_family = family_of(address[0])
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing where a caller has hung up; else the traceback, as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(served: ServedModel, host: str = "127.0.0.1", rest_port: int = 0, grpc_port: int = 0) -> Iterator[Ports]:
    """Serves a model while the block runs; gives the ports, which are free ones where they are 0.

    Raises:
        UserError: a port is taken, or there is no such host.
    """
    require_free(host, rest_port, "--rest_port")
    require_free(host, grpc_port, "--grpc_port")  # gRPC would share a port with another gRPC server
    try:
        rest = _RestServer((host, rest_port), rest_handler(served))
    except OSError as error:
        raise UserError(
            f"Cannot listen at {host}, port {rest_port}: {error.strerror}; give another --rest_port or --host"
        ) from error
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]  # as TF Serving
    rpc = grpc.server(ThreadPoolExecutor(32), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(served), rpc)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Servicer(served), rpc)
    try:
        port = rpc.add_insecure_port(f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}")
    except RuntimeError as error:
        rest.server_close()
        raise UserError(
            f"Cannot listen at {host}, port {grpc_port}: it is taken; give another --grpc_port or --host"
        ) from error
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    rpc.start()
    try:
        yield Ports(rest.server_address[1], port)
    finally:
        rpc.stop(None).wait()
        rest.shutdown()
        rest.server_close()
        thread.join()

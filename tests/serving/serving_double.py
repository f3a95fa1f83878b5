"""Answers as TensorFlow Serving does, by REST and gRPC, from an export that TensorFlow's C library runs.

python -m tests.serving.serving_double --folder=saved_models/en_zh/1 --model=en_zh

The ports are free ones; they are printed as a line of JSON once both answer. Replies, statuses and texts of errors are
those of tensorflow/serving (json_tensor.cc, http_rest_api_handler.cc, predict_util.cc, get_model_status_impl.cc) and of
its batcher (shared_batch_scheduler.h).
"""

import argparse
import base64
import contextlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from nmt_keras.serving import c_session, proof

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict)?")
_HTTP = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503, "INTERNAL": 500}
_DTYPES = {1: np.float32, 3: np.int32, 7: object}  # TF_DataType to NumPy's


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


class Double:
    """One version of a model on a server. Its attributes may be changed while it answers.

    Args:
        folder: the export.
        model: its name.
        version: its number.
        max_batch: rows of a request, as the batcher limits them.
        max_body: bytes of a REST request, as a proxy limits them.
        fail_first: so many requests find the server unavailable.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: str,
        version: int = 1,
        max_batch: int | None = None,
        max_body: int | None = None,
        fail_first: int = 0,
    ):
        self.model = model
        self.version = version
        self.max_batch = max_batch
        self.max_body = max_body
        self.fail_first = fail_first
        self.state = "AVAILABLE"
        self.batches: list[int] = []  # rows of each request that came so far, but for those for the limits
        self.inputs: dict[str, np.ndarray] = {}  # of the last request
        self.in_flight = self.most_in_flight = 0
        self._signatures = proof.signatures(folder)
        self._session = c_session.Session(str(folder), proof.c_libraries(), self._signatures)
        self._running, self._counting = threading.Lock(), threading.Lock()

    def find(self, model: str, version: int | None) -> None:
        """Raises unless the model is there and loaded."""
        if model != self.model or version not in (None, self.version) or self.state != "AVAILABLE":
            request = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {request}")

    def states(self, model: str, version: int | None) -> dict[int, str]:
        """Of the versions of a model, as the model service tells them."""
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

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict:
        """Runs a signature: outputs as `c_session.Session.run` gives them."""
        rows = len(next(iter(inputs.values())))
        with self._counting:
            self.batches += [rows] * (signature != "limits")
            self.inputs = inputs
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fails, self.fail_first = self.fail_first > 0, max(self.fail_first - 1, 0)
        try:
            if fails:
                raise Refusal("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            if self.max_batch is not None and rows > self.max_batch:
                limit = f"Task size {rows} is larger than maximum input batch size {self.max_batch}"
                raise Refusal("INVALID_ARGUMENT", limit)
            with self._running:
                return self._session.run(signature, inputs)
        except RuntimeError as error:
            raise Refusal("INTERNAL", str(error)) from error
        finally:
            with self._counting:
                self.in_flight -= 1


def rest_handler(double: Double) -> type[http.server.BaseHTTPRequestHandler]:
    """The REST interface of a model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # pylint: disable=invalid-name
            self._answer(self._status)

        def do_POST(self):  # pylint: disable=invalid-name
            self._answer(self._predict)

        def log_message(self, *_):
            pass

        def _answer(self, reply):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if double.max_body is not None and len(body) > double.max_body:
                page = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
                return self._send(413, "text/html", page)
            match = _PATH.fullmatch(self.path)
            try:
                if not match:
                    raise Refusal("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
                model, version, _ = match.groups()
                status, value = 200, reply(urllib.parse.unquote(model), None if version is None else int(version), body)
            except Refusal as refusal:
                status, value = _HTTP[refusal.code], {"error": refusal.text}
            text = json.dumps(value, indent=4, ensure_ascii=False)
            return self._send(status, "application/json", text.encode("utf-8", "surrogateescape"))

        def _send(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _status(self, model, version, _):
            health = {"error_code": "OK", "error_message": ""}
            states = double.states(model, version).items()
            return {"model_version_status": [{"version": str(v), "state": s, "status": health} for v, s in states]}

        def _predict(self, model, version, body):
            request = json.loads(body)
            double.find(model, version)
            signature = request.get("signature_name", "serving_default")
            if not double.has(signature):
                text = f'Serving signature name: "{signature}" not found in signature def'
                raise Refusal("INVALID_ARGUMENT", text)
            inputs = {}
            for name, dtype in double.inputs_of(signature).items():
                if name not in request["inputs"]:
                    raise Refusal("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
                inputs[name] = _from_json(request["inputs"][name], dtype)
            outputs = {name: _to_json(value) for name, value in double.predict(signature, inputs).items()}
            return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}

    return Handler


def _from_json(values: list, dtype: type):
    accepted = {object: (str, dict), np.int32: (int,), np.float32: (int, float)}[dtype]
    for value in values:
        if not isinstance(value, accepted):
            kind = {object: "string", np.int32: "int32", np.float32: "float"}[dtype]
            raise Refusal(
                "INVALID_ARGUMENT", f"JSON Value: {value} Type: {type(value)} is not of expected type: {kind}"
            )
    if dtype is object:
        return [base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode("utf-8") for v in values]
    return np.array(values, dtype)


def _to_json(value):
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
        double: what answers.
    """

    def __init__(self, double: Double):
        self._double = double

    def Predict(self, request, context):  # pylint: disable=invalid-name
        """Runs a signature."""
        signature = request.model_spec.signature_name or "serving_default"
        with _told(context):
            self._double.find(*_model_of(request))
            if not self._double.has(signature):
                raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
            known = self._double.inputs_of(signature)
            if set(request.inputs) != set(known):
                sizes = f"{len(request.inputs)}!={len(known)}"
                raise Refusal("INVALID_ARGUMENT", f"input size does not match signature: {sizes}")
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            for name, dtype in known.items():
                if inputs[name].dtype != dtype:
                    text = f"Expected input {name} to be {np.dtype(dtype)} but got {inputs[name].dtype}"
                    raise Refusal("INVALID_ARGUMENT", text)
            reply = predict_pb2.PredictResponse()
            for name, value in self._double.predict(signature, inputs).items():
                dtype = tf.string if isinstance(value, list) else None
                reply.outputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
            return reply

    def GetModelStatus(self, request, context):  # pylint: disable=invalid-name
        """The states of a model's versions."""
        with _told(context):
            reply = get_model_status_pb2.GetModelStatusResponse()
            for version, state in self._double.states(*_model_of(request)).items():
                reply.model_version_status.add(version=version, state=state)
            return reply


@contextlib.contextmanager
def _told(context):
    try:
        yield
    except Refusal as refusal:
        context.abort(grpc.StatusCode[refusal.code], refusal.text)


def _model_of(request) -> tuple[str, int | None]:
    spec = request.model_spec
    return spec.name, spec.version.value if spec.HasField("version") else None


@contextlib.contextmanager
def serving(double: Double):
    """Serves a model on the loopback interface while the block runs; gives the ports, `rest` and `grpc`."""
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), rest_handler(double))
    rest.daemon_threads = True
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    rpc = grpc.server(ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(double), rpc)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Servicer(double), rpc)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    try:
        yield {"rest": rest.server_address[1], "grpc": port}
    finally:
        rpc.stop(None).wait()
        rest.shutdown()
        rest.server_close()
        thread.join()


def main() -> None:
    """Serves until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="model")
    parser.add_argument("--version", type=int, default=1)
    for name in ("max_batch", "max_body"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--fail_first", type=int, default=0)
    with serving(Double(**vars(parser.parse_args()))) as ports:
        print(json.dumps(ports), flush=True)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                input()


if __name__ == "__main__":
    main()

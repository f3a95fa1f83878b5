"""The server of one export for a laptop: merged requests, REST by rows and columns, and its job."""

import contextlib
import http.client
import json
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from nmt_keras.config import DecodingConfig
from nmt_keras.errors import UserError
from nmt_keras.serving import export
from nmt_keras.serving.client import Client, TranslateOptions
from nmt_keras.serving.local_server import Batching, Refusal, ServedModel, _Merger, serving
from nmt_keras.tokenizers.building import train_tokenizer
from pipelines import serve

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["abc", "", "g", "fedcbagfedcba", "bb", "gac", "a", "dd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, varied_transformer):
    """An export of an untrained transformer, as version 3 of `model`."""
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    decoding = DecodingConfig(beam_size=3, max_length=9, max_source_length=16, terms_beam_size=0)
    module = export.TranslationModule(varied_transformer(11, end=-4.0), tokenizer, tokenizer, decoding)
    base = tmp_path_factory.mktemp("models") / "model"
    place = export.save(module, base).rename(base / "3")
    (place / "batching_parameters.txt").write_text(
        "max_batch_size { value: 8 }\nbatch_timeout_micros { value: 5000 }\n"
    )
    return place


@pytest.fixture(scope="module")
def served(folder):
    """A model that merges, and counts the rows of what it runs."""

    class Counted(ServedModel):
        def _runner(self, signature):
            run = super()._runner(signature)

            def counted(inputs):
                self.rows.append(len(next(iter(inputs.values()))))
                return run(inputs)

            return counted

    model = Counted(folder, "model", 3, Batching.read(folder / "batching_parameters.txt"))
    model.rows = []
    return model


@pytest.fixture(scope="module")
def ports(served):
    with serving(served) as ports:
        yield ports


def _post(ports, path, value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{ports.rest}{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_merged_requests_have_the_answers_of_their_own(served, ports, scheme):
    address = f"{scheme}://127.0.0.1:{ports.rest if scheme == 'http' else ports.grpc}/model"
    with Client(address, batch_sentences=1, concurrency=8) as client:
        alone = [client.translate([text])[0] for text in TEXTS]
        served.rows.clear()
        together = client.translate(TEXTS * 3)
        assert len(served.rows) < 24 and max(served.rows) > 1 and max(served.rows) <= 8
        assert [each.text for each in together] == [each.text for each in alone] * 3
        np.testing.assert_allclose(
            [each.best.log_prob for each in together], [each.best.log_prob for each in alone] * 3, atol=1e-5
        )
        prefixed = client.translate(TEXTS, prefixes=["f"] * 8, num_hypotheses=2)
        assert all(each.text.startswith("f") for text, each in zip(TEXTS, prefixed) if text)


def test_rest_takes_columns_and_rows(ports):
    path = "/v1/models/model:predict"
    status, columns = _post(ports, path, {"inputs": {"text": TEXTS}})
    assert status == 200
    status, rows = _post(ports, path, {"instances": [{"text": text} for text in TEXTS]})
    assert status == 200 and [row["translation"] for row in rows["predictions"]] == columns["outputs"]["translation"]
    status, values = _post(ports, path, {"instances": [{"b64": "YWJj"}, "abc"]})
    assert status == 200 and values["predictions"][0] == values["predictions"][1]
    status, refused = _post(ports, path, {"instances": [{"b64": "!!"}]})
    assert status == 400 and "JSON Value cannot be read" in refused["error"]
    row = {"text": "abc", **TranslateOptions()._asdict(), "prefix": "", "terms": ""}
    for attention, expected in ((True, 200), (False, 200), (1, 400), ("true", 400)):
        status, reply = _post(
            ports, path, {"signature_name": "translate", "instances": [{**row, "attention": attention}]}
        )
        assert status == expected and ("is not of expected type: bool" in reply.get("error", "")) == (status == 400)
    _, alone = _post(ports, path, {"inputs": TEXTS})
    assert alone == columns
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.rest}/v1/models/model/versions/3/metadata") as answer:
        told = json.loads(answer.read())
    signatures = told["metadata"]["signature_def"]["signature_def"]
    assert signatures["translate"]["inputs"]["prefix"]["dtype"] == "DT_STRING"
    assert told["model_spec"] == {"name": "model", "signature_name": "", "version": "3"}


@pytest.mark.parametrize(
    "path, value, status, message",
    [
        (":predict", b"{", 400, "JSON Parse error"),
        (":predict", b"[" * 5000, 400, "JSON Parse error"),
        (":predict", b'{"inputs": {"text": ["\xff"]}}', 400, "JSON Parse error"),
        (":predict", [], 400, "Missing 'inputs' or 'instances' key"),
        (
            ":predict",
            {"inputs": {"text": ["a"]}, "instances": ["a"]},
            400,
            "'inputs' and 'instances' is wanted, not both",
        ),
        (":predict", {"inputs": {"text": "a"}}, 400, "Batching input text must have one dimension: give a list"),
        (":predict", {"instances": []}, 400, "non-empty list"),
        (":predict", {"instances": [{"text": "a"}, {"txt": "a"}]}, 400, "other keys"),
        (":predict", {"inputs": {"txt": ["a"]}}, 400, "Missing named input: text"),
        (":predict", {"inputs": {"text": [1]}}, 400, "not of expected type: string"),
        (":predict", {"inputs": {"text": [True]}}, 400, "not of expected type: string"),
        (":predict", {"inputs": {"text": [{"b65": "x"}]}}, 400, "cannot be read"),
        (":predict", {"signature_name": ["x"], "inputs": {}}, 400, "not found in signature def"),
        (":predict", {"signature_name": "score", "inputs": {"source": ["a"], "target": []}}, 400, "equal 0th size"),
        (":predict", {"inputs": {"text": ["a"] * 9}}, 400, "Task size 9 is larger than maximum input batch size 8"),
        ("/metadata", {}, 400, "Malformed request: POST"),
        (f"/versions/{'9' * 5000}:predict", {}, 400, "Malformed request: POST"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_request_is_refused_and_harms_no_other(ports, path, value, status, message):
    found, reply = _post(ports, f"/v1/models/model{path}", value)
    assert found == status and message in reply["error"]
    assert _post(ports, "/v1/models/model:predict", {"inputs": {"text": ["abc"]}})[0] == 200
    assert _post(ports, "/v1/models/other:predict", {"inputs": {"text": ["abc"]}})[0] == 404


def test_what_is_no_tensor_is_refused(ports):
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for size, kind, message in (
            (10**15, 7, "Error"),
            (-5, 7, "negative"),
            (1, 99, "no tensor"),
            (1, 3, "no tensor"),
        ):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "model"
            tensor = request.inputs["text"]
            tensor.dtype = kind
            tensor.tensor_shape.dim.add().size = size
            if kind == 3:
                tensor.tensor_content = b"abc"
            else:
                tensor.string_val.append(b"a")
            with pytest.raises(grpc.RpcError) as error:
                stub.Predict(request, timeout=30)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and message in error.value.details(), size


def test_a_long_text_comes_by_both_ways(ports):
    texts = ["abc " * 1_500_000, "abc"]
    for place in (f"http://127.0.0.1:{ports.rest}", f"grpc://127.0.0.1:{ports.grpc}"):
        with Client(f"{place}/model") as client:
            long, short = client.translate(texts)
        assert long.truncated and short.hypotheses


def test_a_body_in_chunks_is_refused_and_who_still_sends_reads_the_answer(ports):
    def chunks():
        for part in (b'{"inputs": ', b'["abc"]}', b" " * 100_000):
            yield part
            time.sleep(0.2)  # the answer is there before the next one

    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", ports.rest, timeout=30)) as connection:
        connection.request("POST", "/v1/models/model:predict", chunks(), encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 411 and "Content-Length" in json.loads(answer.read())["error"]


def test_a_caller_who_hangs_up_is_nothing_to_tell(ports, capfd):
    body = b'{"inputs": {"text": ["abc"]}}'
    head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for request in (head + body, head + body[:9]):
        with socket.create_connection(("127.0.0.1", ports.rest)) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
            caller.sendall(request)
    assert _post(ports, "/v1/models/model:predict", {"inputs": {"text": ["abc"]}})[0] == 200
    time.sleep(0.5)
    assert capfd.readouterr().err == ""


def test_warm_up_requests_are_run_and_one_that_fails_ends_it(served, folder, tmp_path, monkeypatch):
    served.warm_up(tmp_path)  # there are none
    (tmp_path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.signature_name = "serving_default"
        log.predict_log.request.inputs["text"].CopyFrom(tf.make_tensor_proto(["abc"] * 3))
        writer.write(log.SerializeToString())
    served.rows.clear()
    served.warm_up(tmp_path)
    assert served.rows == [3]

    def fails(signature, inputs):
        raise RuntimeError("no such product")

    monkeypatch.setattr(served._session, "run", fails)
    with pytest.raises(UserError, match="a warm-up request fails, of the signature serving_default: no such product;"):
        served.warm_up(tmp_path)
    (tmp_path / "parity.json").write_text('{"needs": "oneDNN, without TF_ENABLE_ONEDNN_OPTS=0"}', encoding="utf-8")
    with pytest.raises(UserError, match="no such product; the export needs oneDNN, without TF_ENABLE_ONEDNN_OPTS=0"):
        served.warm_up(tmp_path)


def test_a_batch_that_fails_tells_each_of_its_callers_and_the_next_one_runs():
    def run(inputs):
        if "bad" in inputs["text"]:
            raise RuntimeError("it failed")
        return {"out": [text.upper() for text in inputs["text"]]}

    merger = _Merger(run, Batching(max_batch_size=4, batch_timeout_micros=200_000))
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(merger.call, {"text": [text]}, 1) for text in ("bad", "a", "b")]
        for reply in replies:
            with pytest.raises(RuntimeError, match="it failed"):
                reply.result(10)
    assert merger.call({"text": ["c", "d"]}, 2) == {"out": ["C", "D"]}


def test_calls_over_the_queue_are_refused_and_those_that_do_not_fit_come_next():
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def run(inputs):
        begun.set()
        go_on.wait(10)
        seen.append(list(inputs["text"]))
        return {"out": inputs["text"]}

    merger = _Merger(run, Batching(max_batch_size=2, batch_timeout_micros=0, max_enqueued_batches=2))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(merger.call, {"text": ["a", "b"]}, 2)
        begun.wait(10)
        rest = []
        for texts in (["c"], ["d", "e"], ["f"]):
            rest.append(pool.submit(merger.call, {"text": texts}, len(texts)))
            time.sleep(0.05)
        with pytest.raises(Refusal, match="queue to which this task was submitted is full"):
            merger.call({"text": ["g"]}, 1)
        go_on.set()
        assert first.result(10) == {"out": ["a", "b"]} and rest[1].result(10) == {"out": ["d", "e"]}
    assert seen == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def test_batching_parameters_are_read(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("max_batch_size { value: 7 }\nnum_batch_threads { value: 2 }")
    assert Batching.read(path) == Batching(7)
    path.write_text("max_batch_size { value: 0 }")
    with pytest.raises(UserError, match="max_batch_size must be positive, it is 0"):
        Batching.read(path)
    with pytest.raises(UserError, match="cannot be read: give the batching_parameters.txt of an export"):
        Batching.read(tmp_path / "none")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--saved_model must be given"),
        (
            ["--saved_model=nowhere"],
            "There is no folder nowhere; give an export, saved_models/<name> or a version of it",
        ),
        (
            ["--saved_model=BROKEN", "--rest_port=0", "--grpc_port=0"],
            "is no export that can be served: the export does not load",
        ),
        (
            ["--saved_model=FOLDER", "--rest_port=TAKEN"],
            "Cannot listen at 127.0.0.1, port TAKEN: .*another --rest_port or --host",
        ),
        (["--saved_model=FOLDER", "--rest_port=0", "--grpc_port=TAKEN"], "give another --grpc_port"),
        (["--saved_model=FOLDER", "--rest_port=8701", "--grpc_port=8701"], "are both 8701: give two ports"),
        (["--saved_model=FOLDER", "--name=a/b"], "--name is a part of addresses, without / and :. Received: 'a/b'"),
    ],
)
def test_a_mistake_is_one_line(folder, ports, tmp_path, arguments, message, capsys):
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    for name, value in (("FOLDER", folder), ("TAKEN", ports.rest), ("BROKEN", tmp_path)):
        arguments = [argument.replace(name, str(value)) for argument in arguments]
        message = message.replace(name, str(value))
    assert serve.main(arguments) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and "Traceback" not in told


@pytest.mark.slow
def test_the_job_serves_the_newest_version_until_it_is_asked_to_end(folder):
    command = [sys.executable, "-m", "pipelines.serve", f"--saved_model={folder.parent}"]
    process = subprocess.Popen(
        [*command, "--rest_port=0", "--grpc_port=0"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    told = ""
    while "Ctrl-C" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    assert "warming up version 3" in told and "version 3 of model, merging up to 8 rows" in told
    for address in re.findall(r"(?:http|grpc)://\S+", told):
        with Client(address) as client:
            assert client.translate(["abc"])[0].hypotheses
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and "Traceback" not in process.stderr.read()
    process.stderr.close()

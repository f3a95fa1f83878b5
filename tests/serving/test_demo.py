"""The page to try models on: its server and its job. tests/browser has the page in a browser."""

import contextlib
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import nmt_keras
from nmt_keras.config import DecodingConfig
from nmt_keras.errors import UserError
from nmt_keras.serving import demo, export
from nmt_keras.serving.client import Client
from nmt_keras.serving.local import LocalTransport
from nmt_keras.tokenizers.building import train_tokenizer
from pipelines import demo as job
from pipelines import serve

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "nmt_keras" / "serving" / "demo_page"


def _paragraphs(varied_transformer):
    """A client of an export that splits texts into sentences, which has no signature `translate`."""
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    decoding = DecodingConfig(beam_size=2, max_length=9, split_sentences=True)
    module = export.TranslationModule(varied_transformer(11, end=-2.0), tokenizer, tokenizer, decoding)
    return Client("paragraphs", transport=LocalTransport(export.signatures_of(module), module))


@pytest.fixture(scope="module")
def server(trained_copy, varied_transformer):
    """A server of a copy model and of one that splits paragraphs."""
    models = [
        demo.Model("copy", nmt_keras.load(trained_copy / "run", terms_beam_size=10)),
        demo.Model("paragraphs", _paragraphs(varied_transformer)),
    ]
    with demo.Server(demo.Demo(models), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def _send(server, method, path, body=None, **headers):
    """The status, the headers and the body of an answer."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"Host": f"localhost:{port}", "Content-Type": "application/json", **headers}
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def _ask(server, path, **request):
    status, _, body = _send(server, "POST", path, json.dumps(request))
    return status, json.loads(body)


def test_the_page_is_three_files_that_load_nothing_from_elsewhere(server):
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, body = _send(server, "GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(rb"https?:|//[a-z]+\.|@import", body)
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", script)
    assert "<script>" not in (PAGE / "index.html").read_text() and " style=" not in (PAGE / "index.html").read_text()
    assert _send(server, "GET", "/../secret")[0] == 404 and _send(server, "GET", "/page.js/x")[0] == 404


def test_models_say_what_they_can(server):
    status, _, body = _send(server, "GET", "/api/models")
    copy, paragraphs = json.loads(body)["models"]
    assert status == 200 and copy["name"] == "copy" and copy["target_languages"] == []
    abilities = ("has_details", "takes_prefixes", "takes_terms", "gives_attention")
    assert all(copy[ability] for ability in abilities) and not any(paragraphs[ability] for ability in abilities)


def _utf16(text, start, end):
    return text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")


def test_translations_come_with_the_places_of_their_pieces_as_a_page_counts(server):
    lines = ["a b c", "\U0001f600 a  b", "", "<b>"]
    status, answer = _ask(server, "/api/translate", model=0, lines=lines, hypotheses=2)
    assert status == 200
    first, odd, blank, _ = answer["translations"]
    assert first["hypotheses"][0]["text"] == "a b c" and len(first["hypotheses"]) == 2 and not first["truncated"]
    for line, found in zip(lines[:2], (first, odd)):
        for hypothesis in found["hypotheses"]:
            text = hypothesis["text"]
            assert "".join(_utf16(text, start, end) for start, end, *_ in hypothesis["pieces"]) == text
            assert all(0 <= sure <= 1 for _, _, sure, _ in hypothesis["pieces"])
            assert all(-1 <= read < len(found["source_pieces"]) for *_, read in hypothesis["pieces"])
        pieces = [_utf16(line, *span) for span in found["source_pieces"] if span[1] > span[0]]
        assert "".join(pieces).replace("  ", " ") == line.replace("  ", " ")
    assert blank["hypotheses"] == [{"text": "", "score": 0.0, "pieces": []}]


def test_a_line_may_be_begun_and_other_words_are_proposed(server):
    status, answer = _ask(server, "/api/translate", model=0, lines=["a b c", "d e"], prefixes=["a c", ""])
    assert status == 200
    begun, plain = answer["translations"]
    assert begun["hypotheses"][0]["text"].startswith("a c") and plain["hypotheses"][0]["text"] == "d e"
    assert begun["is_prefix_kept"]
    status, answer = _ask(server, "/api/words", model=0, line="a b c", prefix="a ")
    assert status == 200 and all(text.startswith("a") for text in answer["texts"] + answer["cut_texts"])
    assert "a b c" in answer["texts"] and len({text[:3] for text in answer["cut_texts"]}) > 2


def test_terms_of_a_glossary_are_placed_and_where_is_said(server):
    glossary = "B = h\n# of a person\ne = <i>\nc\tg\tcase\nb=\nd"
    status, answer = _ask(server, "/api/translate", model=0, lines=["a b", "d d e", "a", "a C"], glossary=glossary)
    assert status == 200
    one, unwritable, none, other_case = [each["hypotheses"][0] for each in answer["translations"]]
    [term] = one["terms"]
    assert (term["term"], term["is_placed"]) == ("h", True) and _utf16(one["text"], *term["span"]) == "h"
    assert unwritable["terms"] == [{"term": "<i>", "is_placed": False, "span": None}]
    assert "terms" not in none and "terms" not in other_case
    assert answer["mistakes"] == [
        f"Line {number} of the glossary, {line!r}: an entry is a source term, = and a target term, as in dog = Hund"
        for number, line in ((5, "b="), (6, "d"))
    ]
    status, answer = _ask(server, "/api/attention", model=0, line="a b", glossary=glossary)
    assert status == 200 and "h" in "".join(answer["target"])
    status, answer = _ask(server, "/api/words", model=0, line="a b", prefix="a ", glossary=glossary)
    assert status == 200 and "h" in answer["texts"][0]
    assert _ask(server, "/api/translate", model=1, lines=["a b"], glossary=glossary)[0] == 200, "it places none"


@pytest.mark.parametrize(
    "text, way, found",
    [
        ("Hunde und Hund", "Hund", "Hund"),
        ("\U0001f600 他骑马。", "骑马", "骑马"),
        ("a+b", "+", "+"),
        ("Hund", "Katze", None),
    ],
)
def test_a_term_is_found_as_whole_words_where_there_are_spaces(text, way, found):
    span = demo._term([way], True, text)["span"]
    assert span == found or _utf16(text, *span) == found and (text != "Hunde und Hund" or span == [10, 14])


def test_a_client_of_what_splits_texts_says_how_to_have_attention(varied_transformer):
    with pytest.raises(
        UserError, match="^paragraphs gives no attention weights, it splits texts: load or export the run w"
    ):
        _paragraphs(varied_transformer).attention(["abc."])


def test_attention_is_that_of_the_translation_that_is_shown(server):
    status, answer = _ask(server, "/api/attention", model=0, line="a b c", prefix="h")
    assert status == 200 and answer["target"][0] == "h" and answer["target"][-1] == "</s>"
    assert len(answer["weights"]) == len(answer["target"])
    for row in answer["weights"]:
        assert len(row) == len(answer["source"]) and 95 <= sum(row) <= 105


def test_a_model_without_details_translates_too(server):
    status, answer = _ask(server, "/api/translate", model=1, lines=["abc. def."], hypotheses=3)
    assert status == 200 and answer["translations"][0]["hypotheses"][0]["pieces"] == []
    assert _ask(server, "/api/words", model=1, line="a", prefix="")[0] == 400
    assert _ask(server, "/api/attention", model=1, line="a") == (
        400,
        {"error": "paragraphs gives no attention weights"},
    )


@pytest.mark.parametrize(
    "body, status, message",
    [
        (b"{", 400, "A request is a JSON object"),
        (b"[" * 100_000, 400, "A request is a JSON object"),
        (b"[]", 400, "A request is a JSON object"),
        (b"\xff", 400, "A request is a JSON object"),
        ({"model": 2, "lines": []}, 400, "model must be a whole number from 0 to 1"),
        ({"model": True, "lines": []}, 400, "model must be a whole number from 0 to 1"),
        ({"lines": "abc"}, 400, "lines must be a list of at most 32 texts"),
        ({"lines": ["a"] * 33}, 400, "lines must be a list of at most 32 texts"),
        ({"lines": [1]}, 400, "lines must be text"),
        ({"lines": ["a" * 5_001]}, 400, "lines has 5,001 characters; at most 5,000 go"),
        ({"lines": ["a"], "prefixes": ["a", "b"]}, 400, "2 prefixes for 1 lines: give as many"),
        ({"lines": ["a"], "glossary": "a" * 20_001}, 400, "glossary has 20,001 characters; at most 20,000 go"),
        ({"lines": ["a"], "glossary": ["a = b"]}, 400, "glossary must be text"),
        ({"lines": ["a"], "hypotheses": 17}, 400, "hypotheses must be a whole number from 1 to 16"),
        (
            {"lines": ["a"], "target_language": "xx"},
            400,
            "copy does not translate into 'xx': it has one language alone",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_is_none_is_a_line(server, body, status, message):
    body = body if isinstance(body, bytes) else json.dumps(body)
    found, _, answer = _send(server, "POST", "/api/translate", body)
    error = json.loads(answer)["error"]
    assert found == status and message in error and "\n" not in error


def test_only_the_page_itself_is_answered(server):
    body = json.dumps({"lines": ["a"]})
    assert _send(server, "POST", "/api/translate", body, Host="evil.example:80")[0] == 403
    assert _send(server, "GET", "/", Host="evil.example")[0] == 403 and _send(server, "GET", "/", Host="")[0] == 403
    assert _send(server, "GET", "/", Host="[::1")[0] == 403
    for host in ("localhost", "localhost:9000", "127.0.0.1", "[::1]:80", "LOCALHOST:1"):  # of port 80, and tunnels
        assert _send(server, "GET", "/", Host=host)[0] == 200
    assert _send(server, "POST", "/api/translate", body, **{"Content-Length": "9" * 5000})[0] == 413
    assert _send(server, "POST", "/api/translate", body, **{"Content-Type": "text/plain"})[0] == 415
    assert _send(server, "POST", "/api/translate", b"x", **{"Content-Length": str(demo._MAX_BODY + 1)})[0] == 413
    lines = json.dumps(
        {"lines": ["😀" * 5000] * 32, "prefixes": ["😀" * 5000] * 32, "glossary": "😀" * 20_000, "model": 7}
    )
    assert _send(server, "POST", "/api/translate", lines)[0] == 400, "all that the other limits allow fits"
    assert _send(server, "POST", "/api/nothing", body)[0] == 404
    assert _send(server, "DELETE", "/")[0] == 501
    assert _send(server, "GET", "/")[0] == 200


def test_what_a_model_says_against_a_request_is_told():
    class Gone:
        """A transport to a server that went away."""

        def predict(self, signature, inputs):
            raise UserError("the server went away; start it")

        def close(self):
            pass

    with pytest.raises(UserError, match="the server went away"):
        demo.Demo([demo.Model("gone", Client("gone", transport=Gone()))])


def test_a_fault_of_ours_is_told_and_the_next_request_answered(server, monkeypatch):
    monkeypatch.setattr(demo, "_translation", lambda *given: 1 / 0)
    status, answer = _ask(server, "/api/translate", lines=["a"])
    assert status == 500 and answer["error"] == "ZeroDivisionError: division by zero"
    monkeypatch.undo()
    assert _ask(server, "/api/translate", lines=["a"])[0] == 200


def test_connections_are_bounded(server):
    port, free = server.server_address[1], server._connections

    def until(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    until(lambda: free._value == demo._MAX_CONNECTIONS)  # those of tests before may still be ending
    with contextlib.ExitStack() as stack:
        for _ in range(demo._MAX_CONNECTIONS):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            held.sendall(b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\n")
        until(lambda: free._value == 0)
        more = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
        for each in more:
            each.settimeout(20)
            assert each.recv(1) == b"", "it is closed at once"
        assert free._value == 0
    until(lambda: free._value == demo._MAX_CONNECTIONS)
    assert _send(server, "GET", "/")[0] == 200


def test_a_port_that_is_taken_is_a_line(server):
    with pytest.raises(UserError, match=r"Cannot listen at 127.0.0.1, port \d+: .*; give another --port or --host"):
        demo.Server(demo.Demo([]), port=server.server_address[1])
    with pytest.raises(UserError, match="--host must be a name or an address"):
        demo.Server(demo.Demo([]), host="", port=0)
    with pytest.raises(UserError, match="Cannot listen at nowhere.invalid"):
        demo.Server(demo.Demo([]), host="nowhere.invalid", port=0)


@pytest.mark.parametrize("main, flag", [(job.main, "port"), (serve.main, "rest_port"), (serve.main, "grpc_port")])
def test_a_port_that_is_taken_is_found_before_a_model_is_loaded(main, flag, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipelines._process.load_tensorflow", lambda: pytest.fail("TensorFlow was loaded"))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"")
    port = server.server_address[1]
    others = ["--rest_port=0"] * (flag == "grpc_port")
    assert main([f"--saved_model={tmp_path}", f"--{flag}={port}", *others]) == 2
    assert re.search(
        rf"error: Cannot listen at 127.0.0.1, port {port}: .*; give another --{flag} or --host\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "One model must be given, or two to compare"),
        (["--run_dir=a", "--run_dir=b", "--saved_model=c"], "Received: a, b, c"),
        (["--saved_model=a", "--checkpoint=ema"], "--checkpoint goes with --run_dir"),
        (["--run_dir=nowhere"], "There is no nowhere"),
        (["--saved_model=nowhere"], "There is no nowhere"),
        (["--run_dir=a", "--port=99999"], "--port"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert job.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


@pytest.mark.slow
def test_the_job_prints_its_address_and_ends_when_asked(trained_copy):
    command = [sys.executable, "-m", "pipelines.demo", f"--run_dir={trained_copy}/run", "--port=0", "--host=0.0.0.0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    told = ""
    while "in a browser" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    assert "warning: everybody who reaches 0.0.0.0 can use these models" in told
    port = int(re.search(r"open http://0\.0\.0\.0:(\d+)/", told)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/models", headers={"Host": "any.example"})
    assert json.loads(connection.getresponse().read())["models"][0]["gives_attention"]
    connection.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()

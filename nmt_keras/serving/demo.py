"""A page to try models on: a small web server over clients of models, for one person or a few, not for production.

The page is three files beside this module, without anything from elsewhere. It asks for translations as JSON:

    POST /api/translate  {"model": 0, "lines": ["A man rides."], "prefixes": [""], "target_language": "",
                          "hypotheses": 3, "glossary": "man = Mann"}
    POST /api/words      {"model": 0, "line": "A man rides.", "prefix": "Ein ", "target_language": "", "glossary": ""}
    POST /api/attention  {"model": 0, "line": "A man rides.", "prefix": "", "target_language": "", "glossary": ""}
    GET  /api/models

Places in texts are counted in UTF-16 units, as JavaScript counts them.
"""

import http.server
import importlib.resources
import itertools
import json
import math
import re
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import Glossary
from nmt_keras.inference.strings import to_bytes
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.serving.client import Client, NoSignature
from nmt_keras.serving.ports import family_of, require_free

MAX_LINES = 32  # of a request
MAX_CHARACTERS = 5_000  # of a line
MAX_HYPOTHESES = 16
MAX_GLOSSARY = 20_000  # characters
_AHEAD = 4  # pieces after a prefix, </s> among them, in which its continuations are to differ
# Bytes: of lines, prefixes and a glossary, each character as two escapes.
_MAX_BODY = (MAX_LINES * MAX_CHARACTERS * 2 + MAX_GLOSSARY) * 12 + 10_000
_MAX_CONNECTIONS = 64
_MAX_WAITING = 32  # requests that compute or wait
_AT_ONCE = 2  # that compute
_SECONDS = 30  # that a sender may be silent
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Model(NamedTuple):
    """A model on the page."""

    name: str
    client: Client

    def card(self) -> dict[str, Any]:
        """What the page must know of it.

        Raises:
            UserError: it does not answer.
        """
        try:
            self.client.translate([""], num_hypotheses=1)
            has_details = not self._protects  # what is protected is in no piece
        except NoSignature:  # an export that splits paragraphs into sentences
            has_details = False
        return {
            "name": self.name,
            "language_pair": list(self.client.language_pair),
            "target_languages": list(self.client.target_languages),
            "has_details": has_details,
            "takes_prefixes": has_details and self.client.takes_prefixes,
            "takes_terms": has_details and self.client.takes_terms,
            "gives_attention": self.client.gives_attention and not self._protects,
        }

    @property
    def _protects(self) -> bool:
        return bool(self.client.placeholders or self.client.protect)


class _Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: a line for people.
    """

    def __init__(self, status: HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class Demo:
    """Answers what the page asks. Threads may share it.

    Args:
        models: one, or two to compare.

    Raises:
        UserError: a model does not answer.
    """

    def __init__(self, models: Sequence[Model]):
        self._models = list(models)
        self._cards = [model.card() for model in models]
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._computing = threading.BoundedSemaphore(_AT_ONCE)
        self._answers: dict[str, Callable[[Model, Mapping[str, Any], Mapping[str, Any]], Any]] = {
            "/api/translate": self._translate,
            "/api/words": self._words,
            "/api/attention": self._attention,
        }

    def models(self) -> dict[str, Any]:
        """The cards of the models, and the limits of a request."""
        limits = {"lines": MAX_LINES, "characters": MAX_CHARACTERS, "hypotheses": MAX_HYPOTHESES}
        return {"models": self._cards, "limits": {**limits, "glossary": MAX_GLOSSARY}}

    def answer(self, path: str, request: Any) -> Any:
        """The answer to a request, as JSON values.

        Raises:
            _Refusal: the request is not one, or too many wait.
            UserError: the model has no answer.
        """
        if path not in self._answers:
            raise _Refusal(HTTPStatus.NOT_FOUND, f"There is no {path}")
        if not isinstance(request, dict):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "A request is a JSON object")
        number = _whole(request, "model", 0, 0, len(self._models) - 1)
        if not self._waiting.acquire(blocking=False):
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests wait; try again")
        try:
            with self._computing:
                return self._answers[path](self._models[number], self._cards[number], request)
        finally:
            self._waiting.release()

    def _translate(self, model: Model, card: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
        """Hypotheses of lines, with their pieces: where each is in the text, how sure of it the model is, and what it
        reads; and with the terms of the glossary. `mistakes` are what is wrong with lines of the glossary."""
        lines = _texts(request, "lines")
        terms, mistakes = _terms(card, request, lines)
        if not card["has_details"]:
            found = model.client.translate(lines, target_language=_language(card, request))
        else:
            options: dict[str, Any] = {"num_hypotheses": _whole(request, "hypotheses", 1, 1, MAX_HYPOTHESES)}
            if options["num_hypotheses"] > 1:
                options["beam_size"] = max(options["num_hypotheses"], 5)
            prefixes = _texts(request, "prefixes") if request.get("prefixes") else [""] * len(lines)
            if len(prefixes) != len(lines):
                raise _Refusal(HTTPStatus.BAD_REQUEST, f"{len(prefixes)} prefixes for {len(lines)} lines: give as many")
            if any(prefixes):
                _require_prefixes(card)
                options["prefixes"] = prefixes
            if any(terms):
                options["terms"] = terms
            found = model.client.translate(lines, target_language=_language(card, request), **options)
        translations = [_translation(line, each, own) for line, each, own in zip(lines, found, terms)]
        return {"translations": translations, "mistakes": mistakes}

    def _words(self, model: Model, card: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
        """Texts that begin with a prefix and go on in various ways: the best of a wide beam and samples, which are
        translations of a line, and the best of those that are cut soon after the prefix, which differ there. The wide
        beam alone places the terms of the glossary: samples do not, and what is cut has no room for them."""
        _require_prefixes(card)
        line, prefix = _text(request, "line"), _text(request, "prefix")
        common: dict[str, Any] = {"prefixes": [prefix], "target_language": _language(card, request)}
        common["num_hypotheses"] = MAX_HYPOTHESES
        terms, _ = _terms(card, request, [line])
        placed = terms if any(terms) else None
        [searched] = model.client.translate([line], beam_size=MAX_HYPOTHESES, terms=placed, **common)
        [sampled] = model.client.translate([line], temperature=1.0, seed=1, **common)
        size = len(to_bytes(prefix.rstrip()))
        num_pieces = sum(end <= size for end in searched.best.outputs.get("piece_ends", ()))
        [cut] = model.client.translate([line], beam_size=MAX_HYPOTHESES, max_length=num_pieces + _AHEAD, **common)
        whole = dict.fromkeys(each.text for found in (searched, sampled) for each in found.hypotheses if each.text)
        return {"texts": list(whole), "cut_texts": [each.text for each in cut.hypotheses if each.text]}

    def _attention(self, model: Model, card: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
        """What each piece of the best translation reads of the source, in hundredths."""
        if not card["gives_attention"]:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"{model.name} gives no attention weights")
        line = _text(request, "line")
        terms, _ = _terms(card, request, [line])
        [found] = model.client.attention(
            [line],
            prefixes=[_text(request, "prefix")],
            terms=terms if any(terms) else None,
            target_language=_language(card, request),
        )
        weights = found.best.attention_weights
        rows = [] if weights is None else np.rint(100 * np.asarray(weights)).astype(int).tolist()
        return {"source": list(found.source_pieces), "target": list(found.best.pieces), "weights": rows}


def _require_prefixes(card: Mapping[str, Any]) -> None:
    if not card["takes_prefixes"]:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{card['name']} takes no prefixes")


def _text(request: Mapping[str, Any], name: str, most: int = MAX_CHARACTERS) -> str:
    value = request.get(name, "")
    if not isinstance(value, str):
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{name} must be text")
    if len(value) > most:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{name} has {len(value):,} characters; at most {most:,} go")
    return value


def _terms(
    card: Mapping[str, Any], request: Mapping[str, Any], lines: Sequence[str]
) -> tuple[list[list[tuple[str, ...]]], list[str]]:
    """The terms of each line by the glossary of a request, and what is wrong with lines of the glossary."""
    glossary, mistakes = Glossary.typed(_text(request, "glossary", MAX_GLOSSARY))
    if not card["takes_terms"]:
        return [[] for _ in lines], mistakes
    return [glossary.terms_of(line) for line in lines], mistakes


def _texts(request: Mapping[str, Any], name: str) -> list[str]:
    values = request.get(name)
    if not isinstance(values, list) or len(values) > MAX_LINES:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{name} must be a list of at most {MAX_LINES} texts")
    return [_text({name: value}, name) for value in values]


def _language(card: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    language = _text(request, "target_language") or None
    if language and language not in card["target_languages"]:
        known = ", ".join(card["target_languages"]) or "one language alone"
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{card['name']} does not translate into {language!r}: it has {known}")
    return language


def _whole(request: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number from {least} to {most}")
    return value


def _translation(line: str, translation: Translation, terms: Sequence[Sequence[str]]) -> dict[str, Any]:
    places = _places_of(line)
    starts, ends = (translation.outputs.get(f"source_piece_{name}", ()) for name in ("starts", "ends"))
    return {
        "truncated": translation.truncated,
        "is_prefix_kept": bool(translation.outputs.get("is_prefix_kept", True)),
        "source_pieces": [[places(start), places(end)] for start, end in zip(starts, ends)],
        "hypotheses": [_hypothesis(each, terms) for each in translation.hypotheses],
    }


def _hypothesis(hypothesis: Hypothesis, terms: Sequence[Sequence[str]]) -> dict[str, Any]:
    places = _places_of(hypothesis.text)
    starts, ends = (hypothesis.outputs.get(f"piece_{name}", ()) for name in ("starts", "ends"))
    pieces = [
        [places(start), places(end), round(math.exp(log_prob), 3), read]
        for start, end, log_prob, read in zip(starts, ends, hypothesis.token_log_probs, hypothesis.alignment)
    ]
    score = hypothesis.score if math.isfinite(hypothesis.score) else None
    found: dict[str, Any] = {"text": hypothesis.text, "score": score, "pieces": pieces}
    if terms:
        known = itertools.chain(hypothesis.outputs.get("is_term_placed", ()), itertools.repeat(False))
        found["terms"] = [_term(ways, bool(placed), hypothesis.text) for ways, placed in zip(terms, known)]
    return found


def _term(ways: Sequence[str], is_placed: bool, text: str) -> dict[str, Any]:
    """A term, whether it is in a translation, and where: the place of the longest way to say it, as a page counts."""
    span = None
    for way in sorted(ways, key=len, reverse=True) if is_placed else ():
        whole = rf"(?<!\w){re.escape(way)}(?!\w)"  # where words have spaces between them
        match = re.search(whole, text) or re.search(re.escape(way), text)
        if match:
            span = [len(text[:end].encode("utf-16-le", errors="replace")) // 2 for end in match.span()]
            break
    return {"term": " | ".join(ways), "is_placed": is_placed, "span": span}


def _places_of(text: str) -> Callable[[int], int]:
    """From bytes of a text, as a model counts them, to UTF-16 units, as a page does."""
    data = to_bytes(text).decode("utf-8", errors="replace").encode("utf-8")

    def place(byte: int) -> int:
        return len(data[:byte].decode("utf-8", errors="ignore").encode("utf-16-le")) // 2

    return place


def _handler(demo: Demo, hosts: frozenset[str]) -> type[http.server.BaseHTTPRequestHandler]:
    page = importlib.resources.files("nmt_keras.serving") / "demo_page"
    bodies = {path: ((page / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers one connection."""

        protocol_version = "HTTP/1.1"
        server_version = "nmt_keras"
        sys_version = ""
        timeout = _SECONDS

        def do_GET(self) -> None:
            """The page, and what models there are."""
            if not self._is_for_us():
                return
            path = self.path.partition("?")[0]
            if path == "/api/models":
                self._send(HTTPStatus.OK, demo.models())
            elif path in bodies:
                self._send_bytes(HTTPStatus.OK, *bodies[path])
            else:
                self._send(HTTPStatus.NOT_FOUND, {"error": "There is nothing here"})

        def do_POST(self) -> None:
            """What the page asks of a model."""
            if not self._is_for_us():
                return
            try:
                self._send(HTTPStatus.OK, demo.answer(self.path, self._request()))
            except _Refusal as refusal:
                self._send(refusal.status, {"error": str(refusal)})
            except UserError as error:
                self._send(HTTPStatus.BAD_GATEWAY, {"error": str(error)})
            except OSError:  # the browser went away
                raise
            except Exception as error:  # a fault of ours: told, and the next request is answered
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"})

        def _is_for_us(self) -> bool:
            """Whether it was asked for by a name of ours: another one would be a page elsewhere that calls itself so
            (DNS rebinding)."""
            try:
                name = urllib.parse.urlsplit("//" + self.headers.get("Host", "")).hostname
            except ValueError:  # a bracket that does not close
                name = None
            if not hosts or name in hosts:  # by any port: of a proxy or a tunnel
                return True
            self.close_connection = True
            self._send(HTTPStatus.FORBIDDEN, {"error": "This page is known by another name: open it as it was printed"})
            return False

        def _request(self) -> Any:
            if self.headers.get_content_type() != "application/json":  # what a form of another page cannot send
                self.close_connection = True
                raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Requests are application/json")
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > _MAX_BODY:
                self.close_connection = True
                raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {_MAX_BODY:,} bytes")
            try:
                return json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError) as error:
                raise _Refusal(HTTPStatus.BAD_REQUEST, "A request is a JSON object") from error

        def _send(self, status: HTTPStatus, value: Any) -> None:
            self._send_bytes(status, json.dumps(value).encode(), "application/json")

        def _send_bytes(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what people type is theirs."""

    return Handler


class Server(http.server.ThreadingHTTPServer):
    """The server of the page; `serve_forever` answers until `shutdown`.

    Args:
        demo: answers.
        host: a name or address of this machine; only what is asked for by it is answered, or by any name where it is
            that of all interfaces, 0.0.0.0 or ::.
        port: 0 is a free one.

    Raises:
        UserError: it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, demo: Demo, host: str = "127.0.0.1", port: int = 8080):
        require_free(host, port)
        self.address_family = family_of(host)
        self._connections = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__((host, port), http.server.BaseHTTPRequestHandler)
        written = f"[{host}]" if ":" in host else host
        self.url = f"http://{written}:{self.server_address[1]}/"
        names = {host.lower(), "localhost", "127.0.0.1", "::1"}
        self.RequestHandlerClass = _handler(demo, frozenset() if host in ("0.0.0.0", "::") else frozenset(names))

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread a connection, of so many; more are closed."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing where a browser went away; else as it is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

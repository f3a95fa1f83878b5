"""A client of exports that TensorFlow Serving serves, by REST or gRPC.

Texts are sent in batches, several at once, and results come back in order; requests that fail for a passing reason are
retried. All outputs of a signature are handed on under their names. The client assumes only that they begin with B,
that `source_*` belong to the source, and that `num_*` say how much of the others is not padding.
"""

import itertools
import json
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from nmt_keras.errors import Interrupted, UserError
from nmt_keras.inference.joining import Part, joined
from nmt_keras.inference.protection import ProtectedText, Protection, protected_again
from nmt_keras.inference.strings import TermsOfText, join_terms, require_as_many, require_terms, require_terms_of_text
from nmt_keras.inference.translation import NOTHING, Hypothesis, Translation
from nmt_keras.reports import Report, counted, silent
from nmt_keras.serving.transports import (
    Failure,
    GrpcTransport,
    Kind,
    RestTransport,
    Transport,
    as_tensor,
    parse_address,
)

_ENDED = object()  # what an iterable has at its end
_PASSING = (Kind.DOWN, Kind.BUSY, Kind.LOADING)
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0  # seconds
_PORTS = "gRPC and REST have a port each, usually 8500 and 8501"
_MESSAGES = {
    Kind.DOWN: "{server} cannot be reached: {reason}; start TensorFlow Serving or pipelines.serve there, or give the "
    f"host and port where it is ({_PORTS})",
    Kind.UNKNOWN_HOST: "The host of {server} is unknown: {reason}; give the name or the address of one that is not",
    Kind.BUSY: "{server} was unavailable {tries} times: {reason}; try later, or with a smaller concurrency",
    Kind.TIMEOUT: "{server} did not answer within {timeout:g} s: {reason}; give a longer timeout, or a smaller "
    "batch_sentences",
    Kind.LOADING: "{server} is still being loaded: {reason}; try later",
    Kind.NO_MODEL: "{server} is not loaded: {reason}; give the name under which the server has the model, and a "
    "version that it has, or none for the newest",
    Kind.NO_SIGNATURE: "{server} has no signature {signature!r}: {reason}; serve a model that this toolkit exported, "
    "for more than best translations one without decoding.split_sentences, and for protect one of this version",
    Kind.TOO_LARGE: "A request of {rows} rows is too large for {server}: {reason}; give a smaller batch_sentences, or "
    "raise the server's limit",
    Kind.FOREIGN: "{server} answers, but not as TensorFlow Serving does: {reason}; give the host and port where it is "
    f"({_PORTS})",
    Kind.REFUSED: "{server} failed in {signature!r}: {reason}; look into the server's log, and see that the inputs are "
    "those of the signature",
}


class NoSignature(Interrupted):
    """An export has no signature of a name."""


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# The outputs of a signature for one of its rows, cut to their true lengths: numbers, strings, and lists of them.
Row = dict[str, Any]


class TranslateOptions(NamedTuple):
    """Request options with one value for all texts; the defaults stand for the export's own."""

    beam_size: int = 0
    num_hypotheses: int = 0
    max_length: int = 0
    length_penalty: float = -1.0
    temperature: float = 0.0
    seed: int = 0


_SIDES = ("source", "target")
_TEXTS = ("text", *_SIDES)  # inputs that callers give as they are


class _Limits(NamedTuple):
    """What a client must know of an export."""

    rows: int  # of a request at most: those that are answered, and that a server merges
    target_languages: tuple[str, ...] = ()  # the default first; none of a model of one
    takes_prefix: bool = False  # whether `translate` has that input
    has_terms: bool = False  # whether it has `terms`
    takes_terms: bool = False  # and places them
    splits: bool = False  # texts into sentences, and says how
    placeholders: tuple[str, ...] = ()  # the patterns that became placeholders in what it was trained on
    protect: tuple[str, ...] = ()  # the patterns of what its translations have as texts have it
    annotates_terms: bool = False  # whether it was trained with annotated terms
    language_pair: tuple[str, str] = ("", "")  # codes of the source and the target; "" where it does not say
    max_beam_size: int | None = None  # the most beams and samples of a text; None where it does not say
    has_attention: bool = False  # whether `translate` has that input
    gives_attention: bool = False  # and a text is translated by it

    @property
    def protects(self) -> bool:
        """Whether translations have something as texts have it, where nothing else is asked for."""
        return bool(self.placeholders or self.protect)


class Client:
    """Talks to one model of a server. Threads may share it.

    Example:
        with Client("grpc://localhost:8500/en_zh") as client:
            [translation] = client.translate(["A man rides a horse."], beam_size=5, num_hypotheses=3)
            print(translation.text, [hypothesis.score for hypothesis in translation.hypotheses])

    Args:
        server: `grpc://host:port/model[/version]` or `http://host:port/model[/version]`; grpcs and https with TLS.
        timeout: of a request, in seconds.
        retries: of a request, with growing pauses, after failures that may pass.
        batch_sentences: texts of a request.
        concurrency: requests at once.
        transport: sends the requests; `server` is then only a name for messages. None connects to `server`.
        report: takes a line for the user, when a request is tried again.

    Raises:
        UserError: an argument is out of range, or a package is missing.
    """

    def __init__(
        self,
        server: str,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        batch_sentences: int = 64,
        concurrency: int = 4,
        transport: Transport | None = None,
        report: Report = silent,
    ):
        for name, value in (("batch_sentences", batch_sentences), ("concurrency", concurrency)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, it is {value}; leave it out for the default")
        if not timeout > 0 or retries < 0:
            raise UserError(
                f"timeout must be above 0 and retries at least 0, they are {timeout:g} and {retries}; leave them out "
                "for the defaults"
            )
        self._server = server
        self._timeout = timeout
        self._retries = retries
        self._batch_sentences = batch_sentences
        self._concurrency = concurrency
        self._report = report
        self._closed = threading.Event()
        self._limits: _Limits | None = None  # once the export was asked
        self._transport = _transport(server, timeout, concurrency) if transport is None else transport

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def target_languages(self) -> tuple[str, ...]:
        """The codes of the target languages, the default first; none of a model of one.

        Raises:
            UserError: there is no answer; this asks the model, once, as the next does.
        """
        return self._asked_limits().target_languages

    @property
    def language_pair(self) -> tuple[str, str]:
        """The codes of the languages that it translates from and, where nothing else is asked for, into; "" each of an
        export that does not say."""
        return self._asked_limits().language_pair

    @property
    def max_beam_size(self) -> int | None:
        """The most beams and samples of a text, to which requests for more are cut; None of an export that does not
        say."""
        return self._asked_limits().max_beam_size

    @property
    def takes_prefixes(self) -> bool:
        """Whether translations may be begun, which exports of older versions know nothing of."""
        return self._asked_limits().takes_prefix

    @property
    def takes_terms(self) -> bool:
        """Whether translations may be given terms, which exports of older versions and some searches do not place."""
        return self._asked_limits().takes_terms

    @property
    def gives_attention(self) -> bool:
        """Whether `attention` can be called, which exports of older versions and those that split texts cannot
        answer."""
        return self._asked_limits().gives_attention

    def close(self) -> None:
        """Ends the connections; a request that waits to be tried again is given up."""
        self._closed.set()
        self._transport.close()

    def call(self, signature: str, inputs: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
        """Runs a signature as one request.

        Args:
            signature: its name.
            inputs: the values of each input, by its name: strings, floats, integers or an array.

        Returns:
            The outputs as arrays, padding included: float32, int32 or bool, and strings as objects of `str`, in which
            bytes that are no UTF-8 are surrogate escapes.

        Raises:
            UserError: there is no answer.
        """
        tensors = {name: _one_a_row(name, values) for name, values in inputs.items()}
        rows = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise UserError(
                f"The inputs of a signature have a value a row each, and these differ: {counts}; give as many"
            )
        if self._closed.is_set():
            raise UserError(f"The client of {self._server} is closed; open another")
        tries = 1
        while True:
            try:
                return self._transport.predict(signature, tensors)
            except Failure as failure:
                reason = failure.reason
                if failure.kind not in _PASSING or tries > self._retries:
                    message = _MESSAGES[failure.kind].format(
                        server=self._server,
                        reason=failure.reason,
                        timeout=self._timeout,
                        tries=tries,
                        signature=signature,
                        rows=max((tensor.size for tensor in tensors.values()), default=0),
                    )
                    raise (NoSignature if failure.kind == Kind.NO_SIGNATURE else Interrupted)(message) from None
            delay = min(_FIRST_DELAY * 2 ** (tries - 1), _LONGEST_DELAY) * random.uniform(0.5, 1.0)
            if tries == 1:
                self._report(f"{self._server}: {reason}; trying {counted(self._retries, 'time')} again")
            if self._closed.wait(delay):
                raise Interrupted(f"The client of {self._server} was closed")
            tries += 1

    def translate(
        self,
        texts: Iterable[str | ProtectedText],
        *,
        prefixes: Iterable[str] | None = None,
        terms: Iterable[TermsOfText] | None = None,
        protect: Protection | Iterable[str] | None = None,
        target_language: str | None = None,
        **request_options: float | None,
    ) -> list[Translation]:
        """The translations of `texts`, in their order; see `stream`."""
        given: dict[str, Any] = {"prefixes": prefixes, "terms": terms, "protect": protect}
        given["target_language"] = target_language
        given.update(request_options)
        return list(self.stream(texts, **given))

    def stream(
        self,
        texts: Iterable[str | ProtectedText],
        *,
        prefixes: Iterable[str] | None = None,
        terms: Iterable[TermsOfText] | None = None,
        protect: Protection | Iterable[str] | None = None,
        target_language: str | None = None,
        first_number: int = 0,
        **request_options: float | None,
    ) -> Iterator[Translation]:
        """Translates texts as they come, in order and in constant memory.

        Texts are read as requests are sent, at most `concurrency` times `batch_sentences` ahead.

        Args:
            texts: of any length.
            prefixes: of each text, characters that its translations begin with, which may end inside a word; "" is
                none. `outputs["is_prefix_kept"]` of a translation says whether they do.
            terms: of each text, what its translations must contain as whole words: texts, or lists of ways to say one,
                as `Glossary.terms_of` finds them. `outputs["is_term_placed"]` of a hypothesis says of each of the
                first 16 whether it is there. Not with `temperature`: samples place none.
            protect: what the translations have as the texts have it, such as tags and addresses: a `Protection`, or its
                patterns, as in ["tag", "url"]; those of the export's `decoding.protect` where it is None. What the
                model has placeholders for is protected beside it. A text may then be what `Protection.take_out` gave.
                `outputs["is_protected"]` of a translation is False where it was not found in time.
            target_language: of a model of several; None is the export's default.
            first_number: the number of the first text in a longer stream; a sample depends on its text's number.
            **request_options: fields of `TranslateOptions`. With none given, or None, the answer is that of
                `serving_default`, which is the best hypothesis; with any, and of a model that protects something, that
                of `translate`, which says more.

        Raises:
            UserError: a request option is no number of its type, terms are asked of samples, the model has no such
                target language or takes no prefixes or terms, there are not as many of them as texts, which is found
                where one of them ends, or there is no answer.
        """
        _require_several(texts, "texts")
        for what, values in (("prefixes", prefixes), ("terms", terms)):
            if values is not None:
                _require_several(values, what)
        asked = _options(request_options)
        given: dict[str, Any] = {"prefixes": prefixes, "terms": terms, "target_language": target_language}
        given["first_number"] = first_number
        if protect is not None:
            return self._protected(texts, protect, asked or TranslateOptions(), **given)
        if asked is None and prefixes is None and terms is None:
            return self._of_model(texts, asked, **given)
        if self._asked_limits().protects:
            return self._protected(texts, self._asked_limits().protect, asked or TranslateOptions(), **given)
        return self._searched(cast(Iterable[str], texts), asked, **given)

    def _of_model(self, texts: Iterable[Any], options: TranslateOptions | None, **given: Any) -> Iterator[Translation]:
        """Protects what the export says, if it does; it is asked when the first text is."""
        if self._asked_limits().protects:
            yield from self._protected(texts, self._asked_limits().protect, options or TranslateOptions(), **given)
        else:
            yield from self._searched(texts, options, **given)

    def _searched(
        self,
        texts: Iterable[str],
        options: TranslateOptions | None,
        *,
        prefixes: Iterable[str] | None,
        terms: Iterable[TermsOfText] | None,
        target_language: str | None,
        first_number: int,
        attention: bool = False,
    ) -> Iterator[Translation]:
        """Translates as `stream` does, protecting nothing; without options, prefixes and terms by `serving_default`."""
        if options is None and prefixes is None and terms is None:
            return map(_translation, self._rows("serving_default", ("text",), zip(texts), target_language))
        translate_options = options or TranslateOptions()
        limits = self._asked_limits()
        if prefixes is not None and not limits.takes_prefix:
            raise UserError(f"{self._server} takes no prefixes: it is of an older version, export the run again")
        if terms is not None:
            self._require_takes_terms()
            if translate_options.temperature > 0.0:
                raise UserError("terms go with a search, and samples place none: leave out terms or temperature")
        inputs = {"prefix": limits.takes_prefix, "terms": limits.has_terms, "attention": limits.has_attention}
        names = ("text", *TranslateOptions._fields, *(name for name, has in inputs.items() if has))
        several = {"texts": texts} | {
            name: values for name, values in (("prefixes", prefixes), ("terms", terms)) if values is not None
        }

        def asked() -> Iterator[tuple[Any, ...]]:
            for number, columns in enumerate(itertools.zip_longest(*several.values(), fillvalue=_ENDED), first_number):
                row: dict[str, Any] = dict(zip(several, columns))
                ended = [name for name, value in row.items() if value is _ENDED]
                if ended:
                    raise UserError(
                        f"the {ended[0]} end at number {number:,}: give as many of {' and '.join(several)}, and an "
                        "empty one where there is none"
                    )
                prefix = row.get("prefixes", "")
                if not isinstance(prefix, str):
                    raise UserError(
                        f'a prefix, number {number:,}, is {prefix!r:.60}: give a text, "" where there is none'
                    )
                require_terms_of_text(row.get("terms", ()))
                values = {"prefix": prefix, "terms": join_terms(row.get("terms", ())), "attention": attention}
                options = translate_options._replace(seed=_seed(translate_options.seed, number))
                yield row["texts"], *options, *(values[name] for name, has in inputs.items() if has)

        rows = self._rows("translate", names, asked(), target_language)
        return map(_translation, rows if attention else map(_without_attention, rows))

    def _protected(
        self,
        texts: Iterable[str | ProtectedText],
        protect: Protection | Iterable[str],
        options: TranslateOptions,
        **given: Any,
    ) -> Iterator[Translation]:
        """Translates as `stream` does, without what is protected, which is put back."""
        protection = protect if isinstance(protect, Protection) else Protection(protect)
        placeholders = self._asked_limits().placeholders
        protection = protection.for_model(placeholders)
        waiting: deque[ProtectedText] = deque()
        terms: Iterator[TermsOfText] = itertools.repeat(())
        prefixes: Iterator[str | None] = itertools.repeat(None)
        if given["terms"] is not None:
            given["terms"], terms = itertools.tee(given["terms"])

        def plain() -> Iterator[str]:
            for number, text in enumerate(texts, given["first_number"]):
                if not isinstance(text, str | ProtectedText):
                    raise UserError(f'a text, number {number:,}, is {text!r:.60}: give a text, "" where there is none')
                if isinstance(text, ProtectedText) and placeholders:  # which it may have been made without
                    text = text.text
                waiting.append(text if isinstance(text, ProtectedText) else protection.take_out(text))
                yield waiting[-1].plain

        def beginnings(prefixes: Iterable[Any]) -> Iterator[Any]:
            for prefix in prefixes:  # each is asked for right after its text
                yield waiting[-1].beginning(prefix) if isinstance(prefix, str) and waiting else prefix

        if given["prefixes"] is not None:
            asked, prefixes = itertools.tee(given["prefixes"])
            given["prefixes"] = beginnings(asked)
        if self._asked_limits().splits and given["terms"] is None and given["prefixes"] is None:
            found = self._paragraphs(plain(), options, given["target_language"])
        else:
            found = self._searched(plain(), options, **given)
        return (protected_again(each, waiting.popleft(), next(terms), next(prefixes)) for each in found)

    def _paragraphs(
        self, texts: Iterable[str], options: TranslateOptions, target_language: str | None
    ) -> Iterator[Translation]:
        """Translates texts sentence by sentence, with what each piece reads; of an export that splits texts."""
        if options.num_hypotheses > 1 or options.temperature > 0.0:
            raise UserError(
                f"{self._server} splits texts, and joins the best translations of their sentences: leave out "
                "num_hypotheses and temperature, or export the run without decoding.split_sentences"
            )
        names = (
            "text",
            *TranslateOptions._fields,
            "prefix",
            "terms",
            *("attention",) * self._asked_limits().has_attention,
        )

        def translated() -> Iterator[Translation]:
            several = iter(texts)
            while batch := list(itertools.islice(several, self._batch_sentences)):
                rows = list(self._rows("split", ("text",), zip(batch), target_language))
                parts = [list(map(Part, row["part_text"], row["part_is_break"])) for row in rows]
                sentences = (part.text for each in parts for part in each if not part.is_break)
                asked = ((text, *options, "", "", False)[: len(names)] for text in sentences)
                found_rows = self._rows("translate_part", names, asked, target_language)
                found = map(_translation, map(_without_attention, found_rows))
                for text, own, row in zip(batch, parts, rows):
                    yield joined(text, own, found, bool(row["truncated"]))

        self._require_language(target_language)
        return translated()

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The patterns that became placeholders in what the model was trained on.

        Raises:
            UserError: there is no answer.
        """
        return self._asked_limits().placeholders

    @property
    def protect(self) -> tuple[str, ...]:
        """The patterns of what translations have as texts have it, where nothing else is asked for.

        Raises:
            UserError: there is no answer.
        """
        return self._asked_limits().protect

    @property
    def splits_sentences(self) -> bool:
        """Whether the model splits texts into sentences, and says how.

        Raises:
            UserError: there is no answer.
        """
        return self._asked_limits().splits

    @property
    def annotates_terms(self) -> bool:
        """Whether the model was trained with annotated terms, and reads what `Glossary.annotated` gives.

        Raises:
            UserError: there is no answer.
        """
        return self._asked_limits().annotates_terms

    def score(self, sources: Iterable[str], targets: Iterable[str], *, target_language: str | None = None) -> list[Row]:
        """How probable the model finds each target as the translation of its source: see `scores`.

        Raises:
            UserError: there is no answer, or there are not as many targets as sources.
        """
        for name, texts in (("sources", sources), ("targets", targets)):
            _require_several(texts, name)
        sources, targets = list(sources), list(targets)
        if len(sources) != len(targets):
            raise UserError(f"{counted(len(sources), 'source')} and {counted(len(targets), 'target')}; give as many")
        return list(self.scores(zip(sources, targets), target_language=target_language))

    def scores(self, pairs: Iterable[tuple[str, str]], *, target_language: str | None = None) -> Iterator[Row]:
        """Scores pairs of a source and a target as they come, in order and in constant memory: `log_prob`,
        `token_log_probs`, `pieces` and more, of the target as the translation of the source.

        Raises:
            UserError: there is no answer, or the model has no such target language.
        """
        return self._rows("score", ("source", "target"), pairs, target_language)

    def encode(self, texts: Iterable[str], *, target_language: str | None = None) -> list[Row]:
        """The sentence `vector` of each text, and whether the text was `truncated`.

        Raises:
            UserError: there is no answer.
        """
        return list(self.vectors(texts, target_language=target_language))

    def attention(
        self,
        texts: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        terms: Sequence[TermsOfText] | None = None,
        target_language: str | None = None,
        **request_options: float | None,
    ) -> list[Translation]:
        """The translations that `translate` gives, each hypothesis with its `attention_weights`.

        These are float32 [pieces, source pieces], </s> included: what each piece of the translation read of the
        source. Of several heads and layers they are the mean of the last layer's. `pieces` and `source_pieces` are
        their labels; what is protected is in none of them, and of a model with placeholders these stand there for it.

        Args:
            texts: of any length.
            prefixes: see `stream`, as the next three.
            terms: see there.
            target_language: see there.
            **request_options: see there.

        Raises:
            UserError: as `stream`; or the model is of an older version, or splits texts, and has no weights to give.
        """
        _require_several(texts, "texts")
        if not self.gives_attention:
            why = "is of an older version: export the run again"
            if self._asked_limits().splits:
                why = "splits texts: load or export the run with split_sentences=False"
            raise UserError(f"{self._server} gives no attention weights, it {why}")
        if prefixes is not None:
            require_as_many("prefixes", prefixes, len(texts))
        if terms is not None:
            require_terms(terms, len(texts))
        given: dict[str, Any] = {"prefixes": prefixes, "terms": terms, "target_language": target_language}
        given |= {"first_number": 0, "attention": True}
        options = _options(request_options) or TranslateOptions()
        if self._asked_limits().protects:
            found = self._protected(texts, self._asked_limits().protect, options, **given)
        else:
            found = self._searched(texts, options, **given)
        return list(map(_with_weights, found))

    def vectors(self, texts: Iterable[str], *, target_language: str | None = None) -> Iterator[Row]:
        """Sentence vectors as of `encode`, of texts as they come, in order and in constant memory.

        Raises:
            UserError: there is no answer.
        """
        _require_several(texts, "texts")
        return self._rows("encode", ("text",), zip(texts), target_language)

    def _rows(
        self, signature: str, names: Sequence[str], rows: Iterable[Sequence], target_language: str | None
    ) -> Iterator[Row]:
        """Runs a signature on rows of its inputs `names`, in batches."""
        of_language: dict[str, str] = {}

        def ask(batch: list[Sequence]) -> list[Row]:
            inputs: dict[str, Sequence] = dict(zip(names, zip(*batch)))
            inputs |= {name: [code] * len(batch) for name, code in of_language.items()}
            outputs = self.call(signature, inputs)
            if _is_left_out(outputs, len(batch)):  # of an older export, which cannot be asked how many it answers
                half = len(batch) // 2
                return ask(batch[:half]) + ask(batch[half:])
            return [_row({name: output[i] for name, output in outputs.items()}) for i in range(len(batch))]

        limits = self._asked_limits()
        if limits.target_languages:
            of_language["target_language"] = target_language or ""
        self._require_language(target_language)
        texts = [place for place, name in enumerate(names) if name in _TEXTS]
        several = _with_texts(rows, texts)
        yield from _in_order(ask, several, min(self._batch_sentences, limits.rows), self._concurrency)

    def _require_language(self, target_language: str | None) -> None:
        if not isinstance(target_language, str | None):
            raise UserError(
                f"target_language is one code for all texts of a call. Received: {target_language!r}; for a code a row "
                'use call("serving_default", {"text": texts, "target_language": codes})'
            )
        languages = self._asked_limits().target_languages
        if target_language and target_language not in languages:
            known = ", ".join(languages)
            raise UserError(
                f"{self._server} does not translate into {target_language!r}: "
                + (f"give one of {known}" if known else "it has one target language, leave target_language out")
            )

    def _require_takes_terms(self) -> None:
        limits = self._asked_limits()
        if limits.takes_terms:
            return
        why = "is of an older version, export the run again"
        if limits.has_terms:
            why = (
                "splits texts, searches with recombination or groups of beams, or has decoding.terms_beam_size=0: "
                "export the run without these"
            )
        raise UserError(f"{self._server} places no terms: it {why}")

    def _asked_limits(self) -> "_Limits":
        """What the export says of itself; an older one, which has no `limits`, takes `batch_sentences` rows."""
        if self._limits is None:
            try:
                found = self.call("limits", {"text": [""]})
                rows = min(int(found[name][0]) for name in ("max_request_sentences", "batch_sentences"))
                languages = tuple(str(found["target_languages"][0]).split()) if "target_languages" in found else ()
                takes_terms = "takes_terms" in found and bool(found["takes_terms"][0])
                splits = "splits_sentences" in found and bool(found["splits_sentences"][0])
                placeholders, protect = (
                    tuple(json.loads(found[name][0])) if name in found else () for name in ("placeholders", "protect")
                )
                has = "takes_prefix" in found, "takes_terms" in found
                annotates = "annotates_terms" in found and bool(found["annotates_terms"][0])
                beams = int(found["max_beam_size"][0]) if "max_beam_size" in found else None
                attends = "gives_attention" in found, "gives_attention" in found and bool(found["gives_attention"][0])
                pair = [str(found[f"{side}_language"][0]) if f"{side}_language" in found else "" for side in _SIDES]
                self._limits = _Limits(
                    rows,
                    languages,
                    *has,
                    takes_terms,
                    splits,
                    placeholders,
                    protect,
                    annotates,
                    (pair[0], pair[1]),
                    beams,
                    *attends,
                )
            except NoSignature:
                self._limits = _Limits(self._batch_sentences)
        return self._limits


def _transport(server: str, timeout: float, connections: int) -> Transport:
    address = parse_address(server)
    if address.scheme.startswith("grpc"):
        return GrpcTransport(address, timeout)
    return RestTransport(address, timeout, connections)


def _in_order(
    ask: Callable[[list[_Item]], list[_Result]], items: Iterable[_Item], batch_size: int, concurrency: int
) -> Iterator[_Result]:
    """Yields the results of `ask` on batches of items, in order; up to `concurrency` batches are in flight."""
    items = iter(items)
    pending: deque[Future[list[_Result]]] = deque()
    pool = ThreadPoolExecutor(concurrency)
    try:
        while batch := list(itertools.islice(items, batch_size)):
            pending.append(pool.submit(ask, batch))
            if len(pending) == concurrency:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # what is in flight may take as long as its time-out


def _require_several(texts: Iterable[Any], name: str) -> None:
    if isinstance(texts, (str, bytes)):
        raise UserError(f"{name} is one text, {texts[:40]!r}: give a list of texts, as in [text]")
    if not isinstance(texts, Iterable):
        raise UserError(f"{name} is {texts!r:.40}: give a list, with one for each text")


def _with_texts(rows: Iterable[Sequence], places: Sequence[int]) -> Iterator[Sequence]:
    """Rows whose values at some places are texts.

    Raises:
        UserError: one is not.
    """
    for number, row in enumerate(rows):
        for place in places:
            if isinstance(row[place], ProtectedText):
                raise UserError(
                    f"a text, number {number:,}, is what Protection.take_out gave: give its Protection too, as protect="
                )
            if not isinstance(row[place], str):
                raise UserError(
                    f'a text, number {number:,}, is {row[place]!r:.60}: give a text, "" where there is none'
                )
        yield row


def _one_a_row(name: str, values: Sequence) -> np.ndarray:
    """An input of a signature, [B]."""
    try:
        tensor = None if isinstance(values, (str, bytes)) or np.ndim(values) == 0 else as_tensor(values)
    except (LookupError, ValueError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise UserError(
            f"The input {name!r} of a signature has strings alone or numbers alone. Received values of types {kinds}"
        ) from error
    if tensor is None or tensor.ndim != 1:
        shape = "one value" if tensor is None else f"the shape {list(tensor.shape)}"
        raise UserError(f"The input {name!r} of a signature has one value a row, [B], and this is {shape}: give a list")
    return tensor


def _is_left_out(outputs: Mapping[str, np.ndarray], rows: int) -> bool:
    """Whether the last row was one too many for the export, which answers such rows with padding."""
    if rows == 1 or "truncated" not in outputs or "num_parts" in outputs or not outputs["truncated"][-1]:
        return False
    if "log_prob" in outputs and outputs["log_prob"].ndim == 1:
        return bool(outputs["log_prob"][-1] <= np.finfo(np.float32).min)
    return not np.any(outputs["num_source_pieces" if "num_source_pieces" in outputs else "vector"][-1])


def _seed(seed: int, number: int) -> int:
    """A seed of its own for each text, int32 (Knuth's multiplicative hash)."""
    return (seed * 2654435761 + number + 2**31) % 2**32 - 2**31


def _options(request_options: Mapping[str, float | None]) -> TranslateOptions | None:
    """Request options by their names, None where none is given.

    Raises:
        UserError: there is no such option, or one has no such value.
    """
    options: dict[str, Any] = {name: value for name, value in request_options.items() if value is not None}
    unknown = sorted(options.keys() - set(TranslateOptions._fields))
    if unknown:
        raise UserError(f"There is no option {unknown[0]!r}; valid ones: {', '.join(TranslateOptions._fields)}")
    return _checked(TranslateOptions(**options)) if options else None


def _checked(request_options: TranslateOptions) -> TranslateOptions:
    """Request options in the types of the signature.

    Raises:
        UserError: one has no such value.
    """
    values: dict[str, Any] = {}
    for name, value, default in zip(TranslateOptions._fields, request_options, TranslateOptions()):
        try:
            values[name] = type(default)(value)
        except (OverflowError, TypeError, ValueError):
            values[name] = None
        is_nan = values[name] != values[name]
        is_whole = isinstance(default, int)
        if values[name] is None or is_nan or is_whole and (values[name] != value or abs(value) >= 2**31):
            kind = "a number" if isinstance(default, float) else "a whole number below 2 ** 31"
            raise UserError(f"{name} is {value!r} and must be {kind}; leave it out for the export's default")
    return TranslateOptions(**values)


def _row(outputs: Mapping[str, Any]) -> Row:
    """Outputs of one row, without padding."""

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value.item() if isinstance(value, np.generic) else value
        if name.startswith("source_"):
            return value[: outputs.get("num_source_pieces")].tolist()
        if name.startswith("part_"):
            return value[: outputs["num_parts"]].tolist()
        if "num_hypotheses" not in outputs:
            return value[: outputs.get("num_pieces")].tolist()
        value = value[: outputs["num_hypotheses"]]
        if value.ndim == 1:
            return value.tolist()
        if name == "attention_weights":
            size = outputs["num_source_pieces"]
            return [each[:length, :size] for each, length in zip(value, outputs["num_pieces"])]
        if name == "is_term_placed":
            return value[:, : outputs["num_terms"]].tolist()
        return [each[:length].tolist() for each, length in zip(value, outputs["num_pieces"])]

    return {name: cut(name, value) for name, value in outputs.items()}


def _without_attention(row: Row) -> Row:
    """A row of `translate` whose caller asked for no attention weights: they are there, and 0, where the server merged
    it with a call that did."""
    return {name: value for name, value in row.items() if name != "attention_weights"}


def _with_weights(translation: Translation) -> Translation:
    """A translation each of whose hypotheses has attention weights; those of a blank text have no pieces."""
    size = len(translation.source_pieces)
    hypotheses = [
        each if each.attention_weights is not None else each._replace(attention_weights=np.zeros([0, size], np.float32))
        for each in translation.hypotheses
    ]
    return translation._replace(hypotheses=hypotheses)


def _translation(row: Row) -> Translation:
    """A row of `translate`, or of `serving_default`, whose outputs but `truncated` belong to its one hypothesis."""
    several = "num_hypotheses" in row
    of_hypotheses = {
        name: value if several else [value]
        for name, value in row.items()
        if not name.startswith("source_") and (isinstance(value, list) if several else name != "truncated")
    }
    outputs = {name: value for name, value in row.items() if name not in of_hypotheses}
    rows = [dict(zip(of_hypotheses, values)) for values in zip(*of_hypotheses.values())]
    truncated, pieces = bool(outputs.pop("truncated", False)), outputs.pop("source_pieces", [])
    return Translation(
        [_hypothesis(each) for each in rows] or [NOTHING._replace(outputs={})], truncated, pieces, outputs=outputs
    )


def _hypothesis(row: Row) -> Hypothesis:
    alignment = row.pop("alignment", [])[:-1]  # that of </s>
    text, log_prob = row.pop("translation"), row.pop("log_prob", math.nan)
    known = {name: row.pop(name) for name in ("pieces", "token_log_probs", "attention_weights") if name in row}
    return Hypothesis(text, log_prob, row.pop("score", math.nan), **known, alignment=alignment, outputs=row)

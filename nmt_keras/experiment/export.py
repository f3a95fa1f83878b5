"""Exports a trained model and proves that the export translates as the model does."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from sacrebleu.metrics import BLEU
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.config import DataConfig, TrainingConfig
from nmt_keras.errors import UserError
from nmt_keras.experiment.model_card import model_card
from nmt_keras.experiment.text import open_dev
from nmt_keras.inference.evaluation import open_bleu
from nmt_keras.inference.protection import NO_READING, PATTERNS, ProtectedText, Protection, placeholders_of
from nmt_keras.inference.search import Search
from nmt_keras.inference.text import tokenize
from nmt_keras.inference.translation import Translation
from nmt_keras.inference.translator import Translator
from nmt_keras.layers.int8 import NEEDS, is_available
from nmt_keras.reports import Report, shows_bars, silent
from nmt_keras.runs.loading import Run, config_of, load
from nmt_keras.serving import client
from nmt_keras.serving import export as exporting
from nmt_keras.serving import local, proof
from nmt_keras.serving.compression import PRECISIONS, StoredWeight, compress
from nmt_keras.serving.int8 import Int8Export, to_int8
from nmt_keras.serving.transports import as_tensor
from nmt_keras.training.precision import resolve_precision

_DEV_LINES = 200
_NASTY = [
    "",
    " ",
    "a",
    "\U0001f600 \u05e9\u05dc\u05d5\u05dd",
    "tab\tand\u2028line\x07\x1b[0m",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
    "\udcff\udcfe\udce4 no UTF-8",  # bytes 0xff, 0xfe and 0xe4
    "x" * 5000,
]
_PROTECTED = [
    "<b>a</b> <i>b <b>c</b> d</i> e",
    '<g id="1">a b <x id="2"/></g> c </g>',
    "https://example.org/?q=a%20b name@example.org",
    "{name} %d 1,234.5 ${price} 7",
]
_LOG_PROB_TOLERANCE = 1e-5  # nats; both run one graph on a CPU
_WARMUP_BATCHES = (1, 8, 64)  # rows
_Call = TypeVar("_Call")


class _Proof(NamedTuple):
    """How an export compares with the model it was made of."""

    compared: int  # translations, and requests to the signatures
    different: int
    largest_log_prob_difference: float | None  # nats; None where the export did not run
    translations: list[str]  # of the dev lines, by the export
    sentences_per_s: float  # of the dev lines, by the export


def export(
    run_dirs: Sequence[pathlib.Path],
    checkpoint: str,
    output: pathlib.Path,
    *,
    precision: str = "float32",
    decoding: Mapping[str, Any] = MappingProxyType({}),
    target_language: str = "",
    data_dir: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Exports to the next version under `output`; an export that differs from the model is not kept.

    Args:
        run_dirs: of training jobs; several are an ensemble.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        output: `saved_models/<name>`.
        precision: of the weights, float32, bfloat16, int8, or int8_compute, which is computed in int8 where that is
            faster on this machine.
        decoding: options of the search instead of the recipe's.
        target_language: the default of a model of several; "" is the recipe's.
        data_dir: where the dev set, which is translated for the proof, is now; instead of the recipe's.
        report: takes a line for the user.

    Returns:
        The folder and its size; how many translations of the dev set's first 200 lines and of some nasty lines, and how
        many replies of the signatures, were compared, and how many differed; speed and BLEU on the dev lines, with the
        BLEU of float32 beside it.

    Raises:
        UserError: the run cannot be used, `output` cannot be written, or products in int8 are asked for where there are
            none.
    """
    if precision == "int8_compute" and not is_available():
        raise UserError(
            f"--precision=int8_compute needs {NEEDS}: export where that is so, or give --precision=int8, which is as "
            "small and is computed in float32"
        )
    if (output / "saved_model.pb").exists():
        raise UserError(
            f"{output} is a version of an export: give the folder of all versions, --output={output.parent}"
        )
    if (output / "config.json").exists():
        raise UserError(
            f"{output} is a run directory: give another folder for the export, --output=saved_models/<name>"
        )
    files.require_writable(output / ".tmp-export")
    overrides: dict[str, Any] = {f"decoding.{name}": value for name, value in decoding.items()}
    if target_language:
        overrides["data.target_language"] = target_language
    if data_dir is not None:
        overrides["data.data_dir"] = data_dir
    before = config_of(run_dirs[0], overrides)
    dev = _DevText(before.data, run_dirs[0], report)
    source = _Source(run_dirs, checkpoint, overrides)
    trained, facts, bleus = _load(source, precision, before.training.precision, dev, report)
    stored: Sequence[StoredWeight] = []
    if precision == "int8_compute":
        in_int8 = _in_int8(trained, dev, report)
        trained, stored = trained._replace(model=in_int8.model), in_int8.stored
        facts["int8_products"] = [choice.record() for choice in in_int8.choices]
        facts["needs"] = NEEDS if in_int8.weights else ""
    elif precision != "float32":
        stored = compress(trained.model.variables, precision)
    search = trained.config.decoding
    module = exporting.TranslationModule(
        trained.model,
        *trained.tokenizers,
        search,
        stored,
        trained.lexicon,
        trained.languages,
        trained.config.data.placeholders,
        trained.config.data.annotated_terms,
        trained.language_pair,
    )
    folder = exporting.save(module, output)
    try:
        report(
            f"comparing {len(dev.sources) + len(_NASTY):,} translations, and some replies of the other signatures, "
            "with a fresh process's, which loads the export as TF Serving does"
        )
        proved = _prove(folder, module, trained, dev, report)
        result: dict[str, Any] = {**proved._asdict(), "precision": precision, **facts}
        del result["translations"]
        if proved.different:
            report(f"the proof failed: {proved.different} of {proved.compared} differ; nothing was kept")
            return {"saved_model": None, **result}
        result |= {
            "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*")) / 1e6, 1),
            "dev_lines": len(dev.sources),
            "dev_bleu": dev.bleu(proved.translations),
            **dev.bleu_by_language(proved.translations),
            **bleus,
            "dev_bleu_signature": dev.signature,
        }
        files.write_json(folder / "parity.json", result)
        card = model_card(trained, run_dirs, output.name, exporting.next_version(output), dev.sources[0], result)
        files.write_text(folder / "model_card.md", card)
        files.write_text(folder / "batching_parameters.txt", _batching_parameters(search.batch_sentences))
        exporting.write_warmup_requests(module, folder, output.name, dev.sources[0], _WARMUP_BATCHES)
        for line in _bleus(result):
            report(line)
        return {"saved_model": str(exporting.publish(folder, output)), **result}
    finally:
        exporting.discard(folder)


class _DevText:
    """The first lines of the dev sets, and BLEU on them.

    Attributes:
        sources: the lines, those of one language after those of another; with placeholders for a model of such.
        languages: of each line, "" of a model of one target language.
    """

    def __init__(self, data: DataConfig, run_dir: pathlib.Path, report: Report):
        self.sources: list[str] = []
        self.languages: list[str] = []
        self._sets: list[tuple[str, slice, BLEU, list[list[str]]]] = []
        self._protected: list[ProtectedText] = []  # of each line, of a model with placeholders
        protection = placeholders_of(data)
        dev = open_dev(data, report, run_dir)
        names = list(data.languages_of_dev)
        for number, language in enumerate(names):
            metric = open_bleu(dataclasses.replace(data, target_language=language), report)
            part = dev.part(number)
            count = min(-(-_DEV_LINES // len(names)), len(part))
            place = slice(len(self.sources), len(self.sources) + count)
            sources = part.sources[0].lines(range(count))
            if protection:
                self._protected += map(protection.take_out, sources)
                sources = [text.plain for text in self._protected[place]]
            self.sources += sources
            self.languages += [language if data.target_languages else ""] * count
            self._sets.append((language, place, metric, part.reference_streams(count)))

    def bleu(self, translations: Sequence[str]) -> float:
        """BLEU of translations of the lines; the mean of several dev sets."""
        return round(sum(self._bleus(translations)) / len(self._sets), 2)

    def bleu_by_language(self, translations: Sequence[str]) -> dict[str, dict[str, float]]:
        """`dev_bleu_by_language` of several dev sets, the last of those of a language; nothing of one."""
        if len(self._sets) == 1:
            return {}
        codes = [language for language, *_ in self._sets]
        return {"dev_bleu_by_language": dict(zip(codes, (round(x, 2) for x in self._bleus(translations))))}

    def _bleus(self, translations: Sequence[str]) -> list[float]:
        if self._protected:
            pairs = zip(self._protected, translations, strict=True)
            translations = [text.put_back(translation, NO_READING) for text, translation in pairs]
        return [
            metric.corpus_score(translations[place], references).score for _, place, metric, references in self._sets
        ]

    @property
    def signature(self) -> str:
        """SacreBLEU's, which names the number of references once `bleu` has been called."""
        return ", ".join(dict.fromkeys(str(metric.get_signature()) for _, _, metric, _ in self._sets))

    def translated(
        self, run: Run, translator: Translator, progress: Callable[[Iterable], Iterable] = iter
    ) -> list[Translation]:
        """The lines by a translator of the run, in batches as the proof asks the export for."""
        return [
            translation
            for texts, codes in progress(self.batches(run.config.decoding.batch_sentences))
            for translation in translator.with_tags(run.tags_of(codes[:1])).translate_batch(texts)
        ]

    def batches(self, size: int) -> list[tuple[list[str], list[str]]]:
        """The lines and their languages, batch by batch, a batch of one language each."""
        return [
            (self.sources[start:stop], self.languages[start:stop])
            for _, place, _, _ in self._sets
            for start, stop in _cuts(place.start, place.stop, size)
        ]


def _cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(place, min(place + size, stop)) for place in range(start, stop, size)]


class _Source(NamedTuple):
    """What an export is made of."""

    run_dirs: Sequence[pathlib.Path]
    checkpoint: str
    overrides: Mapping[str, Any]

    def load(self, precision: str, report: Report = silent) -> Run:
        """The run, which computes in a precision from here on."""
        overrides = {**self.overrides, "training.precision": precision}
        return load(self.run_dirs, overrides, self.checkpoint, report=report, portable=True)


def _load(
    source: _Source, precision: str, run_precision: str, dev: _DevText, report: Report
) -> tuple[Run, dict[str, Any], dict[str, float]]:
    """The run in the precision that an export of `precision` is computed in; what parity.json says of it; and, where
    other precisions are in use, the BLEU of the run in these, by their names in parity.json."""

    def bleu_of(run: Run) -> float:
        return dev.bleu([each.text for each in dev.translated(run, run.translator(protects=False))])

    trained, computed_in = source.load("float32", report), _computed_in(precision)
    facts = {
        "run_dirs": list(map(str, source.run_dirs)),
        "checkpoint": source.checkpoint,
        "step": trained.step,
        "weights_sha256": trained.weights_sha256,
        "run_precision": run_precision,
        "computed_in": computed_in,
        "tensorflow": tf.__version__,
        "shortlist": trained.config.decoding.shortlist,
    }
    bleus: dict[str, float] = {}
    if precision != "float32":
        bleus["dev_bleu_float32"] = bleu_of(trained)
    if run_precision != computed_in:  # jobs on the run directory compute in it
        bleus["dev_bleu_run"] = bleu_of(source.load(run_precision))
    if precision != "float32" or run_precision != computed_in:
        trained = source.load(computed_in)
    return trained, facts, bleus


def _computed_in(precision: str) -> str:
    """What an export of a precision is computed in, but for what is in int8: what is fast on this machine, for one that
    is made for it."""
    config = TrainingConfig(precision=PRECISIONS[precision])
    resolve_precision(config)
    return config.precision


def _in_int8(trained: Run, dev: _DevText, report: Report) -> Int8Export:
    """The run's model with products in int8 where they are faster for a batch of dev lines."""
    config = trained.config.decoding
    texts, codes = dev.batches(config.batch_sentences)[0]
    tags = tf.repeat(tf.constant([trained.tags_of(codes[:1])], tf.int32), len(texts), axis=0)
    source = tokenize(trained.tokenizers.source, tf.constant(texts), config, tags)
    search = Search(trained.model, trained.tokenizers.target, config, lexicon=trained.lexicon)
    report("measuring which products are faster in int8")
    found = to_int8(trained.model, source.ids, config.beam_size, search.shortlist_ids(source.ids))
    report(f"{found.weights} of {sum(choice.weights for choice in found.choices)} weights are multiplied in int8")
    return found


def _bleus(result: Mapping[str, Any]) -> list[str]:
    """Lines for the user on the BLEU of an export, and on that of the run where it computes in another precision."""
    lines = [
        f"BLEU of the export ({result['precision']}) on {result['dev_lines']:,} dev lines: {result['dev_bleu']:.2f}"
    ]
    if "dev_bleu_float32" in result:
        lines[0] += f", in float32 {result['dev_bleu_float32']:.2f}"
    if "dev_bleu_run" in result:
        lines[0] += f", of the run as it was trained ({result['run_precision']}) {result['dev_bleu_run']:.2f}"
        lines.append(
            f"the export is compared with the run's weights in {result['precision']}: --run_dir computes in "
            f"{result['run_precision']}, and translates some lines otherwise"
        )
    return lines


def _prove(
    folder: pathlib.Path, module: exporting.TranslationModule, trained: Run, dev: _DevText, report: Report
) -> _Proof:
    """Compares an export with its model: the translations of the dev lines and of nasty lines with the translator's,
    the replies of all signatures to some of these lines with those of this process, and what a client makes of both
    for lines with protected spans."""
    size = trained.config.decoding.batch_sentences
    nasty = [_NASTY[i : i + size] for i in range(0, len(_NASTY), size)]
    batches = [*dev.batches(size), *((texts, [""] * len(texts)) for texts in nasty)]
    requests = [
        request for texts in (batches[0][0][:8], *nasty) for request in exporting.sample_requests(module, texts)
    ]
    here = local.LocalTransport(exporting.signatures_of(module), module)
    spans = Protection(PATTERNS)
    translator = trained.translator(protects=False)

    def request_of(texts: list[str], codes: list[str]) -> dict[str, list[str]]:
        return {"text": texts, "target_language": codes} if module.target_languages else {"text": texts}

    def progress(calls: Iterable[_Call]) -> Iterator[_Call]:
        for call in calls:
            yield call
            bar.update()

    total = 2 * (len(batches) + len(requests))
    with tqdm(total=total, unit="request", disable=not shows_bars(), desc="comparing") as bar:
        with tf.device("CPU"):  # where the proof runs
            expected = [
                *dev.translated(trained, translator, progress),
                *(t for texts in progress(nasty) for t in translator.translate_batch(texts)),
            ]
            expected_replies = [
                here.predict(name, {key: as_tensor(values) for key, values in inputs.items()})
                for name, inputs in progress(requests)
            ]
            expected_protected = client.Client("the model", transport=here, concurrency=1).translate(
                _PROTECTED, protect=spans
            )
        try:
            missing = [*proof.functions_that_must_compile(folder), *proof.unsupported_operations(folder)]
            if missing:
                raise RuntimeError(f"a server cannot run {', '.join(missing)}")
            with proof.FreshProcess(folder) as served:
                served.ask("serving_default", request_of(*batches[0]))  # the first run is slower
                start = time.monotonic()
                replies = [served.ask("serving_default", request_of(*batch)) for batch in progress(dev.batches(size))]
                seconds = time.monotonic() - start
                replies += [
                    served.ask("serving_default", request_of(*batch)) for batch in progress(batches[len(replies) :])
                ]
                other_replies = [served.ask(name, inputs) for name, inputs in progress(requests)]
                there = client.Client(str(folder), transport=proof.FreshTransport(served), concurrency=1)
                protected = there.translate(_PROTECTED, protect=spans)
        except RuntimeError as error:
            bar.close()
            report(f"the proof failed: {error}")
            return _Proof(len(expected), len(expected), None, [], 0.0)
    found = [row for reply in replies for row in zip(reply["translation"], reply["log_prob"], reply["truncated"])]
    distances = [abs(ours.best.log_prob - theirs[1]) for ours, theirs in zip(expected, found, strict=True)]
    different = sum(
        (ours.text, ours.truncated) != (text, truncated) or not distance <= _LOG_PROB_TOLERANCE
        for ours, (text, _, truncated), distance in zip(expected, found, distances)
    )
    different += sum(not _is_same(*pair) for pair in zip(expected_replies, other_replies, strict=True))
    different += sum(ours.text != theirs.text for ours, theirs in zip(expected_protected, protected, strict=True))
    translations = [text for text, *_ in found[: len(dev.sources)]]
    compared = len(found) + len(requests) + len(protected)
    return _Proof(compared, different, max(distances), translations, len(dev.sources) / seconds)


def _is_same(expected: Mapping[str, np.ndarray], found: Mapping[str, list]) -> bool:
    """Whether two replies are equal, numbers with a fraction within the tolerance."""
    return expected.keys() == found.keys() and all(
        np.shape(value) == np.shape(found[name])
        and (
            np.allclose(value, found[name], rtol=_LOG_PROB_TOLERANCE, atol=_LOG_PROB_TOLERANCE)
            if value.dtype == np.float32
            else value.tolist() == found[name]
        )
        for name, value in expected.items()
    )


def _batching_parameters(max_batch_size: int) -> str:
    """The text of TF Serving's `--batching_parameters_file`."""
    return (
        f"max_batch_size {{ value: {max_batch_size} }}\nbatch_timeout_micros {{ value: 2000 }}\n"
        "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n"
    )

"""Exports a trained model as a SavedModel for TF Serving, and proves that it translates as the model does.

python -m pipelines.export --run_dir=runs/m30k --output=saved_models/m30k      # writes saved_models/m30k/<version>

Several run directories, with commas between, are exported as one ensemble.
"""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from nmt_keras.errors import UserError
from pipelines import _runtime

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
_LOG_PROB_TOLERANCE = 1e-5  # nats; both run one graph on a CPU
_WARMUP_BATCHES = (1, 8, 64)  # rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _runtime.define_inference_flags(values, argv)
    flags.DEFINE_string(
        "output", None, "saved_models/<name>: where the next integer version is written.", flag_values=values
    )
    flags.DEFINE_string("data_dir", None, "Where the dev set is now. Default: the recipe's.", flag_values=values)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "int8"],
        "Of the weights: bfloat16 halves the size and is computed in, int8 quarters it and is computed in float32.",
        flag_values=values,
    )


def _job(values: flags.FlagValues) -> int:
    if not values.run_dir or not values.output:
        raise UserError("--run_dir and --output must be given, as in --run_dir=runs/m30k --output=saved_models/m30k")
    result = export(
        _runtime.run_dirs(values),
        values.checkpoint,
        pathlib.Path(values.output),
        precision=values.precision,
        decoding=_runtime.decoding_overrides(values),
        data_dir=values.data_dir,
    )
    print(json.dumps(result))
    return 0 if result["different"] == 0 else _runtime.STATUS_FINDINGS


class _Proof(NamedTuple):
    """How an export compares with the model it was made of."""

    compared: int  # translations, and other signatures once a batch
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
    data_dir: str | None = None,
) -> dict:
    """Exports to the next version under `output`; an export that differs from the model is not kept.

    Args:
        run_dirs: of training jobs; several are an ensemble.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        output: `saved_models/<name>`.
        precision: of the weights, float32, bfloat16 or int8.
        decoding: options of the search instead of the recipe's.
        data_dir: where the dev set, which is translated for the proof, is now; instead of the recipe's.

    Returns:
        The folder, its size, and of the dev set's first 200 lines and of some nasty ones how many were compared and
        differed, how fast they were translated, and their BLEU, beside that of float32.

    Raises:
        UserError: the run cannot be used, or `output` cannot be written.
    """
    _runtime.load_tensorflow()
    from nmt_keras import files, run_directory
    from nmt_keras.inference.compression import PRECISIONS

    if (output / "saved_model.pb").exists():
        raise UserError(
            f"{output} is a version of an export: give the folder of all versions, --output={output.parent}"
        )
    files.require_writable(output / ".tmp-export")
    config = run_directory.read_config(run_dirs[0])
    config.data.data_dir = config.data.data_dir if data_dir is None else data_dir
    bleu = run_directory.open_bleu(config.data, _runtime.report)
    run_precision, config.training.precision = config.training.precision, "float32"
    _runtime.inference_config(config, decoding)
    run_directory.require_lexicon(run_dirs[0], config.decoding)

    import tensorflow as tf

    from nmt_keras.inference import export as exporting
    from nmt_keras.inference.compression import StoredWeight, compress
    from nmt_keras.training.checkpoints import weights_sha256

    dev = run_directory.open_references(
        config.data, config.data.dev_source, run_directory.dev_references(config.data), _runtime.report
    )
    trained = run_directory.load_runs(run_dirs, checkpoint, _runtime.report)._replace(config=config)
    count = min(_DEV_LINES, len(dev))
    sources, references = dev.sources[0].lines(range(count)), dev.reference_streams(count)

    def bleu_of(run) -> float:
        hypotheses = [translation.text for translation in run.translator().translate(sources)]
        return round(bleu.corpus_score(hypotheses, references).score, 2)

    fingerprints = [weights_sha256(model) for model in getattr(trained.model, "members", [trained.model])]
    stored: list[StoredWeight] = []
    float32_bleu: dict[str, Any] = {}
    if run_precision != PRECISIONS[precision]:  # jobs on the run directory compute in it
        config.training.precision = run_precision
        _runtime.configure(config.training)
        float32_bleu["dev_bleu_run"] = bleu_of(run_directory.load_runs(run_dirs, checkpoint)._replace(config=config))
        config.training.precision = "float32"
        _runtime.configure(config.training)
    if precision != "float32":
        float32_bleu["dev_bleu_float32"] = bleu_of(trained)
        config.training.precision = PRECISIONS[precision]
        _runtime.configure(config.training)
        trained = run_directory.load_runs(run_dirs, checkpoint)._replace(config=config)
        stored = compress(trained.model.variables, precision)
    module = exporting.TranslationModule(trained.model, *trained.tokenizers, config.decoding, stored, trained.lexicon)
    folder = exporting.save(module, output)
    try:
        _runtime.report(
            f"comparing {len(sources) + len(_NASTY):,} translations, and some replies of the other signatures, with a "
            "fresh process's, which loads the export as TF Serving does"
        )
        proof = _prove(folder, module, trained.translator(), sources)
        result: dict[str, Any] = {**proof._asdict(), "precision": precision}
        del result["translations"]
        result |= {"run_dirs": list(map(str, run_dirs)), "checkpoint": checkpoint, "step": trained.step}
        result |= {"weights_sha256": fingerprints, "run_precision": run_precision, "tensorflow": tf.__version__}
        result |= {"shortlist": config.decoding.shortlist}
        if proof.different:
            _runtime.report(f"the proof failed: {proof.different} of {proof.compared} differ; nothing was kept")
            return {"saved_model": None, **result}
        version = exporting.next_version(output)
        result |= {
            "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*")) / 1e6, 1),
            "dev_lines": len(sources),
            "dev_bleu": round(bleu.corpus_score(proof.translations, references).score, 2),
            **float32_bleu,
            "dev_bleu_signature": str(bleu.get_signature()),
        }
        files.write_json(folder / "parity.json", result)
        files.write_text(
            folder / "model_card.md", model_card(trained, run_dirs, output.name, version, sources[0], result)
        )
        files.write_text(folder / "batching_parameters.txt", _batching_parameters(config.decoding.batch_sentences))
        exporting.write_warmup_requests(module, folder, output.name, sources[0], _WARMUP_BATCHES)
        for line in _bleus(result):
            _runtime.report(line)
        return {"saved_model": str(exporting.publish(folder, output)), **result}
    finally:
        exporting.discard(folder)


def _bleus(result: Mapping[str, Any]) -> list[str]:
    """Lines on the BLEU of an export, and of the run where that computes otherwise and translates some lines
    otherwise."""
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


def _prove(folder: pathlib.Path, module, translator, sources: list[str]) -> _Proof:
    """Compares the export's translations, of `sources` and of nasty lines, with the translator's, and what all its
    signatures say of some of them with what they say here."""
    import tensorflow as tf

    from nmt_keras.inference import export as exporting
    from nmt_keras.inference import local, proof
    from nmt_keras.inference.transports import as_tensor

    size = translator.config.batch_sentences
    dev, nasty = ([lines[i : i + size] for i in range(0, len(lines), size)] for lines in (sources, _NASTY))
    requests = [request for batch in (dev[0][:8], *nasty) for request in exporting.sample_requests(module, batch)]
    here = local.LocalTransport(exporting.signatures_of(module), module)
    with tf.device("CPU"):  # where the proof runs
        expected = [t for batch in dev + nasty for t in translator.translate_batch(batch)]
        expected_replies = [
            here.predict(name, {key: as_tensor(values) for key, values in inputs.items()}) for name, inputs in requests
        ]
    try:
        missing = [*proof.functions_that_must_compile(folder), *proof.unsupported_operations(folder)]
        if missing:
            raise RuntimeError(f"a server cannot run {', '.join(missing)}")
        with proof.FreshProcess(folder) as served:
            served.ask("serving_default", {"text": dev[0]})  # the first run is slower
            start = time.monotonic()
            replies = [served.ask("serving_default", {"text": batch}) for batch in dev]
            seconds = time.monotonic() - start
            replies += [served.ask("serving_default", {"text": batch}) for batch in nasty]
            other_replies = [served.ask(name, inputs) for name, inputs in requests]
    except RuntimeError as error:
        _runtime.report(f"the proof failed: {error}")
        return _Proof(len(expected), len(expected), None, [], 0.0)
    found = [row for reply in replies for row in zip(reply["translation"], reply["log_prob"], reply["truncated"])]
    distances = [abs(ours.best.log_prob - theirs[1]) for ours, theirs in zip(expected, found, strict=True)]
    different = sum(
        (ours.text, ours.truncated) != (text, truncated) or not distance <= _LOG_PROB_TOLERANCE
        for ours, (text, _, truncated), distance in zip(expected, found, distances)
    )
    different += sum(not _is_same(*pair) for pair in zip(expected_replies, other_replies, strict=True))
    translations = [text for text, *_ in found[: len(sources)]]
    return _Proof(len(found) + len(requests), different, max(distances), translations, len(sources) / seconds)


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


def model_card(
    trained, run_dirs: Sequence[pathlib.Path], name: str, version: int, example: str, result: Mapping[str, Any]
) -> str:
    """Markdown: what the model is, what it was trained on, its limits, and how to call it.

    Args:
        trained: the `Run`.
        run_dirs: of it.
        name: of the model on a server.
        version: of it.
        example: a source sentence.
        result: of the proof.
    """
    config, decoding = trained.config, trained.config.decoding
    data, model = config.data, config.model
    request = shlex.quote(json.dumps({"inputs": {"text": [example]}}, ensure_ascii=False))
    beside = f", in float32 {result['dev_bleu_float32']:.2f}" if "dev_bleu_float32" in result else ""
    ensemble = f"an ensemble of {len(run_dirs)} models, " if len(run_dirs) > 1 else ""
    shortlist = f", a shortlist of {decoding.shortlist} pieces a source piece" if decoding.shortlist else ""
    beams = max(decoding.max_beam_size, decoding.beam_size)
    kind = "any number of sentences, translated one by one and joined" if decoding.split_sentences else "one sentence"
    return f"""# {name}

Translates {data.source_language} to {data.target_language}: {ensemble}encoder {model.encoder},
decoder {model.decoder}, {trained.model.count_params():,} weights in {result["precision"]}, {data.tokenizer} pieces,
after {trained.step:,} steps (checkpoint {result["checkpoint"]}).

- Trained on {", ".join(data.train_source)} and {", ".join(data.train_target)}, chosen on {data.dev_source}. Text unlike
  that is translated badly, and no translation is checked for truth.
- This export on the first {result["dev_lines"]:,} lines of {data.dev_source}: BLEU {result["dev_bleu"]:.2f}{beside}
  ({result["dev_bleu_signature"]}). Best in training: {_best(trained.config, run_dirs[0])}.
- A text is {kind}, of at most {decoding.max_source_characters:,} characters; a sentence has at most
  {decoding.max_source_length} pieces and its translation {decoding.max_length}. What is over a limit is left out,
  and `truncated` says so. A call has at most {decoding.max_request_sentences:,} texts, {beams} beams and as many
  hypotheses.
- Search: {decoding.beam_size} beams, length penalty {decoding.length_penalty:g}
  ({decoding.length_penalty_kind}){shortlist}.
- `parity.json`: how the export was compared with the model it was made of. `config.json` of the run has all settings.

    # in the folder that {name}/ is in
    docker run -p 8500:8500 -p 8501:8501 -v "$PWD/{name}:/models/{name}" -e MODEL_NAME={name} tensorflow/serving \\
        --enable_batching --batching_parameters_file=/models/{name}/{version}/batching_parameters.txt
    curl -d {request} http://localhost:8501/v1/models/{name}:predict
    echo {shlex.quote(example)} | python -m pipelines.translate --server=grpc://localhost:8500/{name}

From Python, by REST or gRPC:

    from nmt_keras.inference.client import Client

    with Client("grpc://localhost:8500/{name}") as client:
        [translation] = client.translate([{example!r}], beam_size={decoding.beam_size}, num_hypotheses=1)
        print(translation.text, [hypothesis["score"] for hypothesis in translation.hypotheses])
"""


def _best(config: Any, run_dir: pathlib.Path) -> str:
    """The best metric of training, with what it was measured with."""
    from nmt_keras import run_directory
    from nmt_keras.inference.evaluation import bleu_signature

    try:
        best = json.loads((run_directory.checkpoints_of(run_dir) / "best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "not measured"
    measured = ""
    if best["metric"] == "dev_bleu":
        signature = bleu_signature(config.data.target_language, config.data.bleu_tokenizer)
        measured = f" ({signature}), {config.training.dev_beam_size} beam(s),"
    return f"{best['metric']} {best['value']:.2f}{measured} at step {best['step']:,}"


def _batching_parameters(max_batch_size: int) -> str:
    """Of TF Serving's `--batching_parameters_file`."""
    return (
        f"max_batch_size {{ value: {max_batch_size} }}\nbatch_timeout_micros {{ value: 2000 }}\n"
        "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n"
    )


if __name__ == "__main__":
    sys.exit(main())

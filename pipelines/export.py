"""Exports a trained model as a SavedModel for TF Serving, and proves that it translates as the model does.

python -m pipelines.export --run_dir=runs/m30k --output=saved_models/m30k      # writes saved_models/m30k/<version>
"""

import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _runtime.define_inference_flags(values, argv)
    flags.DEFINE_string(
        "output", None, "saved_models/<name>: where the next integer version is written.", flag_values=values
    )
    flags.DEFINE_string("data_dir", None, "Where the dev set is now. Default: the recipe's.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not values.run_dir or not values.output:
        raise UserError("--run_dir and --output must be given, as in --run_dir=runs/m30k --output=saved_models/m30k")
    result = export(
        pathlib.Path(values.run_dir),
        values.checkpoint,
        pathlib.Path(values.output),
        decoding=_runtime.decoding_overrides(values),
        data_dir=values.data_dir,
    )
    print(json.dumps(result))
    return 0 if result["different"] == 0 else _runtime.STATUS_FINDINGS


def export(
    run_dir: pathlib.Path,
    checkpoint: str,
    output: pathlib.Path,
    *,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    data_dir: str | None = None,
) -> dict:
    """Exports to the next version under `output`; an export that differs from the model is not kept.

    Args:
        run_dir: of a training job.
        checkpoint: `best`, `latest` or a step.
        output: `saved_models/<name>`.
        decoding: options of the search instead of the recipe's.
        data_dir: where the dev set, which is translated for the proof, is now; instead of the recipe's.

    Returns:
        The folder, and how many of the dev set's first 200 lines and of some nasty ones were compared and differed.

    Raises:
        UserError: the run cannot be used, or `output` cannot be written.
    """
    _runtime.load_tensorflow()
    from nmt_keras import files, run_directory

    config = run_directory.read_config(run_dir)
    config.data.data_dir = config.data.data_dir if data_dir is None else data_dir
    _runtime.inference_config(config, decoding)

    import tensorflow as tf

    from nmt_keras.inference import export as exporting

    dev = run_directory.open_corpus(config.data, [config.data.dev_source], [config.data.dev_target], _runtime.report)
    trained = run_directory.load_run(run_dir, checkpoint, _runtime.report)._replace(config=config)
    texts, size = dev.text()[0][:_DEV_LINES] + _NASTY, config.decoding.batch_sentences
    batches = [texts[i : i + size] for i in range(0, len(texts), size)]
    module = exporting.TranslationModule(trained.model, *trained.tokenizers, config.decoding)
    folder = exporting.save(module, output)
    try:
        translator = trained.translator()
        with tf.device("CPU"):  # where the proof runs
            expected = [[(t.text, t.best.log_prob) for t in translator.translate_batch(batch)] for batch in batches]
        _runtime.report(
            f"comparing {len(texts):,} translations with a fresh process's, which loads the export as TF Serving does"
        )
        proof = _prove(folder, batches, expected)
        proof |= {"step": trained.step, "checkpoint": checkpoint, "tensorflow": tf.__version__}
        if proof["different"]:
            _runtime.report(f"the proof failed: {proof['different']} of {len(texts)} differ; nothing was kept")
            return {"saved_model": None, **proof}
        files.write_json(folder / "parity.json", proof)
        files.write_text(folder / "model_card.md", model_card(trained, run_dir, output.name, texts[0]))
        files.write_text(folder / "batching_parameters.txt", _batching_parameters(size))
        return {"saved_model": str(exporting.publish(folder, output)), **proof}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prove(folder: pathlib.Path, batches: list[list[str]], expected: list[list[tuple[str, float]]]) -> dict[str, Any]:
    """Compares the export's translations with those that are expected."""
    from nmt_keras.inference import export as exporting

    count = sum(map(len, batches))
    try:
        uncompiled = exporting.functions_that_must_compile(folder)
        if uncompiled:
            raise RuntimeError(f"a server without XLA cannot run {', '.join(uncompiled)}")
        served = exporting.reloaded_translations(folder, batches)
    except RuntimeError as error:
        _runtime.report(f"the proof failed: {error}")
        return {"compared": 0, "different": count}
    pairs = [pair for ours, theirs in zip(expected, served, strict=True) for pair in zip(ours, theirs, strict=True)]
    distances = [abs(ours[1] - theirs[1]) for ours, theirs in pairs]
    different = sum(
        ours[0] != theirs[0] or distance > _LOG_PROB_TOLERANCE for (ours, theirs), distance in zip(pairs, distances)
    )
    return {"compared": count, "different": different, "largest_log_prob_difference": max(distances)}


def model_card(trained, run_dir: pathlib.Path, name: str, example: str) -> str:
    """Markdown: what the model is, what it was trained on, its limits, and how to call it.

    Args:
        trained: the `Run`.
        run_dir: of it.
        name: of the model on a server.
        example: a source sentence.
    """
    config, decoding = trained.config, trained.config.decoding
    data, model = config.data, config.model
    request = shlex.quote(json.dumps({"inputs": {"text": [example]}}, ensure_ascii=False))
    return f"""# {name}

Translates {data.source_language} to {data.target_language}: encoder {model.encoder}, decoder {model.decoder},
{trained.model.count_params():,} weights, {data.tokenizer} pieces, after {trained.step:,} steps.

- Trained on {", ".join(data.train_source)} and {", ".join(data.train_target)}, chosen on {data.dev_source}. Text unlike
  that is translated badly, and no translation is checked for truth.
- A text is one sentence of at most {decoding.max_source_length} pieces; of a longer one the beginning is translated,
  and `truncated` says so. A translation has at most {decoding.max_length} pieces.
- Best on the dev set: {_best(trained.config, run_dir)}.
- Search: {decoding.beam_size} beams, length penalty {decoding.length_penalty:g} ({decoding.length_penalty_kind}).
- `parity.json`: how the export was compared with the model it was made of. `config.json` of the run has all settings.

    docker run -p 8500:8500 -p 8501:8501 -v "$PWD/{name}:/models/{name}" -e MODEL_NAME={name} tensorflow/serving \\
        --enable_batching --batching_parameters_file=/models/{name}/<version>/batching_parameters.txt
    curl -d {request} http://localhost:8501/v1/models/{name}:predict
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
        measured = f" ({bleu_signature(config.data.target_language)}), {config.training.dev_beam_size} beam(s),"
    return f"{best['metric']} {best['value']:.2f}{measured} at step {best['step']:,}"


def _batching_parameters(max_batch_size: int) -> str:
    """Of TF Serving's `--batching_parameters_file`."""
    return (
        f"max_batch_size {{ value: {max_batch_size} }}\nbatch_timeout_micros {{ value: 2000 }}\n"
        "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n"
    )


if __name__ == "__main__":
    sys.exit(main())

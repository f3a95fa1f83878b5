"""Exports a trained model as a SavedModel for TF Serving, and proves that it translates as the model does.

python -m pipelines.export --run_dir=runs/m30k --output=saved_models/m30k      # writes saved_models/m30k/<version>
"""

import json
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _runtime

_NASTY = [
    "",
    " ",
    "a",
    "\U0001f600 \u05e9\u05dc\u05d5\u05dd",
    "tab\tand\u2028line",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
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
        The folder, and how many of the dev set's lines (and some nasty ones) were compared and how many differed.

    Raises:
        UserError: the run cannot be used, or `output` cannot be written.
    """
    _runtime.load_tensorflow()
    from nmt_keras import run_directory

    config = run_directory.read_config(run_dir)
    config.data.data_dir = config.data.data_dir if data_dir is None else data_dir
    _runtime.inference_config(config, decoding)

    import tensorflow as tf

    from nmt_keras.inference import export as exporting

    dev = run_directory.open_corpus(config.data, [config.data.dev_source], [config.data.dev_target], _runtime.report)
    trained = run_directory.load_run(run_dir, checkpoint, _runtime.report)._replace(config=config)
    texts = dev.text()[0] + _NASTY
    batches = [
        texts[i : i + config.decoding.batch_sentences] for i in range(0, len(texts), config.decoding.batch_sentences)
    ]
    module = exporting.TranslationModule(trained.model, *trained.tokenizers, config.decoding)
    folder = exporting.save(module, output)
    try:
        translator = trained.translator()
        with tf.device("CPU"):  # where the proof runs
            expected = [[(t.text, t.best.log_prob) for t in translator.translate_batch(batch)] for batch in batches]
        _runtime.report(f"comparing {len(texts):,} translations with those of a fresh process that loads the export")
        try:
            served = exporting.reloaded_translations(folder, batches)
        except RuntimeError as error:
            _runtime.report(f"the proof failed: {error}")
            return {"saved_model": None, "compared": 0, "different": len(texts), "step": trained.step}
        different = sum(
            text != other or abs(log_prob - other_log_prob) > _LOG_PROB_TOLERANCE
            for ours, theirs in zip(expected, served, strict=True)
            for (text, log_prob), (other, other_log_prob) in zip(ours, theirs, strict=True)
        )
        if different:
            _runtime.report(f"the proof failed: {different} of {len(texts)} translations differ; nothing was kept")
        published = None if different else str(exporting.publish(folder, output))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"saved_model": published, "compared": len(texts), "different": different, "step": trained.step}


if __name__ == "__main__":
    sys.exit(main())

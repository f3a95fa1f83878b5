"""Scores a trained model on a test set: BLEU, chrF, TER and perplexity, as JSON on stdout.

python -m pipelines.evaluate --run_dir=runs/m30k --source=test.en --reference=test.de
"""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import flags
from tqdm import tqdm

from nmt_keras.errors import UserError
from pipelines import _runtime


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _runtime.define_inference_flags(values, argv)
    flags.DEFINE_string("source", None, "Text to translate, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("reference", None, "Its reference translation, line by line.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Prefix of both, and where `tfds:` data sets are kept.", flag_values=values)
    flags.DEFINE_string("output", None, "Also write the JSON here.", flag_values=values)
    flags.DEFINE_string("translations", None, "Also write the translations here, line by line.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    for name in ("run_dir", "source", "reference"):
        if not values[name].value:
            raise UserError(f"--{name} must be given, as in --run_dir=runs/m30k --source=test.en --reference=test.de")
    scores = evaluate(
        _runtime.run_dirs(values),
        values.checkpoint,
        values.source,
        values.reference,
        decoding=_runtime.decoding_overrides(values),
        data_dir=values.data_dir,
        output=values.output,
        translations=values.translations,
    )
    print(json.dumps(scores, ensure_ascii=False))
    return 0


def evaluate(
    run_dirs: Sequence[pathlib.Path],
    checkpoint: str,
    source: str,
    reference: str,
    *,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    data_dir: str = "",
    output: str | None = None,
    translations: str | None = None,
) -> dict:
    """Scores a trained model on a parallel test set.

    Args:
        run_dirs: of training jobs; several are an ensemble.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        source: the text to translate.
        reference: its reference translation.
        decoding: options of the search instead of the recipe's.
        data_dir: prefix of both texts, and where `tfds:` data sets are kept.
        output: a file that the scores are written to as JSON.
        translations: a file that the translations are written to.

    Raises:
        UserError: the run or the text cannot be used.
    """
    import dataclasses

    _runtime.load_tensorflow()
    from nmt_keras import files, run_directory

    config = run_directory.read_config(run_dirs[0])
    _runtime.inference_config(config, decoding)

    from nmt_keras.data.batching import evaluation_batches
    from nmt_keras.inference.evaluation import bleu_metric, score_text
    from nmt_keras.training.losses import compile_dev_loss, perplexity

    data = dataclasses.replace(config.data, data_dir=data_dir)
    bleu_metric(data.target_language)  # a package that it needs is missed before the work
    corpus = run_directory.open_corpus(data, [source], [reference], _runtime.report)
    corpus.require_text()
    trained = run_directory.load_runs(run_dirs, checkpoint, _runtime.report)._replace(config=config)
    sources, references = corpus.text()
    with contextlib.ExitStack() as stack:  # a path that cannot be written is found before the work
        scores_file, translations_file = (
            stack.enter_context(files.replacing(p)) if p else None for p in (output, translations)
        )
        start = time.monotonic()
        with tqdm(total=len(sources), unit="sentence", disable=not sys.stderr.isatty()) as progress:
            results = trained.translator().translate(sources, progress.update)
        seconds = time.monotonic() - start
        hypotheses = [result.text for result in results]
        if translations_file:
            files.write_text(translations_file, "".join(text + "\n" for text in hypotheses))
        loss = compile_dev_loss(trained.model)(
            evaluation_batches(
                corpus,
                *trained.tokenizers,
                max_source_length=data.max_source_length,
                max_target_length=data.max_target_length,
                report=_runtime.report,
            )
        )
        scores = {
            **score_text(hypotheses, references, data.target_language),
            "perplexity": perplexity(loss),
            "sentences_per_s": len(sources) / seconds,
            "sentences": len(sources),
            "run_dirs": list(map(str, run_dirs)),
            "checkpoint": checkpoint,
            "step": trained.step,
            "beam_size": config.decoding.beam_size,
            "length_penalty": config.decoding.length_penalty,
            "decoding": dataclasses.asdict(config.decoding),
        }
        if scores_file:
            files.write_text(scores_file, json.dumps(scores, ensure_ascii=False) + "\n")
    return scores


if __name__ == "__main__":
    sys.exit(main())

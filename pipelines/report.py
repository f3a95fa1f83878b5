"""A report on a run: one page for a browser, with curves, scores by length, samples, attention, text and settings.

python -m pipelines.report --run_dir=runs/m30k                  # writes runs/m30k/report.html
It translates the run's dev set; --source and --reference name another text.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _cli.define_inference_flags(values, argv)
    flags.DEFINE_string("output", None, "The page. Default: report.html in the run directory.", flag_values=values)
    flags.DEFINE_string("source", "", "The text to translate. Default: the run's dev set.", flag_values=values)
    flags.DEFINE_list("reference", [], "Its translations, with commas.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Folder of relative paths. Default: the run's.", flag_values=values)
    flags.DEFINE_integer(
        "sentences", 1000, "Translated at most; 0 shows what training wrote alone.", 0, flag_values=values
    )


def _job(values: flags.FlagValues) -> int:
    if len(values.run_dir or ()) != 1:
        raise UserError(f"--run_dir must be one run, as in --run_dir=runs/m30k. Received: {values.run_dir}")
    if values.reference and not values.source:
        raise UserError("--reference is of --source, which must be given too")
    _process.load_tensorflow()
    from nmt_keras.experiment.report import write_report

    result = write_report(
        pathlib.Path(values.run_dir[0]),
        pathlib.Path(values.output) if values.output else None,
        checkpoint=values.checkpoint,
        source=values.source,
        references=values.reference,
        sentences=values.sentences,
        data_dir=values.data_dir,
        target_language=values.target_language,
        decoding=_cli.decoding_overrides(values),
        report=_process.report,
    )
    _process.report(f"open {result['report']} in a browser")
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

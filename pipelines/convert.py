"""Converts a trained model for another program, and proves that it translates there as it does here.

python -m pipelines.convert --run_dir=runs/m30k --to=ctranslate2 --output=converted/m30k
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
    _cli.define_inference_flags(values, argv, searches=False)
    flags.DEFINE_enum(
        "to",
        None,
        ["ctranslate2", "pytorch"],
        "ctranslate2: a Transformer for CTranslate2. pytorch: a recurrent model or a Transformer as one readable file.",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "The folder that is made.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Where the dev set is now. Default: the recipe's.", flag_values=values)
    flags.DEFINE_integer(
        "proof_lines", 200, "Lines of the dev set that are compared.", lower_bound=1, flag_values=values
    )


def _job(values: flags.FlagValues) -> int:
    if not (values.run_dir and values.to and values.output):
        raise UserError(
            "--run_dir, --to and --output must be given, as in --run_dir=runs/m30k --to=ctranslate2 "
            "--output=converted/m30k"
        )
    _process.load_tensorflow()
    from nmt_keras.experiment.convert import convert

    result = convert(
        _cli.run_dirs(values),
        values.checkpoint,
        values.to,
        pathlib.Path(values.output),
        overrides=_cli.overrides(values),
        data_dir=values.data_dir,
        proof_lines=values.proof_lines,
        report=_process.report,
    )
    print(json.dumps(result))
    return 0 if result["different"] == 0 else _cli.STATUS_FINDINGS


if __name__ == "__main__":
    sys.exit(main())

"""Exports a trained model as a SavedModel for TF Serving, and proves that it translates as the model does.

python -m pipelines.export --run_dir=runs/m30k --output=saved_models/m30k      # writes saved_models/m30k/<version>

Several run directories, with commas between, are exported as one ensemble.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.constants import EXPORT_PRECISIONS
from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _cli.define_inference_flags(values, argv)
    flags.DEFINE_string(
        "output", None, "saved_models/<name>: where the next integer version is written.", flag_values=values
    )
    flags.DEFINE_string("data_dir", None, "Where the dev set is now. Default: the recipe's.", flag_values=values)
    flags.DEFINE_enum(
        "precision",
        "float32",
        EXPORT_PRECISIONS,
        "Of the weights: bfloat16 halves the size and is computed in, int8 quarters it and is computed in float32, "
        "int8_compute quarters it and is computed in int8 where that is faster on this machine.",
        flag_values=values,
    )


def _job(values: flags.FlagValues) -> int:
    if not values.run_dir or not values.output:
        raise UserError("--run_dir and --output must be given, as in --run_dir=runs/m30k --output=saved_models/m30k")
    _process.load_tensorflow()
    from nmt_keras.experiment.export import export

    result = export(
        _cli.run_dirs(values),
        values.checkpoint,
        pathlib.Path(values.output),
        precision=values.precision,
        decoding=_cli.decoding_overrides(values),
        target_language=values.target_language,
        data_dir=values.data_dir,
        report=_process.report,
    )
    if result["different"] == 0:
        _process.report("Next:")
        _process.report(f"   python -m pipelines.serve --saved_model={values.output}    # on this machine, to try it")
        _process.report(
            f"   python -m pipelines.translate --saved_model={values.output} --input=<text> --output=<translation>"
        )
        _process.report(f"   docs/serving.md, or {result['saved_model']}/model_card.md, for TensorFlow Serving")
    print(json.dumps(result))
    return 0 if result["different"] == 0 else _cli.STATUS_FINDINGS


if __name__ == "__main__":
    sys.exit(main())

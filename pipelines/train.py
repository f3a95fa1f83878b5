"""Trains a model: python -m pipelines.train --config=pipelines/recipes/multi30k_en_de.py --run_dir=runs/m30k

The same command resumes a run that stopped, as if it had not; SIGINT and SIGTERM save and stop. Any field of the recipe
can be overridden, as in --config.training.max_steps=2000 or --config.model.attention=bahdanau.
"""

import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError
from pipelines import _cli, _process, _signals


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The recipe: a Python file with get_config(), or a run (its config.json).",
        sys_argv=argv,
        flag_values=values,
    )
    flags.DEFINE_string("run_dir", None, "Where everything of this run is kept.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Folder of the recipe's relative paths.", flag_values=values)
    flags.DEFINE_string(
        "init_from", None, "A run whose weights this training begins with: training.init_from.", flag_values=values
    )
    flags.DEFINE_string(
        "profile", None, "Steps to profile for TensorBoard, as in --profile=100:110.", flag_values=values
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Go on with other data or another schedule than the run began with; what a checkpoint holds stays refused.",
        flag_values=values,
    )


def _job(values: flags.FlagValues) -> int:
    if not values["config"].present or not values.run_dir:
        run_dir = values.run_dir or "runs/m30k"
        recipe = run_dir if (pathlib.Path(run_dir) / "config.json").exists() else "pipelines/recipes/multi30k_en_de.py"
        raise UserError(f"--config and --run_dir must be given, for instance --config={recipe} --run_dir={run_dir}")
    config = _cli.recipe(values)
    if values.data_dir is not None:
        config.data.data_dir = values.data_dir
    if values.init_from is not None:
        config.training.init_from = values.init_from
    config.validate()  # before TensorFlow is loaded
    profile = _profile(values.profile)
    is_done = run_training(config, pathlib.Path(values.run_dir), values.allow_config_change, profile)
    return 0 if is_done else _cli.STATUS_STOPPED


def _profile(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile must be the first and the last step, as in --profile=100:110. Received: {text}")
    return int(match[1]), int(match[2])


def run_training(
    config: ExperimentConfig, run_dir: pathlib.Path, allow_change: bool = False, profile: tuple[int, int] | None = None
) -> bool:
    """Trains as `nmt_keras.experiment.train` does; signals ask it to stop, and what it has to say is printed."""
    with _signals.stopping() as stop:
        _process.load_tensorflow()
        from nmt_keras.experiment.train import train

        return train(config, run_dir, allow_change=allow_change, report=_process.report, stop=stop, profile=profile)


if __name__ == "__main__":
    sys.exit(main())

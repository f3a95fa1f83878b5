"""A run directory: what training leaves and every later job starts from.

config.json  tokenizer/  data_card.json  checkpoints/  summaries/  metrics.jsonl  run_card.json  lexicon.npz
"""

import contextlib
import copy
import fcntl
import pathlib
import shutil
from collections.abc import Callable, Iterator

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError
from nmt_keras.reports import Report, silent
from nmt_keras.runs.changes import SCHEDULED_TO_THE_END, keep_what_was_decided, require_allowed
from nmt_keras.training.checkpoints import Checkpoints


def checkpoints_of(run_dir: pathlib.Path) -> pathlib.Path:
    """The folder of a run's checkpoints."""
    return run_dir / "checkpoints"


def lexicon_of(run_dir: pathlib.Path) -> pathlib.Path:
    """The file of a run's lexicon."""
    return run_dir / "lexicon.npz"


def read_config(run_dir: pathlib.Path) -> ExperimentConfig:
    """The configuration a run was trained with.

    Raises:
        UserError: `run_dir` is no run directory, or its configuration is broken.
    """
    try:
        return ExperimentConfig.from_json((run_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        if not run_dir.exists():
            raise UserError(f"There is no folder {run_dir}; give the --run_dir of a training job") from error
        is_export = any(run_dir.glob("saved_model.pb")) or any(run_dir.glob("*/saved_model.pb"))
        remedy = (
            "it is an export: give the run that it was made of, or --saved_model to a job that takes one"
            if is_export
            else "give the --run_dir of a training job"
        )
        raise UserError(f"{run_dir} is no run directory: it has no readable config.json; {remedy}") from error


@contextlib.contextmanager
def open_run_dir(
    run_dir: pathlib.Path,
    config: ExperimentConfig,
    report: Report = silent,
    allow_change: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Makes a run directory with its `config.json`, or checks that an existing one is of the same experiment.

    Within the block, the directory is locked against other training jobs of this machine. Changed fields are reported;
    those that need permission may change only with `allow_change`. A `batch_tokens` of 0, "find it", becomes the value
    found before. `check` is called before anything is written and may raise, to refuse other changes.

    Raises:
        UserError: it belongs to another configuration, with the difference, or another job trains there; nothing is
            written.
    """
    path = run_dir / "config.json"
    if not path.exists() and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir} exists and is no run directory; give a new or empty --run_dir")
    files.make_folder(run_dir)
    with open(run_dir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another job is training in {run_dir}; wait for it, or give another --run_dir") from error
        _keep_config(run_dir, path, config, report, allow_change, check)
        yield


def _keep_config(
    run_dir: pathlib.Path,
    path: pathlib.Path,
    config: ExperimentConfig,
    report: Report,
    allow_change: bool,
    check: Callable[[], None],
) -> None:
    if path.exists():
        before = read_config(run_dir)
        if not any(Checkpoints(checkpoints_of(run_dir)).steps()):  # nothing was trained: no more than a false start
            for folder in (run_dir / "tokenizer", run_dir / "bad_batches", checkpoints_of(run_dir)):
                shutil.rmtree(folder, ignore_errors=True)
            (run_dir / "data_card.json").unlink(missing_ok=True)
        else:
            keep_what_was_decided(before, config)
            changeable, changes = require_allowed(run_dir, before, config, allow_change)
            check()
            if (
                config.training.max_steps != before.training.max_steps
                and config.training.schedule in SCHEDULED_TO_THE_END
            ):
                changes.append(
                    f"training.schedule {config.training.schedule} is one of max_steps: the rates change with it"
                )
            if changes + changeable:
                report(f"from now on: {'; '.join(changes + changeable)}")
    files.write_text(path, config.to_json())


def require_same_experiment(run_dir: pathlib.Path, config: ExperimentConfig, allow_change: bool) -> None:
    """Checks that a run with checkpoints may go on with `config`: an early check, before the work that precedes
    `open_run_dir`.

    Raises:
        UserError: it belongs to another configuration, or cannot be written.
    """
    files.require_writable(run_dir / "config.json")
    if (run_dir / "config.json").exists() and any(Checkpoints(checkpoints_of(run_dir)).steps()):
        before, config = read_config(run_dir), copy.deepcopy(config)
        keep_what_was_decided(before, config)
        require_allowed(run_dir, before, config, allow_change)

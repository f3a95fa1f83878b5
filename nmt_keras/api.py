"""The functions of `import nmt_keras`: what the jobs do, on values of Python."""

import inspect
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.constants import EXPORT_PRECISIONS
from nmt_keras.engine import load_tensorflow
from nmt_keras.errors import UserError
from nmt_keras.reports import Report

if TYPE_CHECKING:
    from nmt_keras.serving.client import Client

Path = str | os.PathLike


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def load(
    model: Path | Sequence[Path],
    *,
    checkpoint: str | int = "best",
    target_language: str = "",
    report: Report = _say,
    **decoding: Any,
) -> "Client":
    """Opens a trained model: a run, an export, or a server, all behind one object.

    Args:
        model: a run directory (several are an ensemble), a SavedModel or a folder of its versions, or an address,
            `grpc://host:port/model[/version]` or `http://host:port/model[/version]`.
        checkpoint: of a run: `best`, `latest`, `averaged`, `ema` or a step.
        target_language: of a run of several target languages: that of translations that ask for none.
        report: takes a line for the user. By default it is written to stderr.
        **decoding: options of a run's search, fields of `DecodingConfig`, such as `beam_size=5`. An export and a server
            keep what they were made with; they take some as options of a call.

    Returns:
        The client, with `translate`, `stream`, `score`, `encode` and `attention`.

    Raises:
        UserError: there is no such model, or an option is not valid or is another kind of model's.
    """
    models = [model] if isinstance(model, (str, os.PathLike)) else list(model or ())
    names = [str(each) for each in models]
    if not names:
        raise UserError("load needs a model: a run directory, an export, or the address of a server")
    is_address = any("://" in name for name in names)
    is_run = all(os.path.exists(os.path.join(name, "config.json")) for name in names)
    if not is_run:
        if len(names) > 1:
            raise UserError(f"{', '.join(names)}: an ensemble is of run directories, and one of these is none")
        given = [*decoding, *["checkpoint"] * (checkpoint != "best"), *["target_language"] * bool(target_language)]
        if given:
            raise UserError(
                f"{given[0]} goes with a run directory: {names[0]} keeps what it was made with; give it to `translate`"
            )
    if is_address:
        from nmt_keras.serving.client import Client

        return Client(names[0], report=report)
    if not is_run and not os.path.exists(names[0]):
        if re.fullmatch(r"[\w.-]+:\d+/.+", names[0]):
            raise UserError(
                f"{names[0]} is no folder; write the address of a server as grpc://{names[0]} or http://..."
            )
        raise UserError(
            f"There is no {names[0] or repr(names[0])}: give a run directory, an export, or the address of a server"
        )
    load_tensorflow()
    if not is_run:
        from nmt_keras.serving.local import load_export

        return load_export(pathlib.Path(names[0]))
    from nmt_keras.runs.loading import load as load_run

    overrides = {f"decoding.{name}": value for name, value in decoding.items()}
    if target_language:
        overrides["data.target_language"] = target_language
    return load_run([pathlib.Path(name) for name in names], overrides, checkpoint, report=report).client()


def recipe(path: Path, **overrides: Any) -> ExperimentConfig:
    """Reads an experiment out of a recipe or a run.

    Args:
        path: a Python file whose `get_config()` returns an `ExperimentConfig`, with `:argument` for it if it takes one,
            or a run directory.
        **overrides: values by paths of fields, as in `**{"training.max_steps": 2000}`.

    Raises:
        UserError: there is no recipe, or no such field, or a value is not of its type.
    """
    name, _, argument = str(path).partition(":")
    if os.path.exists(os.path.join(name, "config.json")):
        from nmt_keras.runs.layout import read_config

        config = read_config(pathlib.Path(name))
    else:
        config = _of_file(name, argument)
    known = {field.path: field for field in fields_of(ExperimentConfig)}
    for path_of_field, value in overrides.items():
        if path_of_field not in known:
            raise UserError(f"There is no field {path_of_field!r}: give its path, such as training.max_steps")
        setattr(getattr(config, known[path_of_field].section), known[path_of_field].name, value)
    config.normalise()
    for path_of_field in overrides:
        problem = known[path_of_field].type_problem_in(config)
        if problem:
            raise UserError(problem)
    return config


def _of_file(name: str, argument: str) -> ExperimentConfig:
    if not os.path.isfile(name):
        raise UserError(f"There is no recipe {name}: give a Python file with get_config(), or a run directory")
    try:  # a recipe is the user's program; not imported, since kept byte code may be that of before an edit
        get_config = runpy.run_path(name).get("get_config")
    except UserError:
        raise
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{name} is no Python file: {error}; a recipe is one with get_config()") from error
    if get_config is None:
        raise UserError(f"{name} has no get_config() that returns an ExperimentConfig; define one")
    if argument and not inspect.signature(get_config).parameters:
        raise UserError(f"get_config() of {name} takes no argument. Received: {argument!r}")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ExperimentConfig):
        raise UserError(f"get_config() of {name} must return an ExperimentConfig. Received: {type(config).__name__}")
    return config


def train(
    config: ExperimentConfig | Path,
    run_dir: Path,
    *,
    data_dir: Path = "",
    allow_config_change: bool = False,
    report: Report = _say,
) -> bool:
    """Trains an experiment, or goes on with a training that stopped, as `pipelines.train` does.

    Args:
        config: the experiment, or what `recipe` reads one from.
        run_dir: where everything of the run is kept.
        data_dir: folder of the relative paths of the text.
        allow_config_change: go on with other data or another schedule than the run began with.
        report: takes a line for the user. By default it is written to stderr.

    Returns:
        Whether training is done; it is not where it was asked to stop.

    Raises:
        UserError: the configuration, the data or the run directory cannot be used.
    """
    if not isinstance(config, ExperimentConfig):
        config = recipe(config)
    if data_dir:
        config.data.data_dir = str(data_dir)
    config.validate()  # before TensorFlow is loaded
    load_tensorflow()
    from nmt_keras.experiment.train import train as train_experiment

    return train_experiment(config, pathlib.Path(run_dir), allow_change=allow_config_change, report=report)


def evaluate(
    run_dir: Path | Sequence[Path],
    source: Path,
    reference: Path | Sequence[Path] = "",
    *,
    checkpoint: str = "best",
    data_dir: Path = "",
    target_language: str = "",
    glossary: Path = "",
    report: Report = _say,
    **decoding: Any,
) -> dict[str, Any]:
    """Scores a run, or an ensemble of several, on a test set, as `pipelines.evaluate` does.

    Args:
        run_dir: a run, or several.
        source: names the text to translate.
        reference: names its translation, or several translations; "" where `source` holds both sides.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        data_dir: folder of the relative paths of the text.
        target_language: of a model of several; "" is the recipe's.
        glossary: a file of terms that translations are to contain; `terms` and `terms_placed` say how many do.
        report: takes a line for the user. By default it is written to stderr.
        **decoding: options of the search, fields of `DecodingConfig`.

    Returns:
        `bleu`, `chrf`, `perplexity` and more, each score with its signature.

    Raises:
        UserError: the run, the text or the glossary cannot be used.
    """
    load_tensorflow()
    from nmt_keras.experiment.evaluate import evaluate as evaluate_runs

    runs = [run_dir] if isinstance(run_dir, (str, os.PathLike)) else list(run_dir)
    references = [reference] if isinstance(reference, (str, os.PathLike)) else list(reference)
    return evaluate_runs(
        [pathlib.Path(run) for run in runs],
        checkpoint,
        str(source),
        list(map(str, references)),
        decoding=decoding,
        data_dir=str(data_dir),
        target_language=target_language,
        glossary=str(glossary) or None,
        report=report,
    )


def export(
    run_dir: Path | Sequence[Path],
    output: Path,
    *,
    checkpoint: str | int = "best",
    precision: str = "float32",
    data_dir: Path | None = None,
    target_language: str = "",
    report: Report = _say,
    **decoding: Any,
) -> dict[str, Any]:
    """Exports a run, or an ensemble of several, for TF Serving, as `pipelines.export` does.

    Args:
        run_dir: a run, or several.
        output: `saved_models/<name>`; the export is the next version in it.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        precision: `float32`, `bfloat16`, `int8` or `int8_compute`.
        data_dir: where the dev set is, if not where it was.
        target_language: the default of a model of several; "" is the recipe's.
        report: takes a line for the user. By default it is written to stderr.
        **decoding: options of the search, fields of `DecodingConfig`, which the export keeps.

    Returns:
        `saved_model`, the folder of the version, or None where the export differs from the model and was not kept;
        `compared` and `different`, how many translations; `dev_bleu` and more, as `parity.json` has them.

    Raises:
        UserError: there is no such run, precision or checkpoint, the run cannot be used, or `output` cannot be written.
    """
    runs = [run_dir] if isinstance(run_dir, (str, os.PathLike)) else list(run_dir)
    if not runs:
        raise UserError("export needs a run directory; give one, or several, which are an ensemble")
    for run in map(str, runs):
        if "://" in run:
            raise UserError(f"{run} is the address of a server; give the run directory that it was exported from")
    if precision not in EXPORT_PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(EXPORT_PRECISIONS)}. Received: {precision!r}")
    load_tensorflow()
    from nmt_keras.experiment.export import export as export_runs

    return export_runs(
        [pathlib.Path(run) for run in runs],
        str(checkpoint),
        pathlib.Path(output),
        precision=precision,
        decoding=decoding,
        target_language=target_language,
        data_dir=None if data_dir is None else str(data_dir),
        report=report,
    )

"""A first model of your own text: looks at it, writes a recipe with comments, examines the text, and trains.

python -m pipelines.start --data=pairs.tsv --source=en --target=de --run_dir=runs/mine

The recipe is <run_dir>.py; change it and run pipelines.train with it, or this command again, which takes it as it is.
"""

import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.data.languages import code_of_name
from nmt_keras.errors import UserError
from pipelines import _cli, _process
from pipelines.train import run_training


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_multi_string(
        "data",
        None,
        "A file of pairs, or two files, source first, with a comma; repeated for more.",
        flag_values=values,
    )
    flags.DEFINE_string("source", "", "The code of the source language, such as en.", flag_values=values)
    flags.DEFINE_string("target", "", "The code of the target language.", flag_values=values)
    flags.DEFINE_string("run_dir", "", "Where everything of the run is kept.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Folder of relative paths.", flag_values=values)
    flags.DEFINE_bool("train", True, "Train; --notrain only writes the recipe.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    for name, example in (("data", "pairs.tsv"), ("source", "en"), ("target", "de"), ("run_dir", "runs/mine")):
        if not values[name].value:
            raise UserError(f"--{name} must be given, as in --{name}={example}")
    for name in ("source", "target"):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(values[name].value)):
            raise UserError(
                f"--{name} must be a language's code, such as en or zh-Hant. Received: {values[name].value!r}"
            )
        code = code_of_name(str(values[name].value))
        if code is not None:
            raise UserError(f"--{name} must be a language's code: {code} for {values[name].value}")
    if values.source == values.target:
        raise UserError(f"--source and --target must be two languages. Received: {values.source!r} for both")
    run_dir = pathlib.Path(values.run_dir)
    if not run_dir.name:
        raise UserError(f"--run_dir must be a folder of its own, such as runs/mine. Received: {values.run_dir}")
    recipe = run_dir.with_name(run_dir.name + ".py")
    if recipe.exists():
        _process.report(f"{recipe} is there, and is taken as it is; remove it to have another one written")
        _report_what_differs(values, recipe)
    else:
        _write(values, recipe)
    commands = [f"python -m pipelines.train --config={recipe} --run_dir={run_dir}"]
    if values.train:
        from nmt_keras.api import recipe as read_recipe

        config = read_recipe(recipe)
        config.validate()
        try:
            if not run_training(config, run_dir):
                return _cli.STATUS_STOPPED
        except UserError as error:  # its remedies are flags of pipelines.train
            remedy = f"; give it to python -m pipelines.train --config={recipe} --run_dir={run_dir}"
            raise type(error)(f"{error}{remedy * ('--config.' in str(error))}") from error
        test = [run_dir / "split" / f"test.{code}" for code in (values.source, values.target)]
        commands = [
            f"python -m pipelines.evaluate --run_dir={run_dir} --checkpoint=ema --source={test[0]} "
            f"--reference={test[1]}",
            f"python -m pipelines.translate --run_dir={run_dir} --checkpoint=ema --input=<text> --output=<translation>",
            f"python -m pipelines.export --run_dir={run_dir} --checkpoint=ema --output=saved_models/{run_dir.name}",
        ]
    _process.report("Next:")
    for command in commands:
        _process.report(f"   {command}")
    return 0


def _report_what_differs(values: flags.FlagValues, recipe: pathlib.Path) -> None:
    """Warns of flags that say otherwise than the recipe that is there."""
    from nmt_keras.api import recipe as read_recipe

    data = read_recipe(recipe).data
    pairs = list(map(_cli.pair_of, values.data))
    given = {
        "data": pairs != list(zip(data.train_source, data.train_target)),
        "source": values.source != data.source_language,
        "target": values.target != data.target_language,
    }
    differ = [f"--{name}" for name, is_other in given.items() if is_other]
    if differ:
        _process.report(
            f"warning: {', '.join(differ)} differ from {recipe} and are not used; remove or change the recipe"
        )


def _write(values: flags.FlagValues, recipe: pathlib.Path) -> None:
    from nmt_keras import files

    files.require_writable(recipe)
    _process.load_tensorflow()
    from nmt_keras.config import DataConfig
    from nmt_keras.experiment.start import write_recipe

    pairs = list(map(_cli.pair_of, values.data))
    data = DataConfig(
        source_language=values.source,
        target_language=values.target,
        data_dir=values.data_dir,
        train_source=tuple(source for source, _ in pairs),
        train_target=tuple(target for _, target in pairs),
    )
    write_recipe(data, recipe, _process.report)
    _process.report(f"{recipe}: the recipe, with its reasons")


if __name__ == "__main__":
    sys.exit(main())

"""Prepares large text with Apache Beam: python -m pipelines.prepare --config=my_recipe.py --output_dir=prepared

Indexes, encodes and examines the files of the recipe in many processes, into the cache that training reads (the
recipe's `data.cache_dir`, which all must see), and trains the tokenizers on a sample. Training then begins at once:
pipelines.train with the same recipe and --config.data.tokenizer_from=prepared. Give the text as several files, so that
several processes examine it. What stands behind -- goes to Beam, such as --runner=FlinkRunner --flink_master=host:8081;
by default two processes of this machine work. The last line of stdout is prepared.json.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run_with_rest(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file("config", None, "The recipe.", sys_argv=argv, flag_values=values)
    flags.DEFINE_string("data_dir", None, "Folder of relative paths. Default: the recipe's.", flag_values=values)
    flags.DEFINE_multi_string(
        "test",
        [],
        "Text to measure on, as in --test=test.en,test.de; what of it is in the training text is found. May be given "
        "several times.",
        flag_values=values,
    )
    flags.DEFINE_string("output_dir", None, "For the tokenizers and prepared.json.", flag_values=values)


def _job(values: flags.FlagValues, options: list[str]) -> int:
    if values.config is None or not values.output_dir:
        raise UserError("--config, the recipe, and --output_dir, for its tokenizers, must be given")
    tests = [tuple(name.split(",")) for name in values.test]
    if not all(len(names) == 2 and names[0] for names in tests):
        raise UserError(f"--test must be source and target, as in --test=test.en,test.de. Received: {values.test}")
    from nmt_keras.experiment.prepare import LOCAL, prepare

    config = values.config
    config.validate()
    if values.data_dir is not None:
        config.data.data_dir = values.data_dir
    output_dir = pathlib.Path(values.output_dir)
    prepared = prepare(config.data, output_dir, tests=tests, options=options or LOCAL, report=_process.report)
    print(json.dumps(prepared, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compares systems on a test set: trained models, and files of translations. The first one is the baseline.

python -m pipelines.compare --source=test.en --reference=test.de --page=compare.html runs/a runs/b@ema theirs.de

Prints a table, and one JSON object; --page is the same for a browser, with the sentences that differ most.
"""

import json
import sys
import typing
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv, positional="systems")


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_multi_string(
        "systems",
        [],
        "One of what is compared, also without this flag: a run, several with commas as an ensemble, @ and a "
        "checkpoint behind, or a file of translations.",
        flag_values=values,
    )
    flags.DEFINE_string("source", None, "The text.", flag_values=values)
    flags.DEFINE_multi_string(
        "reference", None, "Its translation; several with commas, or given several times.", flag_values=values
    )
    flags.DEFINE_string("source_language", "", "Its code. Default: that of the first run.", flag_values=values)
    flags.DEFINE_string(
        "target_language",
        "",
        "Its code; runs of several translate into it. Default: that of the first run.",
        flag_values=values,
    )
    flags.DEFINE_string("bleu_tokenizer", "", "sacreBLEU's. Default: the language's.", flag_values=values)
    flags.DEFINE_string(
        "frequencies",
        "",
        "Text whose words are counted, such as that of training. Default: the reference.",
        flag_values=values,
    )
    flags.DEFINE_string("data_dir", "", "Prefix of source and reference.", flag_values=values)
    flags.DEFINE_integer("samples", 1000, "Of the paired bootstrap.", 100, flag_values=values)
    flags.DEFINE_integer("trials", 10_000, "Of approximate randomisation.", 100, flag_values=values)
    flags.DEFINE_string("output", None, "Also write the JSON here.", flag_values=values)
    flags.DEFINE_string("page", None, "Write a page for a browser here.", flag_values=values)
    _cli.define_search_flags(values, argv)


def _job(values: flags.FlagValues) -> int:
    for name in ("source", "reference"):
        if not values[name].value:
            raise UserError(f"--{name} must be given, as in --source=test.en --reference=test.de runs/a runs/b")
    references = [name for given in values.reference for name in given.split(",")]
    names = (
        "source_language",
        "target_language",
        "bleu_tokenizer",
        "frequencies",
        "data_dir",
        "samples",
        "trials",
        "output",
        "page",
    )
    options: dict[str, typing.Any] = {name: values[name].value for name in names}
    decoding = _cli.decoding_overrides(values)
    _process.load_tensorflow()
    from nmt_keras.experiment.compare import compare

    result = compare(values.systems, values.source, references, decoding=decoding, report=_process.report, **options)
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

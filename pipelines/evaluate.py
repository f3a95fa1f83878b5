"""Scores a trained model on a test set: BLEU, chrF, TER and perplexity, as JSON on stdout.

python -m pipelines.evaluate --run_dir=runs/m30k --source=test.en --reference=test.de
Several references: --reference=a.de,b.de, or --reference once for each. --tune_search tries length penalties (on a dev
set!), and prints the BLEU of each.
"""

import json
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
    flags.DEFINE_string(
        "source", None, "Text to translate, a sentence a line, or a file of another format.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "reference",
        None,
        "Its reference translation, line by line; several, repeated or with commas. Default: --source holds both.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "bleu_tokenizer", None, "sacreBLEU's, such as flores200. Default: the run's.", flag_values=values
    )
    flags.DEFINE_string(
        "glossary",
        None,
        "A file of terms, as of translate: how many are in the translations is a score too.",
        flag_values=values,
    )
    _cli.define_sampling_flags(values)
    flags.DEFINE_bool("tune_search", False, "Try length penalties, and print a table.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Prefix of both, and where `tfds:` data sets are kept.", flag_values=values)
    flags.DEFINE_string("output", None, "Also write the JSON here.", flag_values=values)
    flags.DEFINE_string("translations", None, "Also write the translations here, line by line.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    for name in ("run_dir", "source"):
        if not values[name].value:
            raise UserError(f"--{name} must be given, as in --run_dir=runs/m30k --source=test.en --reference=test.de")
    references = [name for given in values.reference or [""] for name in given.split(",")]
    options = {"decoding": _cli.decoding_overrides(values), "data_dir": values.data_dir}
    options |= {"output": values.output, "translations": values.translations, "bleu_tokenizer": values.bleu_tokenizer}
    options |= {"target_language": values.target_language, "glossary": values.glossary}
    options |= {"tune": values.tune_search, "report": _process.report}
    _cli.check_sampling_flags(values)
    _process.load_tensorflow()
    options["mbr"] = _cli.mbr_options(values)
    from nmt_keras.experiment.evaluate import evaluate

    scores = evaluate(_cli.run_dirs(values), values.checkpoint, values.source, references, **options)
    print(json.dumps(scores, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

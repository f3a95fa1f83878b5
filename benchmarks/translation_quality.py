"""What each fast way of searching costs in BLEU: bfloat16 and shortlists against float32, with the same weights.

python -m benchmarks.translation_quality --run_dir=runs/m30k --source=val.en.gz --reference=val.de.gz --data_dir=...

The run needs a lexicon (`python -m pipelines.lexicon`). Prints a table and, as the last line, JSON.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from benchmarks import measure
from nmt_keras.errors import UserError
from pipelines import _cli, _process

_WAYS = [("float32", 0), ("mixed_bfloat16", 0), ("mixed_bfloat16", 50)]
_BEAMS = [1, 5]
_COLUMNS = ["beam_size", "precision", "shortlist", "bleu", "over_float32", "different_lines"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "A run with a lexicon.", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "As jobs take it.", flag_values=values)
    flags.DEFINE_string("source", None, "Text to translate, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("reference", None, "Its reference translation, line by line.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Prefix of both.", flag_values=values)
    measure.define_flags(values)


def _job(values: flags.FlagValues) -> int:
    if measure.answers(values, _work):
        return 0
    if not (values.run_dir and values.source and values.reference):
        raise UserError("--run_dir, --source and --reference must be given")
    _process.load_tensorflow()
    from nmt_keras.data.lexicon import Lexicon
    from nmt_keras.runs.layout import lexicon_of

    Lexicon.read(lexicon_of(pathlib.Path(values.run_dir)))  # missed before the work
    text = {name: values[name].value for name in ("run_dir", "checkpoint", "source", "reference", "data_dir")}
    rows = []
    for beam_size in _BEAMS:
        for precision, shortlist in _WAYS:
            row = {"beam_size": beam_size, "precision": precision, "shortlist": shortlist}
            row |= measure.run_worker("benchmarks.translation_quality", {**row, **text}, values.threads)
            plain = rows[len(rows) // len(_WAYS) * len(_WAYS)] if len(rows) % len(_WAYS) else row
            row["over_float32"] = row["bleu"] - plain["bleu"]
            row["different_lines"] = sum(a != b for a, b in zip(row["translations"], plain["translations"]))
            rows.append(row)
            _process.report(str({name: row[name] for name in _COLUMNS}))
    print(measure.table(rows, _COLUMNS))
    print(json.dumps({**text, "rows": [{name: row[name] for name in _COLUMNS} for row in rows]}))
    return 0


def _work(
    run_dir: str,
    checkpoint: str,
    source: str,
    reference: str,
    data_dir: str,
    beam_size: int,
    precision: str,
    shortlist: int,
) -> dict:
    """Translates and scores; runs in a process of its own."""
    _process.load_tensorflow()
    import dataclasses

    from nmt_keras.experiment.text import open_corpus
    from nmt_keras.inference.evaluation import score_text
    from nmt_keras.runs.loading import load

    overrides = {"training.precision": precision, "decoding.beam_size": beam_size, "decoding.shortlist": shortlist}
    run = load(pathlib.Path(run_dir), overrides, checkpoint, report=_process.report)
    data = dataclasses.replace(run.config.data, data_dir=data_dir)
    sources, references = open_corpus(data, [source], [reference], _process.report).text()
    translations = [result.text for result in run.translator().translate(sources)]
    return {"bleu": score_text(translations, [references], data.target_language)["bleu"], "translations": translations}


if __name__ == "__main__":
    sys.exit(main())

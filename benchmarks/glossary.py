"""What terms cost and bring: BLEU, how many are placed, and time, with terms drawn from the references.

python -m benchmarks.glossary --run_dir=runs/m30kt --source=val.en.gz --reference=val.de.gz --data_dir=...

Every second sentence has terms: a phrase of its reference, of one word or several, as Post and Vilar (2018) draw them.
Prints a table and, as the last line, JSON.
"""

import dataclasses
import json
import pathlib
import random
import sys
import time
from collections.abc import Sequence

from absl import flags

from benchmarks import measure
from nmt_keras.errors import UserError
from pipelines import _cli, _process

# Words of a phrase, phrases of a sentence, beams of sentences with terms.
_WAYS = [(0, 0, 5), (1, 1, 5), (1, 1, 10), (1, 1, 20), (2, 1, 10), (3, 1, 10), (1, 2, 10), (1, 4, 10)]
_COLUMNS = ["words", "phrases", "beams", "terms", "placed", "bleu", "over_none", "seconds"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "A run.", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "As jobs take it.", flag_values=values)
    flags.DEFINE_string("source", None, "Text to translate, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("reference", None, "Its reference translation, line by line.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Prefix of both.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not (values.run_dir and values.source and values.reference):
        raise UserError("--run_dir, --source and --reference must be given")
    _process.load_tensorflow()
    from nmt_keras.experiment.text import open_corpus
    from nmt_keras.inference.evaluation import score_text
    from nmt_keras.runs.loading import load

    rows: list[dict] = []
    for words, phrases, beams in _WAYS:
        overrides = {"decoding.terms_beam_size": beams}
        run = load(pathlib.Path(values.run_dir), overrides, values.checkpoint, report=_process.report)
        data = dataclasses.replace(run.config.data, data_dir=values.data_dir)
        sources, references = open_corpus(data, [values.source], [values.reference], _process.report).text()
        terms = [_drawn(line, words, phrases, number) for number, line in enumerate(references)]
        translator = run.translator()
        given = {"terms": terms} if phrases else {}
        translator.translate(sources[:64], **{name: each[:64] for name, each in given.items()})  # traced
        begin = time.perf_counter()
        found = translator.translate(sources, **given)
        seconds = time.perf_counter() - begin
        placed = [each for translation in found for each in translation.best.outputs.get("is_term_placed", ())]
        bleu = score_text([translation.text for translation in found], [references], data.target_language)["bleu"]
        row = {"words": words, "phrases": phrases, "beams": beams, "terms": len(placed), "placed": sum(placed)}
        row |= {"bleu": bleu, "over_none": bleu - (rows[0]["bleu"] if rows else bleu), "seconds": round(seconds, 1)}
        rows.append(row)
        _process.report(str(row))
    print(measure.table(rows, _COLUMNS))
    print(json.dumps({"run_dir": values.run_dir, "source": values.source, "rows": rows}))
    return 0


def _drawn(reference: str, words: int, phrases: int, number: int) -> list[str]:
    """Phrases of a reference that do not overlap, of every second sentence that is long enough, without its marks."""
    tokens = [token.strip(".,;:!?\"'()") for token in reference.split()]
    rng = random.Random(number)
    starts = list(range(0, len(tokens) - words + 1, max(words, 1)))
    if number % 2 or not phrases or len(starts) < phrases:
        return []
    drawn = [tokens[start : start + words] for start in rng.sample(starts, phrases)]
    return list(dict.fromkeys(" ".join(phrase) for phrase in drawn if all(phrase)))


if __name__ == "__main__":
    sys.exit(main())

"""What a glossary file costs and brings: terms placed and BLEU, through the code of `translate --glossary`.

python -m benchmarks.glossary_file --run_dir=runs/m30k --source=val.en.gz --reference=val.de.gz --data_dir=... \
    --train_source=train.en.gz --train_target=train.de.gz --glossary=terms.tsv

Writes the glossary first: of every second line the rarest source word, or words in a row, and the word of the
reference that they are aligned with, by IBM Model 1 of the training text. A source word is found wherever it stands, in
other lines too, whose references may say it in another way. Prints a table and, as the last line, JSON.
"""

import dataclasses
import json
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from absl import flags

from benchmarks import measure
from nmt_keras import files
from nmt_keras.data.scripts import TOKEN
from nmt_keras.errors import UserError
from pipelines import _cli, _process, translate

_FIRST_ID = 4  # those before are special ids of a lexicon
_PROPOSALS = 2  # target words of a source word that count as its translation
_MIN_LETTERS = 4  # of a source word: shorter ones are mostly of grammar
_COLUMNS = ["glossary", "lines_with_terms", "terms", "placed", "bleu", "seconds"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "A run.", flag_values=values)
    flags.DEFINE_string("source", None, "Text to translate, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("reference", None, "Its reference translation, line by line.", flag_values=values)
    flags.DEFINE_string("train_source", None, "Text that words are aligned in.", flag_values=values)
    flags.DEFINE_string("train_target", None, "Its translation.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Prefix of all four.", flag_values=values)
    flags.DEFINE_string("glossary", None, "The glossary that is written.", flag_values=values)
    flags.DEFINE_bool("common", False, "Draw a term at random, not the rarest of its line.", flag_values=values)
    flags.DEFINE_integer("lines", 0, "The first lines that are translated; 0 is all.", 0, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    names = ("run_dir", "source", "reference", "train_source", "train_target", "glossary")
    if not all(values[name].value for name in names):
        raise UserError(f"{', '.join('--' + name for name in names)} must be given")
    _process.load_tensorflow()
    from nmt_keras.experiment.text import open_corpus
    from nmt_keras.inference.evaluation import score_text
    from nmt_keras.runs.layout import read_config

    data = dataclasses.replace(read_config(pathlib.Path(values.run_dir)).data, data_dir=values.data_dir)

    def text(source: str, target: str) -> tuple[list[str], list[str]]:
        sources, targets = open_corpus(data, [source], [target], _process.report).text()
        return list(sources), list(targets)

    sources, references = (side[: values.lines or None] for side in text(values.source, values.reference))
    entries = drawn(*text(values.train_source, values.train_target), sources, references, values.common)
    files.write_text(pathlib.Path(values.glossary), "".join(f"{one}\t{other}\n" for one, other in entries))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        given = pathlib.Path(folder) / "source"
        files.write_text(given, "".join(line + "\n" for line in sources))
        for has_glossary in (False, True):
            output = pathlib.Path(folder) / f"output_{has_glossary}"
            arguments = [f"--run_dir={values.run_dir}", f"--input={given}", f"--output={output}", "--scores"]
            arguments += [f"--glossary={values.glossary}"] * has_glossary
            begin = time.perf_counter()
            if translate.main(arguments):
                raise UserError("pipelines.translate failed: see above")
            seconds = time.perf_counter() - begin
            found = [json.loads(line)["hypotheses"][0] for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
            terms = [[term["is_placed"] for term in each.get("terms", ())] for each in found]
            row = {"glossary": f"{len(entries)} entries" if has_glossary else "none"}
            row |= {
                "lines_with_terms": sum(map(bool, terms)),
                "terms": sum(map(len, terms)),
                "placed": sum(map(sum, terms)),
            }
            bleu = score_text([each["text"] for each in found], [references], data.target_language)["bleu"]
            rows.append(row | {"bleu": bleu, "seconds": round(seconds, 1)})
            _process.report(str(rows[-1]))
    print(measure.table(rows, _COLUMNS))
    print(json.dumps({"run_dir": values.run_dir, "lines": len(sources), "rows": rows}))
    return 0


def drawn(
    train_sources: Sequence[str],
    train_targets: Sequence[str],
    sources: Sequence[str],
    references: Sequence[str],
    is_random: bool,
) -> list[tuple[str, str]]:
    """Source terms of every second line with a word of its reference each, once each.

    Args:
        train_sources: what words are aligned in, with `sources` and their references.
        train_targets: its translation.
        sources: what terms are drawn from.
        references: its translation.
        is_random: draw a term at random instead of that which is in the fewest lines of `sources`.
    """
    from nmt_keras.data.lexicon import build_lexicon

    pairs = [*zip(train_sources, train_targets), *zip(sources, references)]
    words = [[list(map(str.casefold, _words(line))) for line in side] for side in zip(*pairs)]
    numbers = [
        {word: number for number, word in enumerate(sorted({w for line in side for w in line}), _FIRST_ID)}
        for side in words
    ]
    ids = [[[own[word] for word in line] for line in side] for own, side in zip(numbers, words)]
    sizes = [SimpleNamespace(vocab_size=len(own) + _FIRST_ID, sha256="") for own in numbers]
    both = ((one, other) for one, other in zip(*ids) if one and other)
    lexicon = build_lexicon(both, sizes, _PROPOSALS, 0)  # type: ignore[arg-type]
    glued = [f" {' '.join(TOKEN.findall(line.casefold()))} " for line in sources]

    def lines_of(entry: tuple[str, str]) -> int:
        return sum(f" {entry[0].casefold()} " in line for line in glued)

    entries: dict[tuple[str, str], None] = {}
    for number, (source, reference) in list(enumerate(zip(sources, references)))[::2]:
        candidates = _aligned(source, reference, numbers, lexicon.proposals)
        if candidates:
            chosen = random.Random(number).choice(candidates) if is_random else min(candidates, key=lines_of)
            entries[chosen] = None
    return list(entries)


def _aligned(
    source: str, reference: str, numbers: list[dict[str, int]], proposals: np.ndarray
) -> list[tuple[str, str]]:
    """Words of a line, those in a row that have one translation together, each with its word of the reference."""
    known = {numbers[1][word.casefold()]: word for word in _words(reference)}
    terms: list[tuple[list[str], str]] = []
    last = ""
    for token in TOKEN.findall(source):
        ids = proposals[numbers[0][token.casefold()]].tolist() if token.isalpha() else []
        target = next((known[each] for each in ids if each in known), "")
        if target and target == last:
            terms[-1][0].append(token)
        elif target:
            terms.append(([token], target))
        last = target
    return [(" ".join(words), target) for words, target in terms if len(" ".join(words)) >= _MIN_LETTERS]


def _words(line: str) -> list[str]:
    return [token for token in TOKEN.findall(line) if token.isalpha()]


if __name__ == "__main__":
    sys.exit(main())

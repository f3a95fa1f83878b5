"""What white space, invisible characters and characters that no model has seen cost: BLEU of a dev set with each of
them.

python -m benchmarks.white_space --run_dirs=runs/a,runs/b --source=val.en --reference=val.de --lines=300

References stay as they are, but for the last rows, where a symbol in front of the source is in front of the reference
too. Prints a Markdown table, and how many translations were empty where that is not none.
"""

import gzip
import pathlib
import random
import sys

from absl import flags

from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.runs.layout import read_config
from nmt_keras.runs.loading import load
from nmt_keras.training.precision import configure

_SYMBOLS = list("😀🎉🚀❤⭐🐶☀✓→★")


def _inside(text: str, character: str, rng: random.Random) -> str:
    """One of the spaces of a text as another character."""
    words = text.split(" ")
    place = rng.randrange(1, max(len(words), 2))
    return " ".join(words[:place]) + character + " ".join(words[place:])


KINDS = {
    "as it is": lambda text, rng: text,
    "one no-break space": lambda text, rng: _inside(text, "\u00a0", rng),
    "one tab": lambda text, rng: _inside(text, "\t", rng),
    "one line feed": lambda text, rng: _inside(text, "\n", rng),
    "one thin space": lambda text, rng: _inside(text, "\u2009", rng),
    "one zero width space beside a space": lambda text, rng: _inside(text, " \u200b", rng),
    "tab in front": lambda text, rng: "\t" + text,
    "byte order mark in front": lambda text, rng: "\ufeff" + text,
    "left-to-right mark in front": lambda text, rng: "\u200e" + text,
    "no-break space at the end": lambda text, rng: text + "\u00a0",
    "soft hyphen in a word": lambda text, rng: text[:-4] + "\u00ad" + text[-4:],
    "all spaces no-break": lambda text, rng: text.replace(" ", "\u00a0"),
    "all spaces ideographic": lambda text, rng: text.replace(" ", "\u3000"),
    "two spaces for one": lambda text, rng: _inside(text, "  ", rng),
    "symbol in front": lambda text, rng: f"{rng.choice(_SYMBOLS)} {text}",
    "symbol at the end": lambda text, rng: f"{text} {rng.choice(_SYMBOLS)}",
}
_IN_REFERENCE = ("symbol in front", "symbol at the end")


def _define() -> None:
    flags.DEFINE_list("run_dirs", None, "Runs.", required=True)
    flags.DEFINE_string("source", None, "Dev text, .gz is unpacked.", required=True)
    flags.DEFINE_string("reference", None, "Its translation.", required=True)
    flags.DEFINE_integer("lines", 300, "Of the text, from its start.")
    flags.DEFINE_string("checkpoint", "best", "Of each run.")


def _lines(path: str, count: int) -> list[str]:
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        return file.read().decode("utf-8").split("\n")[:count]


def main() -> None:
    """Prints the table."""
    _define()
    values = flags.FLAGS
    values(sys.argv)
    sources, references = (_lines(path, values.lines) for path in (values.source, values.reference))
    columns = {
        run_dir: _measure(pathlib.Path(run_dir), values.checkpoint, sources, references) for run_dir in values.run_dirs
    }
    print("| | " + " | ".join(columns) + " |\n" + "| --- " * (len(columns) + 1) + "|")
    for kind in next(iter(columns.values())):
        print(f"| {kind} | " + " | ".join(column[kind] for column in columns.values()) + " |")


def _measure(run_dir: pathlib.Path, checkpoint: str, sources: list[str], references: list[str]) -> dict[str, str]:
    config = read_config(run_dir)
    configure(config.training)
    run = load(run_dir, checkpoint=checkpoint)
    translator, bleu, found = run.translator(), bleu_metric(config.data.target_language), {}
    for kind, change in KINDS.items():
        changed = [change(text, random.Random(number)) for number, text in enumerate(sources)]
        hypotheses = [translation.text for translation in translator.translate(changed)]
        wanted = {kind: references}
        if kind in _IN_REFERENCE:
            own = [change(text, random.Random(number)) for number, text in enumerate(references)]
            wanted[f"{kind}, and of the reference"] = own
        for name, texts in wanted.items():
            empty = sum(not text for text in hypotheses)
            score = bleu.corpus_score(hypotheses, [texts]).score
            found[name] = f"{score:.2f}" + (f" ({empty} empty)" if empty else "")
    return found


if __name__ == "__main__":
    main()

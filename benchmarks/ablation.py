"""What each part of a recipe brings: one change at a time from one base, with several seeds, on the dev set.

python -m benchmarks.ablation --data_dir=<folder of Multi30k> --run_dir=runs/ablation --seeds=1,2

The base is `pipelines/recipes/multi30k_speedrun.py` with a moving average of its weights, which does not change them.
Updates are as many in every row, but for the one that says otherwise: R-Drop and a teacher take longer for each.
Every run has one thread on one core, and its last weights are taken, so that the dev set chooses nothing. What
--run_dir holds already is not made again, and a training that was interrupted goes on: the same command continues.
Each row is compared with the base of its seed by `pipelines.compare`. Prints a table and, as the last line, JSON.
"""

import gzip
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import flags

from benchmarks import measure
from benchmarks.measure import require_same, run_pinned
from nmt_keras import files
from nmt_keras.errors import UserError
from pipelines import _cli, _process

_BASE = "base"
_RECIPE = "pipelines/recipes/multi30k_speedrun.py"
_REVERSE = "de to en"
_BACK, _DISTILLED = "back-translation", "distilled text"
_LINES = ("train.en.gz", "train.de.gz")


class _Change(NamedTuple):
    """One row: how its model is trained, where it is not the base, and how that translates."""

    training: Mapping[str, str] | None = None  # fields of the recipe; None is the base's model
    search: Sequence[str] = ()
    is_ensemble: bool = False  # of the bases of all seeds


_CHANGES = MappingProxyType(
    {
        _BASE: _Change(),
        "greedy": _Change(search=("--beam_size=1",)),
        "10 beams": _Change(search=("--beam_size=10",)),
        "no length penalty": _Change(search=("--length_penalty=0",)),
        "minimum Bayes risk of 16 samples": _Change(search=("--mbr=16", "--temperature=0.7")),
        "mean of the last checkpoints": _Change(search=("--checkpoint=averaged",)),
        "moving average": _Change(search=("--checkpoint=ema",)),
        "ensemble of the seeds": _Change(is_ensemble=True),
        "no dropout": _Change({f"model.{each}_dropout_rate": "0.0" for each in ("input", "output", "attention")}),
        "no label smoothing": _Change({"training.label_smoothing": "0.0"}),
        "word dropout 0.1": _Change({"model.source_word_dropout_rate": "0.1", "model.target_word_dropout_rate": "0.1"}),
        "subword sampling with alpha 0.5": _Change({"data.sampling_alpha": "0.5"}),
        "R-Drop with alpha 5": _Change({"training.loss": "r_drop", "training.r_drop_alpha": "5.0"}),
        "twice the updates": _Change({"training.max_steps": "4000"}),
        "words distilled from the ensemble": _Change({"training.loss": "distillation"}),
        _DISTILLED: _Change({"data.train_weights": "(1.0, 1.0)"}),
        _BACK: _Change({"data.train_weights": "(4.0, 1.0)"}),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_string("run_dir", "runs/ablation", "Where runs and translations are kept.", flag_values=values)
    flags.DEFINE_list("seeds", ["1", "2"], "One or more.", flag_values=values)
    flags.DEFINE_list("rows", list(_CHANGES)[1:], "Which changes.", flag_values=values)
    flags.DEFINE_string("mono", "", f"German text for {_BACK!r}.", flag_values=values)
    flags.DEFINE_integer("max_steps", 2000, "Of each training.", 1, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    unknown = sorted(set(values.rows) - set(_CHANGES))
    if unknown:
        raise UserError(f"--rows has no {', '.join(unknown)}; valid ones: {', '.join(_CHANGES)}")
    if not all(seed.isdecimal() for seed in values.seeds) or not values.seeds:
        raise UserError(f"--seeds must be numbers from 0 with commas. Received: {','.join(values.seeds)!r}")
    if _BACK in values.rows and not values.mono:
        raise UserError(f"--mono must be given, German text for {_BACK!r}; or --rows without it")
    settings = {name: values[name].value for name in ("data_dir", "max_steps", "mono", "seeds")}
    require_same(pathlib.Path(values.run_dir), settings)
    bench = _Bench(values)
    names = [_BASE, *(name for name in values.rows if name != _BASE)]
    for name in names:  # a row of all seeds after the other: what is there can be read early
        for seed in values.seeds:
            bench.translate(name, seed)
    found = {seed: bench.compare(names, seed) for seed in values.seeds}
    rows = [_row(name, place, found) for place, name in enumerate(names)]
    print(measure.table(rows, list(rows[-1])))
    print(json.dumps({"max_steps": values.max_steps, "seeds": values.seeds, "rows": rows}))
    return 0


def _row(name: str, place: int, found: Mapping[str, dict]) -> dict[str, Any]:
    """Scores of a system by seed, what they are beside the base's in the mean, and whether it can be chance."""
    systems = {seed: result["systems"] for seed, result in found.items()}
    row: dict[str, Any] = {"change": name}
    row |= {f"BLEU, seed {seed}": each[place]["bleu"] for seed, each in systems.items()}
    if place:
        row["in the mean"] = sum(each[place]["bleu"] - each[0]["bleu"] for each in systems.values()) / len(systems)
        tests = [result["tests"]["bleu"][place] for result in found.values()]
        row["p"] = ", ".join(f"{test['randomisation_p']:.3f}" for test in tests)
    row["chrF"] = sum(each[place]["chrf"] for each in systems.values()) / len(systems)
    return row


class _Bench:
    """Trains, translates and compares, each once."""

    def __init__(self, values: flags.FlagValues):
        self._data = str(pathlib.Path(values.data_dir).resolve())
        self._folder = pathlib.Path(values.run_dir).resolve()
        self._seeds, self._mono, self._max_steps = values.seeds, values.mono, values.max_steps
        self._folder.mkdir(parents=True, exist_ok=True)

    def compare(self, names: Sequence[str], seed: str) -> dict:
        """What `pipelines.compare` says of the rows of a seed, the base first."""
        given = [str(self._output(name, seed)) for name in names]
        text = [f"--data_dir={self._data}", "--source=val.en.gz", "--reference=val.de.gz", "--target_language=de"]
        return json.loads(self._run("compare", *text, *given).strip().rpartition("\n")[2])

    def translate(self, name: str, seed: str) -> None:
        """Writes the dev set in the words of a row's model, which is trained first."""
        output, change = self._output(name, seed), _CHANGES[name]
        if output.exists():
            return
        if change.is_ensemble:
            runs = self._bases()
        else:
            runs = [self._train(name if change.training is not None else _BASE, seed, change.training or {})]
        search = [each for each in change.search if not each.startswith("--checkpoint=")]
        given = [each for each in change.search if each not in search] or ["--checkpoint=latest"]
        source = self._folder / "val.en"
        if not source.exists():
            with gzip.open(f"{self._data}/val.en.gz", "rt", encoding="utf-8", newline="\n") as file:
                files.write_text(source, file.read())
        partial = output.with_suffix(".part")
        arguments = [f"--run_dir={','.join(runs)}", f"--input={source}", f"--output={partial}", *given, *search]
        self._run("translate", *arguments)
        partial.rename(output)
        _process.report(f"{name}, seed {seed}: translated")

    def _output(self, name: str, seed: str) -> pathlib.Path:
        return self._folder / f"{self._slug(name, seed)}.de"

    def _slug(self, name: str, seed: str) -> str:
        return f"{name.replace(' ', '_')}-{seed}"

    def _bases(self) -> list[str]:
        return [self._train(_BASE, seed, {}) for seed in self._seeds]

    def _train(self, name: str, seed: str, fields: Mapping[str, str]) -> str:
        """The run of a change; trained, unless it is."""
        run_dir = self._folder / self._slug(name, seed)
        if (run_dir / "is_trained").exists():
            return str(run_dir)
        fields = {"training.max_steps": str(self._max_steps), **fields}
        if name == "twice the updates":
            fields["training.max_steps"] = str(2 * self._max_steps)
        if fields.get("training.loss") == "distillation":
            bases = self._bases()
            fields |= {"training.teacher": repr(tuple(bases)), "training.teacher_checkpoint": "latest"}
            fields |= {"data.tokenizer_from": bases[0]}
        if name in (_BACK, _DISTILLED):
            made = self._back_translated() if name == _BACK else self._distilled()
            source, target = (f"{made}/text.{language}" for language in ("en", "de"))
            fields["data.tokenizer_from"] = self._bases()[0]  # the text is what changes
            fields |= {"data.train_source": repr((f"{self._data}/{_LINES[0]}", source))}
            fields |= {"data.train_target": repr((f"{self._data}/{_LINES[1]}", target))}
        given = [f"--config.{field}={value}" for field, value in fields.items()]
        given += [f"--config.training.seed={seed}", "--config.training.ema_decay=0.999"]
        given += ["--config.training.evaluate_every=1000"]
        self._run("train", f"--config={_RECIPE}", f"--run_dir={run_dir}", f"--data_dir={self._data}", *given)
        files.write_text(run_dir / "is_trained", "")
        _process.report(f"{name}, seed {seed}: trained")
        return str(run_dir)

    def _distilled(self) -> pathlib.Path:
        """Training text in the words of the bases together: of five the nearest to the reference."""
        made = self._folder / "text_distilled"
        kind = ["--kind=forward", "--beam_size=5", "--n_best=5", f"--reference={self._data}/train.de.gz"]
        return self._augment(made, ",".join(self._bases()), f"{self._data}/train.en.gz", kind)

    def _back_translated(self) -> pathlib.Path:
        """German text with the English of a model of the other direction, greedily."""
        fields = {"data.source_language": "de", "data.target_language": "en"}
        for part, name in (("train", "train"), ("dev", "val")):
            for side, language in (("source", "de"), ("target", "en")):
                fields[f"data.{part}_{side}"] = repr((f"{self._data}/{name}.{language}.gz",))
        run_dir = self._train(_REVERSE, self._seeds[0], fields)
        kind = ["--beam_size=1", "--max_length_ratio=2.5"]
        return self._augment(self._folder / "text_back", run_dir, self._mono, kind)

    def _augment(self, made: pathlib.Path, runs: str, text: str, kind: Sequence[str]) -> pathlib.Path:
        if not (made / "card.json").exists():
            arguments = [f"--run_dir={runs}", f"--input={text}", f"--output_dir={made}", "--checkpoint=latest", *kind]
            self._run("augment", *arguments)
        return made

    def _run(self, job: str, *arguments: str) -> str:
        return run_pinned([sys.executable, "-m", f"pipelines.{job}", *arguments], 1).output


if __name__ == "__main__":
    sys.exit(main())

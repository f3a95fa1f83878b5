"""What fine-tuning on 2,000 pairs of another domain brings, and what it costs of the old one: a table, and JSON.

python -m benchmarks.fine_tuning --data_dir=<folder of Multi30k> --run_dir=runs/fine_tuning --seeds=1,2

The domain is captions of sports (`--domain`, a regular expression of the English side): the base has none of them in
its text, a model of `pipelines/recipes/multi30k_speedrun.py`. Scores are of the last weights, on the captions of the
dev set that belong to the domain and on those that do not. What --run_dir holds already is not made again, and a
training that was interrupted goes on.
"""

import gzip
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from benchmarks import measure
from benchmarks.measure import require_same, run_pinned
from nmt_keras import files
from nmt_keras.errors import UserError
from pipelines import _cli, _process

_RECIPE = "pipelines/recipes/multi30k_speedrun.py"
_SIDES = ("en", "de")
_BASE = "base"
_SPORTS = (
    r"\b(ball|soccer|football|baseball|basketball|tennis|hockey|rugby|volleyball|game|players?|team|race|bike|bicycle|"
    r"skateboard(er)?|surf(board|er)|ski(er)?|snowboard(er)?)\b"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_string("run_dir", "runs/fine_tuning", "Where text and runs are kept.", flag_values=values)
    flags.DEFINE_list("seeds", ["1", "2"], "One or more.", flag_values=values)
    flags.DEFINE_string("domain", _SPORTS, "What its English lines contain.", flag_values=values)
    flags.DEFINE_integer("pairs", 2000, "Of the domain, to train on.", 1, flag_values=values)
    flags.DEFINE_integer("steps", 400, "Of each fine-tuning.", 1, flag_values=values)
    flags.DEFINE_integer("base_steps", 2000, "Of the base.", 1, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    try:
        domain = re.compile(values.domain, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"--domain must be a regular expression. Received: {values.domain!r}: {error}") from error
    folder = pathlib.Path(values.run_dir).resolve()
    names = ("data_dir", "domain", "pairs", "steps", "base_steps", "seeds")
    require_same(folder, {name: values[name].value for name in names})
    counts = _write_text(pathlib.Path(values.data_dir), folder, domain, values.pairs)
    _process.report(f"pairs: {counts}")
    own, old = ([f"{folder}/{part}.{side}" for side in _SIDES] for part in ("domain", "old"))
    short = {
        "training.max_steps": str(values.steps),
        "training.warmup_steps": str(max(values.steps // 10, 1)),
        "training.learning_rate": "1e-3",
    }
    base = {"training.max_steps": str(values.base_steps)}
    from_base = {"data.tokenizer_from": f"{folder}/{_BASE}-{{seed}}"}
    ways: dict[str, tuple[list[list[str]], Mapping[str, str], bool]] = {
        _BASE: ([old], base, False),
        "from scratch": ([own], {**base, "data.source_vocab_size": "2000"}, False),
        "fine-tuned": ([own], {**short, **from_base}, True),
        "fine-tuned, new vocabulary": ([own], {**short, "data.source_vocab_size": "2000"}, True),
        "fine-tuned, old text too": ([own, old], {**short, **from_base, "data.train_weights": "(1.0, 0.1)"}, True),
    }
    rows = []
    for name, (corpora, fields, is_tuned) in ways.items():
        row: dict = {"way": name}
        for seed in values.seeds:
            run_dir = folder / f"{name.replace(' ', '_').replace(',', '')}-{seed}"
            given = {key: value.format(seed=seed) for key, value in fields.items()}
            given |= {"training.seed": seed}
            given |= {f"data.train_{side}": repr(tuple(c[n] for c in corpora)) for n, side in enumerate(_NAMES)}
            given |= {f"data.dev_{side}": repr((f"{folder}/dev_domain.{_SIDES[n]}",)) for n, side in enumerate(_NAMES)}
            _train(run_dir, given, f"{folder}/{_BASE}-{seed}" if is_tuned else None)
            for part in ("domain", "old"):
                row[f"{part}, seed {seed}"] = _bleu(run_dir, folder, part)
        for part in ("domain", "old"):
            row[part] = sum(row[f"{part}, seed {seed}"] for seed in values.seeds) / len(values.seeds)
        rows.append(row)
        _process.report(json.dumps(row))
    print(measure.table(rows, list(rows[0])))
    print(json.dumps({"pairs": counts, "rows": rows}))
    return 0


_NAMES = ("source", "target")


def _write_text(data: pathlib.Path, folder: pathlib.Path, domain: re.Pattern, pairs: int) -> dict[str, int]:
    """Writes the text of the domain and the rest, to train on and of the dev set; counts of pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for part, prefix in (("train", ""), ("val", "dev_")):
        sides = []
        for side in _SIDES:
            with gzip.open(data / f"{part}.{side}.gz", "rt", encoding="utf-8", newline="\n") as file:
                sides.append(file.read().split("\n")[:-1])
        both = list(zip(*sides, strict=True))
        of_domain = [pair for pair in both if domain.search(pair[0])]
        rest = [pair for pair in both if not domain.search(pair[0])]
        chosen = of_domain[:pairs] if part == "train" else of_domain
        for name, kept in (("domain", chosen), ("old", rest)):
            counts[f"{prefix}{name}"] = len(kept)
            for number, side in enumerate(_SIDES):
                files.write_text(folder / f"{prefix}{name}.{side}", "".join(f"{pair[number]}\n" for pair in kept))
    return counts


def _train(run_dir: pathlib.Path, fields: Mapping[str, str], init_from: str | None) -> None:
    if (run_dir / "is_trained").exists():
        return
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    given += ["--config.training.evaluate_every=1000", "--config.data.on_findings=report"]
    given += [f"--init_from={init_from}", "--config.training.init_checkpoint=latest"] if init_from else []
    _run("train", f"--config={_RECIPE}", f"--run_dir={run_dir}", *given)
    files.write_text(run_dir / "is_trained", "")


def _bleu(run_dir: pathlib.Path, folder: pathlib.Path, part: str) -> float:
    text = [f"--source={folder}/dev_{part}.en", f"--reference={folder}/dev_{part}.de"]
    output = _run("evaluate", f"--run_dir={run_dir}", "--checkpoint=latest", *text)
    return json.loads(output.strip().rpartition("\n")[2])["bleu"]


def _run(job: str, *arguments: str) -> str:
    return run_pinned([sys.executable, "-m", f"pipelines.{job}", *arguments], 1).output


if __name__ == "__main__":
    sys.exit(main())

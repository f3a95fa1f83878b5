"""Whether a translation depends on what it was batched with: the same lines alone, by 7 and by 64, in any order.

python -m benchmarks.batch_invariance --run_dirs=runs/a,runs/b --input=dev.en --lines=200

A JSON line for each run and precision. In float32 the ids must be equal and log probabilities within 1e-5; in bfloat16
products of other sizes round otherwise, and 99% of the lines must be equal. Otherwise the status is 1.
"""

import json
import pathlib
import random
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_PRECISIONS = ("float32", "mixed_bfloat16")
_BATCH_SIZES = (1, 7, 64)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_list("run_dirs", [], "Run directories.", flag_values=values)
    flags.DEFINE_string("input", None, "Text, a sentence a line.", flag_values=values)
    flags.DEFINE_integer("lines", 200, "How many of it.", 2, flag_values=values)
    flags.DEFINE_list("precisions", list(_PRECISIONS), "Of the computation.", flag_values=values)
    flags.DEFINE_string("checkpoint", "latest", "best, latest or a step.", flag_values=values)
    flags.DEFINE_bool("one", False, "Measure one run in one precision in this process.", flag_values=values)


def _job(values: flags.FlagValues) -> int | None:
    if not (values.run_dirs and values.input):
        raise UserError("--run_dirs and --input must be given, as in --run_dirs=runs/m30k --input=dev.en")
    if values.one:
        result = _measure(pathlib.Path(values.run_dirs[0]), values)
        print(json.dumps(result), flush=True)
        share = result["equal_lines"] / result["lines"]
        exact = share == 1.0 and result["largest_log_prob_difference"] <= 1e-5
        return 0 if exact or share >= 0.99 and values.precisions != ["float32"] else _cli.STATUS_FINDINGS
    status = 0
    for run_dir in values.run_dirs:
        for precision in values.precisions:  # a process each: the precision is the process's
            command = [sys.executable, "-m", "benchmarks.batch_invariance", "--one", f"--run_dirs={run_dir}"]
            command += [f"--input={values.input}", f"--lines={values.lines}", f"--precisions={precision}"]
            status = max(
                status, subprocess.run([*command, f"--checkpoint={values.checkpoint}"], check=False).returncode
            )
    return status


def _measure(run_dir: pathlib.Path, values: flags.FlagValues) -> dict:
    _process.load_tensorflow()
    from nmt_keras.runs.loading import load

    run = load(run_dir, {"training.precision": values.precisions[0]}, values.checkpoint)
    translator = run.translator()
    lines = pathlib.Path(values.input).read_text(encoding="utf-8").split("\n")[: values.lines]
    expected = translator.translate(lines)
    equal, largest = [True] * len(lines), 0.0
    for size in _BATCH_SIZES:
        order = random.Random(size).sample(range(len(lines)), len(lines))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            for row, found in zip(rows, translator.translate_batch([lines[row] for row in rows])):
                same = found.best.ids == expected[row].best.ids
                equal[row] &= same
                if same:
                    largest = max(largest, abs(found.best.log_prob - expected[row].best.log_prob))
    return {
        "run": run_dir.name,
        "precision": values.precisions[0],
        "lines": len(lines),
        "equal_lines": sum(equal),
        "largest_log_prob_difference": largest,
        "batch_sizes": _BATCH_SIZES,
    }


if __name__ == "__main__":
    sys.exit(main())

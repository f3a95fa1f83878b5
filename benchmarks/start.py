"""How long a user waits: `--help` of every job, an unknown flag, and the first training step on an indexed corpus.

python -m benchmarks.start --data_dir=<folder of Multi30k>

Medians of several processes, one after the other. The first training step is that of the Multi30k recipe, from the
start of the process to the line that reports the step; of the very first run, which also indexes the corpus and trains
the tokenizer, there is one figure. Prints a table and, as the last line, JSON.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from benchmarks import measure
from nmt_keras.errors import UserError
from pipelines import _cli

_ROOT = pathlib.Path(__file__).parents[1]
_RECIPE = "pipelines/recipes/multi30k_en_de.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Processes a figure.", 1, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    jobs = sorted(path.stem for path in (_ROOT / "pipelines").glob("[a-z]*.py"))
    rows = []
    for job in jobs:
        rows.append({"what": f"{job} --help", "seconds": _median(values.repeats, 0, f"pipelines.{job}", "--help")})
    rows.append({"what": "train --unknown", "seconds": _median(values.repeats, 2, "pipelines.train", "--unknown")})
    with tempfile.TemporaryDirectory() as folder:
        seconds = [_first_step(values.data_dir, pathlib.Path(folder), n) for n in range(values.repeats + 1)]
    rows.append({"what": "first training step on a new corpus", "seconds": seconds[0]})
    rows.append({"what": "first training step", "seconds": statistics.median(seconds[1:])})
    print(measure.table(rows, ["what", "seconds"]))
    print(json.dumps({"repeats": values.repeats, "rows": rows}))
    return 0


def _median(repeats: int, status: int, module: str, *arguments: str) -> float:
    def run() -> float:
        command, started = [sys.executable, "-m", module, *arguments], time.perf_counter()
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode != status:
            raise UserError(f"{module} ended with status {done.returncode}; read {measure.keep(done.stderr)}")
        return seconds

    return statistics.median(run() for _ in range(repeats))


def _first_step(data_dir: str, folder: pathlib.Path, number: int) -> float:
    """From the start of a process to the line of step 1; the corpus's cache is shared, and so is the tokenizer."""
    options = ["data.cache_dir=" + str(folder / "cache"), "training.log_every=1", "training.max_steps=2"]
    if number:
        options += [
            f"data.{side}_tokenizer_model={folder}/run0/tokenizer/joint/sentencepiece.model"
            for side in ("source", "target")
        ]
    command = [sys.executable, "-m", "pipelines.train", f"--config={_RECIPE}", f"--data_dir={data_dir}"]
    command += [f"--run_dir={folder}/run{number}", *(f"--config.{option}" for option in options)]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("step 1/"):
                seconds = time.perf_counter() - started
                if number:
                    process.kill()
                else:
                    process.communicate()
                return seconds
    raise UserError(f"Training ended before its first step: {''.join(lines[-5:])}")


if __name__ == "__main__":
    sys.exit(main())

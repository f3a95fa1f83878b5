"""Minutes of one core until a model of Multi30k en-de has a BLEU on the dev set, by greedy search.

python -m benchmarks.speedrun --data_dir=<folder of Multi30k>

Trains `pipelines/recipes/multi30k_speedrun.py` with one thread, from the raw text on, and stops at the first evaluation
with --target BLEU, or after --max_minutes. Prints the curve, and ends with one JSON line. The minutes are processor
time of the whole process: tokenizers, training, checkpoints and evaluations.

--toolkit=joeynmt or opennmt sets the same clock for another toolkit, with a recipe of its own for little text
(`benchmarks.speedrun_peers`), which is installed into --work first.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from benchmarks import peers, speedrun_peers
from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of {train,val}.{en,de}.gz.", flag_values=values)
    flags.DEFINE_string(
        "run_dir", None, "Where the run is kept. Default: a folder that is removed.", flag_values=values
    )
    flags.DEFINE_float("target", 33.0, "BLEU on the whole dev set.", flag_values=values)
    flags.DEFINE_float("max_minutes", 60.0, "Of a core, after which it ends.", 0.0, flag_values=values)
    flags.DEFINE_integer("seed", 1, "Of weights, dropout and the order of the text.", flag_values=values)
    names = ["nmt_keras", *peers.NAMES]
    flags.DEFINE_enum("toolkit", names[0], names, "Which one trains.", flag_values=values)
    peers.define_work(values)


def _job(values: flags.FlagValues) -> int:
    peers.require_text(values.data_dir)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        run_dir = pathlib.Path(values.run_dir or folder / "run").resolve()
        if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
            raise UserError(f"{run_dir} is not empty: the clock runs from the raw text on; give another --run_dir")
        curve = _Curve(values.target)
        if values.toolkit == "nmt_keras":
            _train(values, folder, run_dir, curve)
        else:
            work = peers.install(values.work, dict.fromkeys(["joeynmt", values.toolkit]))  # the first makes the text
            run_dir.mkdir(parents=True, exist_ok=True)
            speedrun_peers.train(
                values.toolkit, values.data_dir, work, run_dir, values.seed, values.max_minutes, curve.add
            )
    if not curve.rows:
        raise UserError("training ended before its first evaluation: give more --max_minutes")
    reached = [row for row in curve.rows if row["dev_bleu"] >= values.target]
    last = (reached or curve.rows)[0 if reached else -1]
    result = {"toolkit": values.toolkit, **last, "target": values.target, "is_reached": bool(reached)}
    print(json.dumps({**result, "seed": values.seed, "curve": curve.rows}))
    return 0


class _Curve:
    """What was measured so far, a row an evaluation."""

    def __init__(self, target: float):
        self._target = target
        self.rows: list[dict] = []

    def add(self, step: int, bleu: float, minutes: float) -> bool:
        """Notes and prints an evaluation; returns whether it has the BLEU that is asked for."""
        self.rows.append({"step": step, "dev_bleu": round(bleu, 2), "core_minutes": round(minutes, 3)})
        print(f"{minutes:6.2f} core minutes  {step:6,} updates  BLEU {bleu:.2f}", flush=True)
        return bleu >= self._target


def _train(values: flags.FlagValues, folder: pathlib.Path, run_dir: pathlib.Path, curve: _Curve) -> None:
    """Ours."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    _process.load_tensorflow()
    from nmt_keras.experiment.train import train
    from nmt_keras.training.stopping import StopRequest
    from pipelines.recipes import multi30k_speedrun

    config = multi30k_speedrun.get_config()
    config.training.seed = values.seed
    config.data.data_dir, config.data.cache_dir = values.data_dir, str(folder)
    stop = StopRequest()

    def report(line: str) -> None:
        _process.report(line)
        minutes = time.process_time() / 60.0
        if " BLEU " in line and line.startswith("step "):
            bleu = float(line.partition(" BLEU ")[2].split()[0])
            if curve.add(int(line.split()[1].replace(",", "")), bleu, minutes):
                stop.request(f"BLEU {values.target:g} is reached")
        if minutes >= values.max_minutes and not stop.reason:
            stop.request(f"{values.max_minutes:g} minutes are over")

    train(config, run_dir, report=report, stop=stop)


if __name__ == "__main__":
    sys.exit(main())

"""Minutes of one core until a model of Multi30k en-de has a BLEU on the dev set, by greedy search.

python -m benchmarks.speedrun --data_dir=<folder of Multi30k>

Trains `pipelines/recipes/multi30k_speedrun.py` with one thread, from the raw text on, and stops at the first evaluation
with --target BLEU. Prints the curve, and ends with one JSON line. The minutes are processor time of the whole process:
tokenizers, training, checkpoints and evaluations.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

from absl import app, flags

_FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder of {train,val}.{en,de}.gz.", required=True)
flags.DEFINE_string("run_dir", None, "Where the run is kept. Default: a folder that is removed.")
flags.DEFINE_float("target", 33.0, "BLEU on the whole dev set.")
flags.DEFINE_integer("seed", 1, "Of weights, dropout and the order of the text.")


def main(_) -> None:
    """Trains until the dev set has the BLEU that is asked for."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    from nmt_keras.experiment.train import train
    from nmt_keras.training.stopping import StopRequest
    from pipelines.recipes import multi30k_speedrun

    config = multi30k_speedrun.get_config()
    config.training.seed = _FLAGS.seed
    with tempfile.TemporaryDirectory() as folder:
        config.data.data_dir, config.data.cache_dir = _FLAGS.data_dir, folder
        run_dir = pathlib.Path(_FLAGS.run_dir or pathlib.Path(folder) / "run")
        if run_dir.exists() and any(run_dir.iterdir()):
            sys.exit(f"error: {run_dir} is not empty: the clock runs from the raw text on; give another --run_dir")
        stop, curve = StopRequest(), []

        def report(line: str) -> None:
            print(line, file=sys.stderr, flush=True)
            if " BLEU " not in line or not line.startswith("step "):
                return
            bleu = float(line.partition(" BLEU ")[2].split()[0])
            curve.append({"step": int(line.split()[1].replace(",", "")), "dev_bleu": bleu, "core_minutes": _minutes()})
            print(f"{curve[-1]['core_minutes']:6.2f} core minutes  BLEU {bleu:.2f}", flush=True)
            if bleu >= _FLAGS.target:
                stop.request(f"BLEU {_FLAGS.target:g} is reached")

        train(config, run_dir, report=report, stop=stop)
    if not curve:
        sys.exit("error: training ended before its first evaluation")
    reached = [row for row in curve if row["dev_bleu"] >= _FLAGS.target]
    last = (reached or curve)[0 if reached else -1]
    print(
        json.dumps({**last, "target": _FLAGS.target, "is_reached": bool(reached), "seed": _FLAGS.seed, "curve": curve})
    )


def _minutes() -> float:
    return round(time.process_time() / 60.0, 3)


if __name__ == "__main__":
    app.run(main)

"""Whether training in mixed bfloat16 costs anything: the dev loss after the same updates as in float32.

python -m benchmarks.training_quality --data_dir=<folder of Multi30k> --run_dir=runs/quality --seeds=3 --updates=800

The recurrent network of `benchmarks.training_speed`, Multi30k en-de, 64 sentences a batch; runs of one seed see the
same batches from the same first weights. As many runs at once as there are cores, each on its own; a run that was
interrupted goes on. Prints a table and, as the last line, JSON.
"""

import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from absl import flags

from benchmarks import measure
from nmt_keras.errors import UserError
from pipelines import _cli, _process

_ROOT = pathlib.Path(__file__).parents[1]
_RECIPE = "pipelines/recipes/multi30k_en_de.py"
_PRECISIONS = ["float32", "mixed_bfloat16"]
_OVERRIDES = {
    "data.source_vocab_size": 8000,
    "model.share_embeddings": False,
    "model.tie_output": False,
    "model.output_dropout_rate": 0.2,
    "training.batch_sentences": 64,
    "training.learning_rate": 1e-3,
    "training.schedule": "constant",
    "training.warmup_steps": 200,
    "training.checkpoint_every": 100,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_string("run_dir", "runs/quality", "Where the runs are kept, one folder each.", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "How many.", 1, flag_values=values)
    flags.DEFINE_integer("updates", 800, "Of each run.", 1, flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    from benchmarks.models import CONFIGS

    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    overrides = {**_OVERRIDES, "model.d_model": CONFIGS["rnn"].d_model, "training.max_steps": values.updates}
    overrides["training.evaluate_every"] = values.updates

    def run(task: tuple[int, str]) -> dict:
        seed, precision = task
        core, run_dir = cores.get(), pathlib.Path(values.run_dir).resolve() / f"{precision}_{seed}"
        own = {**overrides, "training.seed": seed, "training.precision": precision}
        command = [sys.executable, "-m", "pipelines.train", f"--config={_RECIPE}", f"--run_dir={run_dir}"]
        command += [f"--data_dir={pathlib.Path(values.data_dir).resolve()}"]
        command += [f"--config.{name}={value}" for name, value in own.items()]
        try:
            done = subprocess.run(
                ["taskset", "-c", str(core), *command], cwd=_ROOT, capture_output=True, text=True, check=False
            )
        finally:
            cores.put(core)
        if done.returncode:
            raise UserError(f"{run_dir} ended with status {done.returncode}; read {measure.keep(done.stderr)}")
        rows = [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
        result = {"seed": seed, "precision": precision, "updates": rows[-1]["step"]}
        result["target_tokens"] = int(sum(row.get("target_tokens", 0) for row in rows))
        result |= {name: rows[-1][name] for name in ("dev_loss", "dev_bleu")}
        _process.report(str(result))
        return result

    with ThreadPoolExecutor(cores.qsize()) as pool:
        rows = list(
            pool.map(run, [(seed, precision) for seed in range(1, values.seeds + 1) for precision in _PRECISIONS])
        )
    means = {
        precision: statistics.mean(row["dev_loss"] for row in rows if row["precision"] == precision)
        for precision in _PRECISIONS
    }
    print(measure.table(rows, list(rows[0])))
    print(json.dumps({"rows": rows, "mean_dev_loss": means}))


if __name__ == "__main__":
    sys.exit(main())

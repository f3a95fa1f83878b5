"""Every preset, at a size that fits a CPU, trained on the same text for the same time: a JSON line each, and a table.

python -m benchmarks.presets --data_dir=<folder of Multi30k> --run_dir=runs/presets --minutes=20

A run has a core of its own, and as many run at once as there are cores. Its time is the processor's, from the start of
the job to its end, so that other work on the machine delays a run and takes nothing from it. What a folder of
--run_dir holds already is not run again.
"""

import json
import math
import os
import pathlib
import queue
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from absl import flags

from nmt_keras.errors import UserError
from nmt_keras.models.presets import PRESETS
from pipelines import _cli

_ROOT = pathlib.Path(__file__).parents[1]
_DROPOUT = ["input_dropout_rate=0.2", "output_dropout_rate=0.2"]
_SHALLOW = ["d_model=512", "num_encoder_layers=2", "num_decoder_layers=2", *_DROPOUT]
_TRANSFORMER = ["num_encoder_layers=3", "num_decoder_layers=3", "d_model=512", "d_ff=1024", "pre_norm=True"]
# Of the papers' sizes, what a CPU can train in minutes; pre-norm needs no long warm-up.
_SIZES = {
    "rnn_luong": _SHALLOW,
    "rnn_bahdanau": ["d_model=512", "d_embedding=0", *_DROPOUT],
    "gnmt": _SHALLOW,
    "rnmt_plus": _SHALLOW,
    "conv_s2s": ["d_model=256", "num_encoder_layers=4", "num_decoder_layers=4"],
    "transformer_tiny": [],
    "transformer_base": _TRANSFORMER,
    "transformer_big": [*_TRANSFORMER, "d_model=768", "d_ff=2048", "num_heads=12"],
    "transformer_ssru": [*_TRANSFORMER, "num_decoder_layers=2"],
}
_TRAINING = [
    "optimizer=adam",
    "learning_rate=1e-3",
    "schedule=inverse_sqrt",
    "warmup_steps=400",
    "clip_norm=1.0",
    "label_smoothing=0.1",
    "max_steps=1000000",
    "log_every=10",
    "checkpoint_every=50",
    "evaluate_every=1000000",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_string("run_dir", "runs/presets", "Where the runs are kept, one folder each.", flag_values=values)
    flags.DEFINE_float("minutes", 20.0, "Of one core's time, for each preset.", flag_values=values)
    flags.DEFINE_list("presets", list(PRESETS), "Which.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    unknown = set(values.presets) - set(PRESETS)
    if unknown:
        raise UserError(f"--presets has no {', '.join(sorted(unknown))}; valid ones: {', '.join(PRESETS)}")
    data_dir = str(pathlib.Path(values.data_dir).resolve())
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def row(name: str) -> dict:
        core = cores.get()
        try:
            return _row(name, pathlib.Path(values.run_dir).resolve() / name, data_dir, values.minutes, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        rows = []
        for result in pool.map(row, values.presets):
            rows.append(result)
            print(json.dumps(result), flush=True)
    print("\n".join(_table(rows)))


def _row(name: str, run_dir: pathlib.Path, data_dir: str, minutes: float, core: int) -> dict:
    kept = run_dir / "row.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    if run_dir.exists():
        raise UserError(f"{run_dir} is of a run that was interrupted; remove it: its time cannot be told any more")
    _train(name, run_dir, data_dir, minutes, core)
    result = {"preset": name, "minutes": minutes, **_measure(run_dir, data_dir, minutes, core)}
    kept.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def _train(name: str, run_dir: pathlib.Path, data_dir: str, minutes: float, core: int) -> None:
    """Trains until the kernel ends the job, which has had its processor time."""
    overrides = [f"--config.model.{field}" for field in _SIZES[name]]
    overrides += [f"--config.training.{field}" for field in _TRAINING]
    recipe = _ROOT / "pipelines" / "recipes" / "multi30k_en_de.py"
    job = ["pipelines.train", f"--config={recipe}:{name}", f"--run_dir={run_dir}", f"--data_dir={data_dir}"]
    seconds = math.ceil(minutes * 60)
    limits = ["prlimit", "--core=0", f"--cpu={seconds}:{seconds + 10}", "taskset", "-c", str(core)]
    log = run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(
            [*limits, sys.executable, "-m", *job, *overrides], cwd=_ROOT, stdout=file, stderr=file, check=False
        ).returncode
    if not (run_dir / "metrics.jsonl").exists() or status != -signal.SIGXCPU:
        raise UserError(f"{name} ended with status {status} before its time was over; read {log}")


def _measure(run_dir: pathlib.Path, data_dir: str, minutes: float, core: int) -> dict:
    rows = [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    job = ["pipelines.evaluate", f"--run_dir={run_dir}", "--checkpoint=latest", f"--data_dir={data_dir}"]
    result = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-m", *job, "--source=val.en.gz", "--reference=val.de.gz"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    scores = json.loads(result.stdout.strip().rpartition("\n")[2])
    return {
        "weights": _count_weights(run_dir),
        "step": scores["step"],
        "target_tokens": round(sum(row["target_tokens"] for row in rows)),
        "target_tokens_per_s": round(sum(row["target_tokens"] for row in rows) / (minutes * 60)),
        "dev_loss": round(math.log(scores["perplexity"]), 3),
        "dev_bleu": round(scores["bleu"], 2),
        "signature": scores["bleu_signature"],
        "beam_size": scores["beam_size"],
        "translated_sentences_per_s": round(scores["sentences_per_s"], 1),
    }


def _count_weights(run_dir: pathlib.Path) -> int:
    log = run_dir.with_suffix(".log").read_text(encoding="utf-8")
    [line] = [line for line in log.split("\n") if line.startswith("model: ")]
    return int(line.split()[1].replace(",", ""))


def _table(rows: list[dict]) -> list[str]:
    lines = ["| preset | weights | updates | target tokens/s | dev loss | dev BLEU |", "| --- |" + " --- |" * 5]
    for row in rows:
        lines.append(
            f"| `{row['preset']}` | {row['weights'] / 1e6:.1f} M | {row['step']:,} | {row['target_tokens_per_s']:,} | "
            f"{row['dev_loss']:.3f} | {row['dev_bleu']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())

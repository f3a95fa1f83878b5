"""An export against the translator it was made of: batches of 64 lines, and one line at a time, as ratios of time.

python -m benchmarks.serving --run_dir=runs/m30k --saved_model=saved_models/m30k/1 --input=dev.en

The export runs in a process of its own, through TensorFlow's C library, as on a server; both read the same lines in the
same batches, in turns, on the first core that this process may use. `export_over_translator` above 1 is an export that
takes longer; `ms_p50` and `ms_p99` are of the export's answers to one line, each time asked.
"""

import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_TURNS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "The run directory that was exported.", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "What was exported of it.", flag_values=values)
    flags.DEFINE_string("saved_model", None, "saved_models/<name>/<version>.", flag_values=values)
    flags.DEFINE_string("input", None, "Text, a sentence a line.", flag_values=values)
    flags.DEFINE_integer("lines", 128, "How many of it.", 1, flag_values=values)
    flags.DEFINE_integer("single_lines", 50, "How many are translated one at a time.", 1, flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not (values.run_dir and values.saved_model and values.input):
        raise UserError("--run_dir, --saved_model and --input must be given")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow makes its threads
    _process.load_tensorflow()
    from nmt_keras.runs.loading import load
    from nmt_keras.serving.compression import PRECISIONS
    from nmt_keras.serving.proof import FreshProcess
    from nmt_keras.training.checkpoints import weights_sha256

    folder = pathlib.Path(values.saved_model)
    if not (folder / "parity.json").exists():
        raise UserError(f"{folder} is no export of this toolkit; give saved_models/<name>/<version>")
    card = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    if pathlib.Path(values.run_dir).resolve() not in [pathlib.Path(run).resolve() for run in card["run_dirs"]]:
        raise UserError(f"--run_dir must be what was exported, {card['run_dirs'][0]}. Received: {values.run_dir}")
    overrides = {
        "training.precision": card.get("computed_in") or PRECISIONS[card["precision"]],
        "decoding.shortlist": card["shortlist"],
    }
    run = load(pathlib.Path(values.run_dir), overrides, values.checkpoint, report=_process.report)
    if weights_sha256(run.model) not in card.get("weights_sha256", []):
        raise UserError(
            f"{folder} was not made of checkpoint {values.checkpoint} of {values.run_dir}: its weights are others; "
            "give the run and the --checkpoint that were exported, or export again"
        )
    translator = run.translator()
    lines = pathlib.Path(values.input).read_text(encoding="utf-8").split("\n")[: values.lines]
    batches = [lines[i : i + 64] for i in range(0, len(lines), 64)]
    with FreshProcess(folder) as served:
        sides = {
            "translator": translator.translate_batch,
            "export": lambda batch: served.ask("serving_default", {"text": batch}),
        }
        for translate in sides.values():  # the first runs are slower
            translate(batches[0])
            translate(lines[:1])
        result = {"saved_model": str(folder), "precision": card["precision"], "lines": len(lines)}
        for name, requests in (("batches", batches), ("single", [[line] for line in lines[: values.single_lines]])):
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(_TURNS):
                for side, translate in sides.items():
                    for request in requests:
                        start = time.monotonic()
                        translate(request)
                        seconds[side].append(time.monotonic() - start)
            turns = {side: np.sum(np.reshape(all_of_it, [_TURNS, -1]), 1) for side, all_of_it in seconds.items()}
            ratios = (turns["export"] / turns["translator"]).tolist()
            count = sum(map(len, requests))
            result[name] = {
                "export_over_translator": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "export_ms_per_sentence": round(1e3 * statistics.median(turns["export"]) / count, 1),
            }
        result["single"] |= {f"ms_p{q}": round(1e3 * np.percentile(seconds["export"], q), 1) for q in (50, 99)}
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())

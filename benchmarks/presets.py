"""Every preset, at a size that fits a CPU, trained for the same time on the same text: a table as JSON.

python -m benchmarks.presets --data_dir=<folder of Multi30k> --run_dir=runs/presets --minutes=20
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from nmt_keras.models.presets import PRESETS
from pipelines import _runtime

_RECIPE = pathlib.Path(__file__).parents[1] / "pipelines" / "recipes" / "multi30k_en_de.py"
_DROPOUT = ["input_dropout_rate=0.2", "output_dropout_rate=0.2"]
_SHALLOW = ["d_model=512", "num_encoder_layers=2", "num_decoder_layers=2", *_DROPOUT]
_TRANSFORMER = ["num_encoder_layers=3", "num_decoder_layers=3", "d_model=512", "d_ff=1024", "pre_norm=True"]
# Of the papers' sizes, what a CPU can train in minutes; pre-norm needs no long warm-up.
_SIZES = {
    "rnn_luong": _SHALLOW,
    "rnn_bahdanau": ["d_model=512", *_DROPOUT],
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
    "checkpoint_every=100",
    "evaluate_every=1000000",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    flags.DEFINE_string("run_dir", "runs/presets", "Where the runs are kept, one folder each.", flag_values=values)
    flags.DEFINE_float("minutes", 20.0, "Of training, each.", flag_values=values)
    flags.DEFINE_list("presets", list(PRESETS), "Which.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not values.data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    unknown = set(values.presets) - set(PRESETS)
    if unknown:
        raise UserError(f"--presets has no {', '.join(sorted(unknown))}; valid ones: {', '.join(PRESETS)}")
    for name in values.presets:
        run_dir = pathlib.Path(values.run_dir) / name
        _train(name, run_dir, values.data_dir, values.minutes)
        print(json.dumps({"preset": name, "minutes": values.minutes, **_measure(run_dir, values.data_dir)}), flush=True)


def _train(name: str, run_dir: pathlib.Path, data_dir: str, minutes: float) -> None:
    overrides = [f"--config.model.{field}" for field in _SIZES[name]]
    overrides += [f"--config.training.{field}" for field in _TRAINING]
    command = [sys.executable, "-m", "pipelines.train", f"--config={_RECIPE}:{name}", f"--run_dir={run_dir}"]
    try:
        subprocess.run([*command, f"--data_dir={data_dir}", *overrides], timeout=minutes * 60, check=True)
    except subprocess.TimeoutExpired:  # as planned
        _runtime.report(f"{name}: stopped after {minutes:g} minutes")


def _measure(run_dir: pathlib.Path, data_dir: str) -> dict:
    from pipelines.evaluate import evaluate

    rows = [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    speeds = sorted(row["target_tokens_per_s"] for row in rows if "target_tokens_per_s" in row)
    scores = evaluate(run_dir, "latest", "val.en.gz", "val.de.gz", beam_size=1, data_dir=data_dir)

    from nmt_keras import run_directory

    model = run_directory.load_run(run_dir, "latest").model
    return {
        "weights": model.count_params(),
        "step": scores["step"],
        "target_tokens_per_s": round(speeds[len(speeds) // 2]),
        "dev_perplexity": round(scores["perplexity"], 3),
        "dev_bleu": scores["bleu"],
        "signature": scores["bleu_signature"],
    }


if __name__ == "__main__":
    sys.exit(main())

"""Computes a training step that went bad once more, and names the layer: python -m pipelines.replay --run_dir=runs/mine

Training skips a step whose loss or gradient is not finite and keeps its batch, its seeds and the weights before it
under `bad_batches/`. Here it is computed in float32, every layer checked. The status is 1 where something is not
finite. The last line of stdout is the verdict as JSON.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "The run directory of the training.", flag_values=values)
    flags.DEFINE_string("dump", "", "The name of a folder in its bad_batches. Default: the latest.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if not values.run_dir:
        raise UserError("--run_dir must be given: that of the training whose step is to be computed again")
    verdict = replay_dump(pathlib.Path(values.run_dir), values.dump)
    print(json.dumps(verdict))
    return 0 if verdict["where"] == "nowhere" else _cli.STATUS_FINDINGS


def replay_dump(run_dir: pathlib.Path, name: str = "") -> dict:
    """Replays a dump of a run, the latest if no name is given.

    Raises:
        UserError: there is no such run or dump.
    """
    _process.load_tensorflow()
    from nmt_keras.runs.layout import read_config
    from nmt_keras.runs.tokenizers import load_tokenizers
    from nmt_keras.training.precision import configure

    config = read_config(run_dir)
    precision, config.training.precision = config.training.precision, "float32"
    configure(config.training)

    from nmt_keras.experiment.resources import open_resources
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.freezing import freeze
    from nmt_keras.training.losses import build_loss
    from nmt_keras.training.non_finite_steps import NonFiniteSteps
    from nmt_keras.training.replay import replay

    non_finite_steps = NonFiniteSteps(run_dir / "bad_batches")
    non_finite, worker = non_finite_steps.read(name)
    tokenizers = load_tokenizers(run_dir)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    freeze(model, config.training.freeze)
    if non_finite.weights.keys() != {variable.path for variable in model.variables}:
        raise UserError(
            f"The dump of step {non_finite.step} in {run_dir} is of another model than its config.json; give another"
        )
    resources = open_resources(config, tokenizers, _process.report)
    loss = build_loss(config.training, resources)
    verdict = replay(model, non_finite, loss, worker * len(non_finite.slices))
    where = {
        "weights": f"{verdict.layer} is bad: {verdict.detail}",
        "forward": f"{verdict.layer} is the first that goes bad: {verdict.detail}",
        "gradient": f"{verdict.layer}: {verdict.detail}",
        "nowhere": f"{verdict.detail} in float32; what went bad is {precision}",
    }
    _process.report(f"step {non_finite.step:,}, restart {non_finite.restarts}: {where[verdict.where]}")
    if verdict.lines:
        _process.report(f"training lines: {', '.join(str(line + 1) for line in verdict.lines)}")
    lines = [line + 1 for line in verdict.lines]
    numbers = {"step": non_finite.step, "restarts": non_finite.restarts, "lines": lines, "loss": str(verdict.loss)}
    return {**numbers, "where": verdict.where, "layer": verdict.layer, "detail": verdict.detail}


if __name__ == "__main__":
    sys.exit(main())

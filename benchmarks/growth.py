"""How the cost of a token grows: training with batch, length, vocabulary and width, and search with the beam.

python -m benchmarks.growth --output=docs/growth.png --threads=1

Sentences of random ids, all of one length, for the recurrent network (512 wide, Luong attention) and a Transformer of
3 + 3 layers, in bfloat16. Around a middle point (64 sentences, 16 ids, vocabulary 8,000, 512 wide) one size at a time
is changed. A training step is that of `nmt_keras.training`, the search is the beam search of forced length. A point is
the median of five steps in a process of its own. Prints a table and, as the last line, JSON.
"""

import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

from absl import flags

from benchmarks import measure
from nmt_keras.training.precision import configure
from nmt_keras.training.workers import Workers
from pipelines import _cli, _process

_MIDDLE = {"sentences": 64, "length": 16, "vocab_size": 8000, "width": 512}
_POINTS = {
    "sentences": [16, 64, 256],
    "length": [8, 16, 32, 64, 128],
    "vocab_size": [2000, 8000, 32000],
    "width": [256, 512, 1024],
}
_BEAMS = [1, 2, 5, 10]
_FAMILIES = ["rnn", "transformer"]
_STEPS = 5
_COLUMNS = ["family", "what", "size", "target_tokens_per_s", "us_per_token"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("output", "growth.png", "The plot.", flag_values=values)
    measure.define_flags(values)


def _job(values: flags.FlagValues) -> int:
    if measure.answers(values, _work):
        return 0
    rows = []

    @functools.cache  # the middle point is of every size
    def speed(family: str, beam_size: int, **sizes: int) -> float:
        task = {"family": family, "beam_size": beam_size, **sizes}
        return measure.run_worker("benchmarks.growth", task, values.threads)["target_tokens_per_s"]

    for family in _FAMILIES:
        points = [(what, size, 0) for what, sizes in _POINTS.items() for size in sizes]
        for what, size, beam_size in points + [("beam_size", beam, beam) for beam in _BEAMS]:
            tokens_per_s = speed(family, beam_size, **{**_MIDDLE, **({} if beam_size else {what: size})})
            rows.append({"family": family, "what": what, "size": size, "target_tokens_per_s": tokens_per_s})
            rows[-1]["us_per_token"] = 1e6 / tokens_per_s
            _process.report(str(rows[-1]))
    _plot(rows, pathlib.Path(values.output))
    print(measure.table(rows, _COLUMNS))
    print(json.dumps({"threads": values.threads, "rows": rows}))
    return 0


def _work(family: str, beam_size: int, sentences: int, length: int, vocab_size: int, width: int) -> dict:
    """One point; runs in a process of its own."""
    _process.load_tensorflow()
    import dataclasses

    import tensorflow as tf

    from benchmarks.models import CONFIGS, Pieces
    from nmt_keras.config import DecodingConfig, TrainingConfig
    from nmt_keras.constants import BOS_ID
    from nmt_keras.data.batching import Batch
    from nmt_keras.inference.search import Search
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.train_step import TrainStep

    config = TrainingConfig(precision="mixed_bfloat16")
    configure(config)
    model = build_seq2seq(dataclasses.replace(CONFIGS[family], d_model=width, d_ff=4 * width), vocab_size, vocab_size)
    ids = tf.random.stateless_uniform([sentences, length], [1, 2], 4, vocab_size, tf.int32)
    if beam_size:
        config = DecodingConfig(beam_size=beam_size, min_length=length, max_length=length)
        searches = Search(model, Pieces(vocab_size), config)  # type: ignore[arg-type]
        numbers = tf.zeros([sentences], tf.int32)
        search = tf.function(lambda: searches(ids, None, numbers)[0].ids, autograph=False)

        def run() -> None:
            search().numpy()

    else:
        step = TrainStep(model, config, Workers(tf.distribute.get_strategy()))
        inputs = tf.concat([tf.fill([sentences, 1], BOS_ID), ids[:, :-1]], 1)
        batch = Batch(ids, inputs, ids, tf.ones([sentences]), tf.zeros([sentences], tf.int64))
        step.compile(tf.nest.map_structure(lambda leaf: tf.TensorSpec([None] * leaf.shape.rank, leaf.dtype), batch))

        def run() -> None:
            step(batch)
            int(step.steps.numpy())

    run()
    run()
    seconds = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return {"target_tokens_per_s": sentences * length / statistics.median(seconds)}


def _plot(rows: Sequence[dict], output: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [*_POINTS, "beam_size"]
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(3.2 * len(kinds), 3), sharey=False)
    for axis, what in zip(axes, kinds):
        for family in _FAMILIES:
            points = [
                (row["size"], row["us_per_token"]) for row in rows if (row["family"], row["what"]) == (family, what)
            ]
            axis.plot(*zip(*points), marker="o", label=family)
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_title("search" if what == "beam_size" else "training")
        axis.set_xlabel(what)
    axes[0].set_ylabel("microseconds a target token")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    sys.exit(main())

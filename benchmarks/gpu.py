"""Training and translation on one GPU: tokens a second, the share of the device's products, and the pipeline's.

python -m benchmarks.gpu --limit_s=300 [--output=gpu.jsonl]

A recurrent model (BiLSTM 2 x 256, LSTM 512, Luong attention), the same with input feeding, whose loop is compiled in
parts or with the whole step, and a Transformer (6 + 6 layers, 512 wide), 8,000 pieces a side, bfloat16, of random ids
with lengths like Multi30k's (mean 14, 5 to 40): it needs no text and no network. Each row is a JSON line: real target
tokens a second, after all shapes were met once; `of_products`, the share of what the weights' products alone would
allow at the rate of the output layer's; `input_share`, of the time spent waiting for batches. No measurement begins
after `--limit_s`. On a CPU it shows that it runs: give --tiny.
"""

import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import measure
from nmt_keras import files
from pipelines import _cli, _process

_WAYS = {  # training.compile, and whether shapes are static
    "parts": ("parts", False),
    "parts, static": ("parts", True),
    "step": ("step", True),
    "off": ("off", False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_float("limit_s", 300.0, "No measurement begins after so many seconds.", flag_values=values)
    flags.DEFINE_string("output", "", "A file for the rows.", flag_values=values)
    flags.DEFINE_list("models", ["rnn", "transformer"], "Of rnn, rnn_input_feeding, transformer.", flag_values=values)
    flags.DEFINE_list("tokens", ["25000", "4096"], "Padded target positions of a batch.", flag_values=values)
    flags.DEFINE_list("ways", list(_WAYS), "What is compiled.", flag_values=values)
    flags.DEFINE_bool("tiny", False, "Small networks, short: a rehearsal on a CPU.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    _process.load_tensorflow()
    import tensorflow as tf

    started, rows = time.monotonic(), []
    gpus = tf.config.list_physical_devices("GPU")
    card = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "a GPU") if gpus else "CPU"
    tasks: list[tuple[Any, ...]] = [
        (_train_row, model, int(tokens), way)
        for tokens in values.tokens
        for way in values.ways
        for model in values.models
    ]
    tasks[len(values.models) : len(values.models)] = [(_translate_row, model) for model in values.models]
    of_first = len(values.models) * (len(values.ways) + 1)
    feeding = [way for way in values.ways if way in ("parts", "step")]  # a loop, in parts or compiled as a whole
    tasks[of_first:of_first] = [(_train_row, "rnn_input_feeding", int(values.tokens[0]), way) for way in feeding]
    for run, *arguments in tasks:
        if time.monotonic() - started > values.limit_s:
            _process.report(f"not measured for want of time: {arguments}")
            continue
        try:
            row = run(*arguments, values.tiny)
        except Exception as error:  # of any kind: the other rows are not to be lost
            row = {"name": str(arguments), "failed": str(error).split("\n")[0]}
        rows.append({"card": card, **row, "tensorflow": tf.__version__})
        print(json.dumps(rows[-1]), flush=True)
        if values.output:
            files.write_text(values.output, "".join(json.dumps(each) + "\n" for each in rows))
    return 0


class _Ids:
    """Pairs of random ids, as a corpus and its encoding."""

    num_tags = 0

    def __init__(self, count: int, vocab_size: int):
        rng = np.random.default_rng(1)
        source = np.clip(np.exp(rng.normal(math.log(13.4), 0.3, count)).round(), 5, 40).astype(np.int64)
        target = np.clip(source + rng.normal(0.0, 2.0, count).round(), 5, 40).astype(np.int64)
        self.lengths = [[source], [target]]  # with EOS
        self._ids = [rng.integers(4, vocab_size, 1 << 20, dtype=np.int32) for _ in range(2)]

    def rows(self, side: int, lines: np.ndarray) -> Any:
        """The ids of lines, without EOS."""
        from nmt_keras.data.padding import rows_of

        lengths = self.lengths[side][0][lines] - 1
        starts = lines * 37 % (len(self._ids[side]) - 64)
        return rows_of([self._ids[side][start : start + length] for start, length in zip(starts, lengths)])

    def weights_of(self, lines: np.ndarray) -> np.ndarray:
        """1 of each."""
        return np.ones(len(lines), np.float32)


def _network(model: str, tiny: bool) -> Any:
    from nmt_keras.config import ModelConfig

    if model == "transformer":
        size = {"d_model": 64, "d_ff": 128} if tiny else {"d_model": 512, "d_ff": 2048}
        depth = {"num_encoder_layers": 2 if tiny else 6, "num_decoder_layers": 2 if tiny else 6}
        rates = {"input_dropout_rate": 0.2, "output_dropout_rate": 0.2, "attention_dropout_rate": 0.2}
        return ModelConfig(encoder="transformer", decoder="transformer", **size, **depth, **rates)
    return ModelConfig(
        d_model=64 if tiny else 512,
        input_feeding=model == "rnn_input_feeding",
        input_dropout_rate=0.2,
        output_dropout_rate=0.2,
    )


def _train_row(model: str, tokens: int, way: str, tiny: bool) -> dict[str, Any]:
    import tensorflow as tf

    from benchmarks.models import product_flops
    from nmt_keras.config import TrainingConfig
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.data.batching import TrainingText
    from nmt_keras.layers.recurrent import use_cudnn, ways_of
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.feed import Feed
    from nmt_keras.training.precision import configure
    from nmt_keras.training.train_step import TrainStep
    from nmt_keras.training.workers import Workers

    compiled, static = _WAYS[way]
    config = TrainingConfig(precision="mixed_bfloat16", batch_tokens=tokens, compile=compiled)
    configure(config)
    vocab_size, workers = 200 if tiny else 8000, Workers(tf.distribute.get_strategy())
    ids = _Ids(2_000 if tiny else 200_000, vocab_size)
    limits = {"max_source_length": 40, "max_target_length": 40}
    plan = BatchPlan(*ids.lengths, seed=1, batch_tokens=tokens, num_buckets=8 if static else 0, **limits)
    text = TrainingText(plan, ids, None, None, encoded=ids, static_shapes=static, **limits)  # type: ignore[arg-type]
    network = build_seq2seq(_network(model, tiny), vocab_size, vocab_size)
    use_cudnn(network, bool(tf.config.list_physical_devices("GPU")) and compiled != "step")
    step, feed = TrainStep(network, config, workers), Feed(text, workers)
    step.compile(feed.element_spec)
    before = time.monotonic()
    for bucket in plan.buckets:
        step(feed.full_batch(bucket, feed.rows_of(bucket)), apply=False)
    count = 5 if tiny else max(12, 400_000 // tokens)
    # Those that are timed then, too: where shapes are not static each batch has its own.
    for batch in itertools.islice(feed.start(0, 0), count):
        step(batch)
    first_s = time.monotonic() - before
    sizes, waited, started = [], 0.0, time.monotonic()
    batches = feed.start(0, 0)
    for _ in range(count):
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        step(batch)
        sizes.append((batch.weights, batch.source_ids, batch.target_output_ids))
    int(step.steps.numpy())
    seconds = time.monotonic() - started
    counts = [sum(int(tf.math.count_nonzero(each)) for each in side) for side in zip(*sizes)]
    totals = step.take_totals()
    gflops = measure.product_gflops("bfloat16", tokens, 64 if tiny else 512, vocab_size, repeats=30)
    flops = 3e-9 * product_flops(network, *counts)
    return {
        "name": f"train {model}, {tokens} target positions, {way}",
        "target_tokens_per_s": round(counts[2] / seconds),
        "of_products": round(flops / gflops / seconds, 3),
        "product_gflops": round(gflops),
        "input_share": round(waited / seconds, 4),
        "step_ms": round(1e3 * seconds / count, 2),
        "first_s": round(first_s, 1),
        "graphs": step.num_graphs,
        "loss": round(totals.minimised / max(totals.weight, 1.0), 3),
        "recurrences": ways_of(network),
    }


def _translate_row(model: str, tiny: bool) -> dict[str, Any]:
    """Beam 5 of sentences with random weights, whose translations are as long as their sources."""
    import tensorflow as tf

    from benchmarks.models import Pieces
    from nmt_keras.config import DecodingConfig, TrainingConfig
    from nmt_keras.inference.search import Search
    from nmt_keras.layers.recurrent import use_cudnn
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.precision import configure

    configure(TrainingConfig(precision="mixed_bfloat16"))
    vocab_size, rows, length = (200, 8, 8) if tiny else (8000, 256, 15)
    network = build_seq2seq(_network(model, tiny), vocab_size, vocab_size)
    use_cudnn(network, bool(tf.config.list_physical_devices("GPU")))
    config = DecodingConfig(beam_size=5, min_length=length, max_length=length)
    search = Search(network, Pieces(vocab_size), config)  # type: ignore[arg-type]
    run = tf.function(search, autograph=False)
    ids = np.random.default_rng(1).integers(4, vocab_size, (rows, length)).astype(np.int32)
    ids[:, -1] = 3
    arguments = tf.constant(ids), None, tf.range(rows)
    before = time.monotonic()
    tf.nest.map_structure(lambda leaf: leaf.numpy(), run(*arguments))
    first_s, started, count = time.monotonic() - before, time.monotonic(), 2 if tiny else 8
    for _ in range(count):
        tf.nest.map_structure(lambda leaf: leaf.numpy(), run(*arguments))
    seconds = time.monotonic() - started
    return {
        "name": f"translate {model}, beam 5, {rows} sentences of {length} ids",
        "sentences_per_s": round(rows * count / seconds, 1),
        "first_s": round(first_s, 1),
    }


if __name__ == "__main__":
    sys.exit(main())

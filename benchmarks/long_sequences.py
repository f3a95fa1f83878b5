"""What each family does at long sequences: time and memory of a training step, and of a translation as long, as JSON.

python -m benchmarks.long_sequences --lengths=128,512,1024

Seconds are those of one core.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_TOKENS = 4096  # target positions of a batch, at every length
_FAMILIES = {
    "rnn": {"encoder": "rnn", "decoder": "rnn"},
    "rnn_bahdanau": {"encoder": "rnn", "decoder": "rnn", "attention": "bahdanau"},
    "rnn_feeding": {"encoder": "rnn", "decoder": "rnn", "input_feeding": True},
    "conv": {"encoder": "conv", "decoder": "conv"},
    "transformer": {"encoder": "transformer", "decoder": "transformer"},
    "transformer_ssru": {"encoder": "transformer", "decoder": "ssru"},
}
_COMMON = {"d_model": 256, "d_ff": 1024, "num_heads": 4, "num_encoder_layers": 2, "num_decoder_layers": 2}
_VOCAB = 8000
_TRANSLATED = 4  # sentences that are translated at once, greedily


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_list("lengths", ["128", "512", "1024"], "Positions of source and target.", flag_values=values)
    flags.DEFINE_list("families", list(_FAMILIES), "Which.", flag_values=values)
    flags.DEFINE_bool("one", False, "Measure one family at one length in this process.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    unknown = set(values.families) - set(_FAMILIES)
    if unknown:
        raise UserError(f"--families has no {', '.join(sorted(unknown))}; valid ones: {', '.join(_FAMILIES)}")
    if values.one:
        print(json.dumps(_measure(values.families[0], int(values.lengths[0]))))
        return
    for family in values.families:
        for length in values.lengths:
            command = [sys.executable, "-m", "benchmarks.long_sequences", "--one"]
            command += [f"--families={family}", f"--lengths={length}"]
            done = subprocess.run(command, check=False)  # a process each, whose peak memory and time are its own
            if done.returncode == -signal.SIGKILL:
                print(json.dumps({"family": family, "length": length, "killed": "out of memory"}))
            elif done.returncode:
                raise UserError(f"{family} at {length} failed with status {done.returncode}; see what it printed")


def _measure(family: str, length: int) -> dict:
    import os
    import resource
    import time

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _process.load_tensorflow()
    import keras
    import tensorflow as tf

    from nmt_keras.config import ModelConfig, TrainingConfig
    from nmt_keras.data.batching import Batch
    from nmt_keras.decoding.constraints import Constraints
    from nmt_keras.decoding.sampling import greedy
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.losses import Forward
    from nmt_keras.training.losses.cross_entropy import CrossEntropy

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build_seq2seq(ModelConfig(**{**_COMMON, **_FAMILIES[family]}), _VOCAB, _VOCAB)
    rows = max(_TOKENS // length, 1)
    ids = tf.random.stateless_uniform([rows, length], [1, 2], 4, _VOCAB, tf.int32)
    batch = Batch(ids, ids, ids, tf.ones([rows]), tf.range(rows, dtype=tf.int64))
    optimizer, weights = keras.optimizers.Adam(1e-3), model.trainable_variables
    optimizer.build(weights)
    cross_entropy = CrossEntropy(TrainingConfig(label_smoothing=0.1))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = cross_entropy(Forward(model, batch), batch, tf.constant([1, 1])).loss
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)

    def seconds(run) -> float:
        times = []
        for _ in range(3):  # the first traces
            started = time.process_time()
            run()
            times.append(time.process_time() - started)
        return min(times[1:])

    def train() -> None:
        step()
        optimizer.iterations.numpy()

    training = seconds(train)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    forced = Constraints(tf.fill([_TRANSLATED], length), min_length=length)

    @tf.function(autograph=False)
    def translate():
        memory = model.prepare(tf.tile(ids[:1], [_TRANSLATED, 1]))
        state = model.init_state(memory)
        return greedy(lambda *now: model.step(*now, memory), state, forced).ids

    return {
        "family": family,
        "length": length,
        "sentences": rows,
        "seconds_per_step": round(training, 3),
        "target_tokens_per_s": round(rows * length / training),
        "peak_memory_mib": peak,
        "translated_tokens_per_s": round(_TRANSLATED * length / seconds(lambda: translate().numpy())),
    }


if __name__ == "__main__":
    sys.exit(main())

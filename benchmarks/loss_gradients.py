"""Two ways to the gradient of a loss that never holds the logits of a batch: what each takes of time and memory.

python -m benchmarks.loss_gradients --vocab=8000,32000 --dtype=bfloat16
`together` is `sums_over_chunks`, which takes the gradient of a chunk where its logits are made. `recomputed` makes the
logits of a chunk again in the backward pass (`tf.recompute_grad`). A row has the seconds of the loss with its gradient,
the least of several runs in turns, and the peak memory above TensorFlow, each way in a process of its own.
"""

import json
import resource
import subprocess
import sys
import time

from absl import app, flags

_FLAGS = flags.FLAGS
flags.DEFINE_list("vocab", ["8000", "32000"], "Sizes of the vocabulary.")
flags.DEFINE_integer("rows", 4096, "Target positions.")
flags.DEFINE_integer("width", 512, "Of the hidden states.")
flags.DEFINE_string("dtype", "float32", "Of the products.")
flags.DEFINE_integer("repeats", 7, "Runs of each.")
flags.DEFINE_string("only", "", "One of the ways, measured in this process.")
_WAYS = ("together", "recomputed")


def _measure(way: str, vocab: int) -> dict[str, float]:
    import numpy as np
    import tensorflow as tf

    from nmt_keras.training.losses.chunks import CHUNK_ROWS, sums_over_chunks
    from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy

    rng = np.random.default_rng(1)
    rows, width, dtype = _FLAGS.rows, _FLAGS.width, _FLAGS.dtype
    inputs = tf.constant(rng.normal(size=(rows, width)), tf.float32)
    kernel = tf.Variable(rng.normal(size=(width, vocab)) / width**0.5, dtype=tf.float32)
    bias = tf.Variable(tf.zeros([vocab]))
    labels, weights = tf.constant(rng.integers(0, vocab, rows), tf.int32), tf.ones([rows])

    def values_of(logits, labels, weights):
        values = label_smoothed_cross_entropy(logits[0], labels, 0.1)
        return tuple(tf.reduce_sum(weights * value) for value in values)

    @tf.function(autograph=False, jit_compile=True)
    def element_wise(logits, bias, labels, weights):
        return values_of([tf.cast(logits, tf.float32) + bias], labels, weights)

    def recomputed(inputs, kernel, bias):
        @tf.recompute_grad
        def of_chunk(part, kernel, bias, labels, weights):
            logits = tf.matmul(tf.cast(part, dtype), tf.cast(kernel, dtype))
            return element_wise(logits, bias, labels, weights)

        total = [tf.zeros([])] * 3
        for start in range(0, rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, rows)
            with tf.control_dependencies(total):
                part = tf.identity(inputs[start:stop])
            sums = of_chunk(part, kernel, bias, labels[start:stop], weights[start:stop])
            total = [before + value for before, value in zip(total, sums)]
        return total

    @tf.function(autograph=False)
    def run():
        factors = [inputs, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias)]
        with tf.GradientTape() as tape:
            tape.watch(factors)
            if way == "recomputed":
                sums = recomputed(*factors)
            else:
                sums = sums_over_chunks(values_of, factors[:1], *factors[1:], (labels, weights), dtype=dtype)
        return sums[0], tape.gradient(sums[0], factors)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(_FLAGS.repeats + 1):
        started = time.perf_counter()
        loss, gradients = run()
        checksum = float(loss), float(tf.linalg.global_norm(gradients))
        seconds.append(time.perf_counter() - started)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": min(seconds[1:]), "peak_mib": peak, "loss": checksum[0], "norm": checksum[1]}


def main(_) -> None:
    """Prints a JSON line for each vocabulary and way."""
    for vocab in map(int, _FLAGS.vocab):
        if _FLAGS.only:
            print(json.dumps(_measure(_FLAGS.only, vocab)))
            continue
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
        for _ in range(2):  # in turns
            for way in _WAYS:
                command = [sys.executable, "-m", "benchmarks.loss_gradients", f"--only={way}", f"--vocab={vocab}"]
                command += [f"--{name}={_FLAGS[name].value}" for name in ("rows", "width", "dtype", "repeats")]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
                rows[way].append(json.loads(done.stdout.strip().split("\n")[-1]))
        for way, found in rows.items():
            best = min(found, key=lambda row: row["seconds"])
            print(json.dumps({"vocab": vocab, "dtype": _FLAGS.dtype, "way": way, **best}), flush=True)


if __name__ == "__main__":
    app.run(main)

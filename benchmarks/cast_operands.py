"""What `dense.cast_once` is worth to a search, `dense.LateGradients` to a training step: with and without, in turns.

python -m benchmarks.cast_operands --family=gnmt --what=late --precision=mixed_bfloat16
128 sentences of 24 ids, 8,000 ids, 256 wide (512 for `rnn`); a search has 32 of them and 5 beams. Prints a JSON line:
seconds with and without, the second least of seven each.
"""

import json
import random
import time
import unittest.mock
from collections.abc import Callable
from typing import Any

from absl import app, flags

_FLAGS = flags.FLAGS
_FAMILIES: dict[str, dict[str, Any]] = {
    "rnn": {"d_model": 512},
    "feeding": {"input_feeding": True},
    "bahdanau": {"attention": "bahdanau", "input_feeding": True},
    "conditional_gru": {"decoder": "conditional_gru", "cell": "gru", "attention": "bahdanau"},
    "gnmt": {
        "encoder": "gnmt",
        "decoder": "gnmt",
        "num_encoder_layers": 4,
        "num_decoder_layers": 4,
        "attention": "bahdanau_normed",
        "input_feeding": True,
    },
    "transformer": {
        "encoder": "transformer",
        "decoder": "transformer",
        "num_encoder_layers": 3,
        "num_decoder_layers": 3,
    },
}
flags.DEFINE_enum("family", "rnn", list(_FAMILIES), "The network.")
flags.DEFINE_enum("what", "cast", ["cast", "late"], "cast_once in a search, or LateGradients in a step.")
flags.DEFINE_string("precision", "mixed_bfloat16", "Of the products.")
_ROWS, _LENGTH, _VOCAB = 128, 24, 8000


def _second_least(functions: list[Callable[[], Any]]) -> list[float]:
    import tensorflow as tf

    seconds: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function(), function()
    for _ in range(7):
        for function, times in zip(functions, seconds):
            started = time.perf_counter()
            tf.nest.map_structure(lambda x: tf.convert_to_tensor(x).numpy(), function())
            times.append(time.perf_counter() - started)
    return [sorted(times)[1] for times in seconds]


def main(_) -> None:
    """Prints the figures."""
    import keras
    import numpy as np
    import tensorflow as tf

    from benchmarks.models import Pieces
    from nmt_keras.config import DecodingConfig, ModelConfig, TrainingConfig
    from nmt_keras.data.batching import Batch
    from nmt_keras.inference.search import Search
    from nmt_keras.layers import dense
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.losses import Forward, build_loss

    keras.config.set_dtype_policy(_FLAGS.precision)
    random.seed(1)
    fields = {"d_model": 256, "num_heads": 4, **_FAMILIES[_FLAGS.family]}
    model = build_seq2seq(ModelConfig(**fields), _VOCAB, _VOCAB)
    ids = tf.constant(np.random.default_rng(1).integers(4, _VOCAB, (_ROWS, _LENGTH)), tf.int32)
    batch = Batch(ids, ids, ids, tf.ones([_ROWS]), tf.range(_ROWS, dtype=tf.int64))
    loss = build_loss(TrainingConfig())
    search = Search(model, Pieces(_VOCAB), DecodingConfig(max_length=25))  # type: ignore[arg-type]
    weights = [weight.value for weight in model.trainable_variables]

    def step() -> Any:
        with tf.GradientTape() as tape:
            value = loss(Forward(model, batch), batch, tf.constant([1, 2])).loss
        return tape.gradient(value, weights, unconnected_gradients="zero")

    def searched() -> Any:
        return search(ids[:32], tf.zeros([32, 0], tf.int32), tf.range(32)).log_prob

    run, name, plain = (
        (step, "LateGradients", lambda weights, *rest: late_gradients((), *rest))
        if _FLAGS.what == "late"
        else (searched, "cast_once", lambda layer: layer)
    )
    late_gradients = dense.LateGradients

    def without() -> Any:
        with unittest.mock.patch.object(dense, name, plain):
            return run()

    functions = [tf.function(each, autograph=False) for each in (run, without)]
    with_it, without_it = _second_least(functions)
    about = {"family": _FLAGS.family, "what": _FLAGS.what, "precision": _FLAGS.precision}
    print(json.dumps({**about, "with_s": with_it, "without_s": without_it, "ratio": without_it / with_it}))


if __name__ == "__main__":
    app.run(main)

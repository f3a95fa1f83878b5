"""What tests share. Two logical CPU devices stand in for two accelerators; TensorFlow's remarks are silenced."""

import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

gc.set_threshold(100_000, 20, 100)  # graphs are many objects that live: looking through them took 6% of the time

_LONGEST = (
    "test_contracts.py",
    "test_trainer.py",
    "test_jobs.py",
    "test_served.py",
    "test_faults.py",
    "test_translator.py",
    "test_client.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first, so that parallel workers end together."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(autouse=True)
def _seeds_and_precision():
    """Initializers draw their seeds from Python's generator; a job under test may have changed the precision."""
    import keras

    random.seed(1)
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def varied_transformer():
    """A function that makes an untrained Transformer whose translations vary, and seldom end or hold UNK.

    It takes the size of both vocabularies, and what is added to the logit of EOS.
    """
    from nmt_keras.config import ModelConfig
    from nmt_keras.constants import EOS_ID, UNK_ID
    from nmt_keras.models.seq2seq import build_seq2seq

    def build(vocab_size: int, end: float):
        config = ModelConfig(encoder="transformer", decoder="transformer", d_model=16, num_heads=4, d_ff=24)
        model = build_seq2seq(config, vocab_size, vocab_size)
        rng = np.random.default_rng(3)
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape) * 0.6)
        bias = tf.one_hot(EOS_ID, vocab_size) * end + tf.one_hot(UNK_ID, vocab_size) * -20.0
        model.output_projection.bias.assign(bias)
        return model

    return build


@pytest.fixture(scope="session")
def copy_text(tmp_path_factory):
    """Files of a copy task: {train,dev}.{src,tgt}, words of letters; returns their folder."""
    folder = tmp_path_factory.mktemp("copy")
    rng = np.random.default_rng(1)
    for name, count in (("train", 600), ("dev", 24)):
        lines = ["".join(" ".join(rng.choice(list("abcdefgh"), size=rng.integers(2, 7)))) for _ in range(count)]
        for side in ("src", "tgt"):
            (folder / f"{name}.{side}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder

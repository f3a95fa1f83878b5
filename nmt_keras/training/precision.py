"""What is set for a whole process: the precision, what is compiled, and the seed that weights are initialised from."""

import random

import keras
import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.layers.fusion import set_fusion

_BFLOAT16_EXTENSIONS = ("amx_bf16", "avx512_bf16")  # as /proc/cpuinfo names them


def resolve_precision(config: TrainingConfig) -> None:
    """Replaces `auto`: mixed_bfloat16 on a GPU or a CPU that multiplies it in hardware, where its products are several
    times faster; float32 elsewhere, where they are slower."""
    if config.precision != "auto":
        return
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
        has_bfloat16 = any(extension in text for extension in _BFLOAT16_EXTENSIONS)
    except OSError:
        has_bfloat16 = False
    fast = min(capabilities) >= (8, 0) if capabilities else has_bfloat16
    config.precision = "mixed_bfloat16" if fast else "float32"


def resolve_compile(config: TrainingConfig) -> None:
    """Replaces `auto`: parts of the step; all of it on a TPU, nothing where parameter servers keep what it updates."""
    if config.compile == "auto":
        config.compile = {"parameter_server": "off", "tpu": "step"}.get(config.distribution, "parts")


def configure(config: TrainingConfig) -> None:
    """Sets the precision, what is compiled, and the seed that weights are initialised from.

    Keras draws the seeds of initializers from Python's generator. TensorFlow's own seed is left alone: nothing here
    draws from it, and setting it destroys the tokenizers that exist (tensorflow/text#570).
    """
    random.seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    set_fusion(config.compile != "off")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()

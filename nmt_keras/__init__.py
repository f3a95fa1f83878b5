"""Neural machine translation on TensorFlow and Keras 3: models, search, training, data plan and export.

The names of `__all__` are what semantic versioning covers; docs/api.md describes each. They are imported when they are
first used: this package alone imports nothing, and TensorFlow comes with the first call that needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmt_keras.api import evaluate, export, load, recipe, train
    from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
    from nmt_keras.errors import UserError
    from nmt_keras.inference.translation import Hypothesis, Translation
    from nmt_keras.serving.client import Client

__all__ = [
    "Client",
    "DataConfig",
    "DecodingConfig",
    "ExperimentConfig",
    "Hypothesis",
    "ModelConfig",
    "TrainingConfig",
    "Translation",
    "UserError",
    "evaluate",
    "export",
    "load",
    "recipe",
    "train",
]

_MODULES = {
    "Client": "serving.client",
    "Hypothesis": "inference.translation",
    "Translation": "inference.translation",
    "UserError": "errors",
    **dict.fromkeys(("DataConfig", "DecodingConfig", "ExperimentConfig", "ModelConfig", "TrainingConfig"), "config"),
    **dict.fromkeys(("evaluate", "export", "load", "recipe", "train"), "api"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

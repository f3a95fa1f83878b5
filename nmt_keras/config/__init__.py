"""Every hyperparameter, declared once.

The dataclasses are not frozen, because command lines override their fields (`--config.model.d_model=256`). Call
`ExperimentConfig.validate` after the last override: it reports all problems at once.
"""

from nmt_keras.config.data import DataConfig
from nmt_keras.config.decoding import DecodingConfig
from nmt_keras.config.experiment import ExperimentConfig
from nmt_keras.config.model import ModelConfig
from nmt_keras.config.training import TrainingConfig

__all__ = ["DataConfig", "DecodingConfig", "ExperimentConfig", "ModelConfig", "TrainingConfig"]

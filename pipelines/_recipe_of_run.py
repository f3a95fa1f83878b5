"""The experiment of a run: --config=runs/a, or --config=runs/a/config.json, stands for this recipe with that path."""

import pathlib

from nmt_keras.config import ExperimentConfig


def get_config(path: str) -> ExperimentConfig:
    """Reads a `config.json`."""
    return ExperimentConfig.from_json(pathlib.Path(path).read_text(encoding="utf-8"))

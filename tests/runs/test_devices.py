"""Which computations take a GPU that is there, shown without one."""

import pytest
import tensorflow as tf

from nmt_keras.experiment import export, train
from nmt_keras.layers.base import layers_of
from nmt_keras.layers.recurrent import RecurrentLayer
from nmt_keras.runs.layout import read_config
from nmt_keras.runs.loading import load


@pytest.fixture
def with_gpu(monkeypatch):
    real = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else real(kind)
    )


def _use_cudnn(model):
    found = [layer.uses_cudnn for layer in layers_of(model).values() if isinstance(layer, RecurrentLayer)]
    assert found
    return set(found)


def test_a_run_is_computed_by_cudnn_and_what_is_exported_is_not(trained_copy, with_gpu):
    folder = trained_copy / "run"
    assert _use_cudnn(load(folder).model) == {True}
    assert _use_cudnn(load(folder, portable=True).model) == {False}
    assert _use_cudnn(export._Source([folder], "best", {}).load("float32").model) == {False}


def test_without_a_gpu_nothing_is(trained_copy):
    assert _use_cudnn(load(trained_copy / "run").model) == {False}


class _Enough(Exception):
    """What a test ends training with."""


@pytest.mark.parametrize("compiled, expected", [("parts", True), ("step", False)])
def test_training_is_unless_the_whole_step_is_compiled(
    trained_copy, tmp_path, with_gpu, monkeypatch, compiled, expected
):
    asked = []

    def use_cudnn(model, is_used):
        asked.append(is_used)
        raise _Enough

    monkeypatch.setattr(train, "use_cudnn", use_cudnn)
    config = read_config(trained_copy / "run")
    config.training.compile, config.data.static_shapes = compiled, compiled == "step"
    with pytest.raises(_Enough):
        train.train(config, tmp_path / "run")
    assert asked == [expected]

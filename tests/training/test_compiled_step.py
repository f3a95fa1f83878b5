"""The whole step as one program of XLA: the same losses, of static shapes, of operations that a TPU compiles."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.data.batch_plan import BatchPlan
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.feed import Feed
from nmt_keras.training.losses import LOSSES, Resources
from nmt_keras.training.train_step import TrainStep, dropout_seed
from nmt_keras.training.workers import Workers
from tests.cross_entropy_of import V, small_batch, small_model
from tests.models.test_contracts import ALL, ATTENTIONS, SMALL, SOURCE_V, TARGET_V, batch_of_three
from tests.training.losses.test_contract import EXTRA
from tests.training.of_workers import ROOT

TRAINING = TrainingConfig(schedule="constant", learning_rate=1e-2, clip_norm=0.5, ema_decay=0.5)
DROPOUT = {"input_dropout_rate": 0.2, "output_dropout_rate": 0.2, "attention_dropout_rate": 0.2}
FAMILIES = ALL + [fields for fields in ({"attention": name} for name in ATTENTIONS) if fields not in ALL]
_PARTS = 10  # processes that all families are divided among
IN_SHORT = {"encoder": "rnn", "decoder": "rnn"}
LOSSES_IN_A_GRAPH = [name for name in LOSSES if name != "minimum_risk"]  # which scores texts in Python

# Of operations that are no program of XLA: what calls functions, and what a step has at its borders.
_STRUCTURE = {"Placeholder", "StatefulPartitionedCall", "PartitionedCall", "NoOp", "_Arg", "_Retval", "Assert"}


def _step(config, model, resources=Resources()):
    step = TrainStep(model, config, Workers(tf.distribute.get_strategy()), resources)
    step.compile()
    return step


def _model(fields):
    config = ModelConfig(**{**SMALL, **fields, **DROPOUT})
    model = build_seq2seq(config, TARGET_V if config.share_embeddings else SOURCE_V, TARGET_V)
    rng = np.random.default_rng(2)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.3)
    return model


def _losses(step, batch, count=3):
    """Loss and norm of the gradient of some steps, each of which depends on the update before."""
    rows = []
    for _ in range(count):
        step(batch)
        totals = step.take_totals()
        rows.append((totals.minimised / totals.weight, totals.gradient_norm))
    return np.array(rows)


def _types_in(graph):
    """The operations of a graph and of the functions it calls."""
    proto = graph.as_graph_def()
    return {node.op for node in proto.node} | {node.op for f in proto.library.function for node in f.node_def}


def _compiled_by_xla():
    """The operations that TensorFlow's bridge to XLA registers for devices that have nothing else.

    Its list for TPUs (XLA_TPU_JIT) is in no wheel. Kernels are registered for all of XLA's devices unless they name
    some; what they name is left out here by taking those that both the CPU's and the GPU's list have.
    """
    tf.function(lambda: tf.zeros([]), jit_compile=True)()  # registers them
    found = kernels.get_all_registered_kernels().kernel
    of_cpu, of_gpu = ({k.op for k in found if k.device_type == f"XLA_{kind}_JIT"} for kind in ("CPU", "GPU"))
    assert len(of_cpu & of_gpu) > 300
    return of_cpu & of_gpu


def _assert_for_a_tpu(step, batch):
    """No text, no Python, no file, and no dimension that is not known."""
    graph = step._compiled.get_concrete_function(batch, tf.constant(True)).graph
    assert not _types_in(graph) - _compiled_by_xla() - _STRUCTURE
    assert all(placeholder.shape.is_fully_defined() for placeholder in graph.inputs)


def _assert_same(make, batch):
    steps = [make(dataclasses.replace(TRAINING, compile=how)) for how in ("off", "step")]
    plain, compiled = (_losses(step, batch) for step in steps)
    _assert_for_a_tpu(steps[0], batch)
    assert len(set(plain[:, 0])) == len(plain)
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


def assert_same_of(fields):
    """That a model's step, compiled whole, has the losses of the plain one, and could be compiled for a TPU."""
    _assert_same(lambda config: _step(config, _model(fields)), batch_of_three())


def test_a_step_is_of_what_a_tpu_compiles():
    _assert_for_a_tpu(_step(TRAINING, _model(IN_SHORT)), batch_of_three())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_the_step_of_every_family_does(part):
    numbers = map(str, range(part, len(FAMILIES), _PARTS))
    command = [sys.executable, "-m", "tests.training.compile_families", *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES_IN_A_GRAPH)
def test_every_loss_does(loss):
    batch = small_batch((1.0, 0.5, 2.0))
    batch = batch._replace(alignment=batch.target_output_ids[:, :, None] % 3 == batch.source_ids[:, None] % 3)

    def make(config):
        config = dataclasses.replace(config, loss=loss, **EXTRA[loss])
        return _step(config, small_model(), Resources(small_model(seed=8)))

    _assert_same(make, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "sgd", "schedule": "inverse_sqrt"},
        {"schedule": "cosine", "clip_norm": 0.0},
        {"schedule": "luong_halving", "precision": "mixed_float16"},
        {"accumulation_steps": 3},
    ],
    ids=str,
)
def test_every_optimizer_and_schedule_does(options):
    _assert_same(lambda config: _step(dataclasses.replace(config, **options), small_model()), small_batch())


def test_a_step_that_is_not_finite_changes_nothing_and_is_told():
    model, told = small_model(), []
    step = _step(dataclasses.replace(TRAINING, compile="step"), model)
    step.on_non_finite = told.append
    bias = model.output_projection.bias
    bias.assign([float("nan")] * V)
    before = [weight.numpy() for weight in model.trainable_variables]
    step(small_batch())
    assert [(each.step, each.in_a_row) for each in told] == [(1, 1)] and np.isnan(told[0].loss)
    np.testing.assert_array_equal(told[0].weights[bias.path], bias.numpy())
    for weight, old in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(weight.numpy(), old)


def test_seeds_are_not_negative():
    """XLA draws other numbers from a negative one than TensorFlow's own operations."""
    seeds = [dropout_seed(2**31 - 1, restarts, step, 3) for restarts in range(4) for step in range(30)]
    assert (np.array(seeds) >= 0).all() and len({tuple(seed.numpy()) for seed in seeds}) == len(seeds)


def test_what_a_tpu_does_not_compile_is_seen():
    @tf.function(autograph=False)
    def step(batch, apply):
        tf.numpy_function(print, [batch], [])
        return tf.strings.as_string(batch)

    graph = step.get_concrete_function(tf.zeros([2]), tf.constant(True)).graph
    assert _types_in(graph) - _compiled_by_xla() - _STRUCTURE == {"PyFunc", "AsString"}


@pytest.mark.slow
def test_each_bucket_is_compiled_once_and_before_step_1():
    lengths = np.random.default_rng(1).integers(2, 21, 300)
    limits = {"max_source_length": 20, "max_target_length": 20}
    plan = BatchPlan([lengths], [lengths], seed=1, batch_tokens=100, num_buckets=3, num_slices=2, **limits)
    text = type("Text", (), {"plan": plan, "static_shapes": True, "align": None})()
    feed = Feed(text, Workers(tf.distribute.get_strategy()))
    model = small_model()
    step = _step(TRAINING, model)
    before = model.trainable_variables[0].numpy()
    shapes = set()
    for batch in feed.each_shape():
        step(tf.nest.map_structure(lambda leaf: leaf % V if leaf.dtype == tf.int32 else leaf, batch), apply=False)
        shapes.add(tuple(batch.target_input_ids.shape))
    assert step.num_graphs == len(shapes) == len(plan.buckets) == 3
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), before)
    assert feed.element_spec is None

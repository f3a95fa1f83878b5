"""The trainer: it learns, it resumes, it skips what is not finite, and devices do not change the losses."""

import dataclasses
import json
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.constants import EOS_ID
from nmt_keras.data.batch_plan import BatchPlan
from nmt_keras.data.batching import TrainingText
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.tokenizers.characters import ByteTokenizer
from nmt_keras.training.checkpoints import Checkpoints
from nmt_keras.training.feed import Feed
from nmt_keras.training.summaries import Summaries
from nmt_keras.training.train_step import part_of
from nmt_keras.training.trainer import Evaluation, Every, Trainer
from nmt_keras.training.workers import Workers
from pipelines import train
from tests.training.of_workers import losses_of, start_workers, worker_arguments

TRAINING = TrainingConfig(
    max_steps=6,
    batch_tokens=256,
    learning_rate=1e-2,
    schedule="constant",
    clip_norm=0.5,
    log_every=1,
    evaluate_every=3,
    checkpoint_every=2,
    best_metric="dev_loss",
)
MODEL = ModelConfig(
    d_model=8, num_encoder_layers=1, num_decoder_layers=1, input_dropout_rate=0.0, output_dropout_rate=0.0
)


def _text(copy_text, slices, batch_tokens=256):
    cache = copy_text / "cache"
    corpus = ParallelCorpus(*([TextFile(str(copy_text / f"train.{side}"), str(cache))] for side in ("src", "tgt")))
    lengths = [np.array([len(line) + 1 for line in side]) for side in corpus.text()]
    plan = BatchPlan(
        [lengths[0]],
        [lengths[1]],
        seed=1,
        batch_tokens=batch_tokens,
        max_source_length=32,
        max_target_length=32,
        num_slices=slices,
    )
    tokenizer = ByteTokenizer()
    return TrainingText(plan, corpus, tokenizer, tokenizer, max_source_length=32, max_target_length=32)


def _trainer(config, strategy, model_config=MODEL):
    with strategy.scope():
        model = build_seq2seq(model_config, 260, 260)
        rng = np.random.default_rng(2)
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape) * 0.3)
        return Trainer(model, config, Workers(strategy))


def _start(trainer, text):
    """The compiled step, and the batches from the first on."""
    batches = Feed(text, trainer.workers).start(0, 0)
    trainer.train_step.compile(batches.element_spec)
    return trainer.train_step, batches


def _run(tmp_path, trainer, text, evaluate=lambda step: Evaluation({"dev_loss": 1.0 / step}, ""), stop=None):
    lines = []
    feed = Feed(text, trainer.workers)
    checkpoints = Checkpoints(tmp_path / "checkpoints", trainer.config.keep_checkpoints, report=lines.append)
    trainer.restore(checkpoints, text.plan.fingerprint)
    summaries = Summaries(tmp_path, trainer.step, trainer.owes_evaluation)
    reason = trainer.train(feed, checkpoints, summaries, evaluate, lines.append, stop)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().split("\n")[:-1]]
    return reason, [row["loss"] for row in rows if "loss" in row], rows, lines


def _one_device(tmp_path, copy_text, config, slices=2, **kwargs):
    return _run(tmp_path, _trainer(config, tf.distribute.get_strategy(), **kwargs), _text(copy_text, slices))


def test_the_loss_of_the_log_is_the_plain_one_and_the_smoothed_one_has_a_name(tmp_path, copy_text):
    _, plain, rows, _ = _one_device(tmp_path / "plain", copy_text, dataclasses.replace(TRAINING, label_smoothing=0.0))
    assert "smoothed_loss" not in rows[0]
    config = dataclasses.replace(TRAINING, label_smoothing=0.2)
    _, losses, rows, _ = _one_device(tmp_path / "smooth", copy_text, config)
    assert losses[0] == pytest.approx(plain[0], rel=1e-5) and rows[0]["smoothed_loss"] > losses[0] * 1.001
    assert rows[0]["perplexity"] == pytest.approx(np.exp(losses[0]), rel=1e-4)


@pytest.mark.slow
def test_the_best_and_the_patience_begin_anew_when_something_else_is_measured(tmp_path, copy_text):
    config = dataclasses.replace(TRAINING, patience=3, best_metric="dev_bleu")

    def run(max_steps, measured, values, before=None):
        trainer = _trainer(dataclasses.replace(config, max_steps=max_steps), tf.distribute.get_strategy())
        text = _text(copy_text, 1)
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        trainer.measured = {"dev": measured}
        restored = trainer.restore(checkpoints, text.plan.fingerprint, False, {"dev": measured}, before or {})
        best_after_restore = trainer.best
        has_mark = (tmp_path / "checkpoints" / "best.json").exists()
        summaries = Summaries(tmp_path, trainer.step)
        evaluate = lambda step: Evaluation({"dev_bleu": values[step]}, "")  # noqa: E731
        trainer.train(Feed(text, trainer.workers), checkpoints, summaries, evaluate, lambda line: None)
        return trainer, restored, best_after_restore, has_mark, checkpoints.best_step()

    run(6, "old dev", {3: 96.0, 6: 95.0})
    trainer, restored, best, has_mark, _ = run(6, "old dev", {})
    assert restored and (best, has_mark, bool(trainer.new_measures), trainer.evaluations_since_best) == (
        96.0,
        True,
        False,
        1,
    )
    trainer, _, best, has_mark, best_step = run(12, "new dev", {6: 3.0, 9: 5.0, 12: 7.0})
    assert (best, has_mark, trainer.new_measures, best_step) == (None, False, ["dev"], 12)
    assert trainer.best == 7.0 and trainer.step == 12 and trainer.evaluations_since_best == 0
    trainer, _, best, _, _ = run(12, "new dev", {})
    assert best == 7.0 and not trainer.new_measures


@pytest.mark.slow
def test_mirrored_gives_the_losses_of_one_device(tmp_path, copy_text):
    """Equal global batches, clipping on, two replicas with two micro-batches each against one device with four."""
    _, one, _, _ = _one_device(
        tmp_path / "one", copy_text, dataclasses.replace(TRAINING, accumulation_steps=4), slices=4
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = _trainer(dataclasses.replace(TRAINING, accumulation_steps=2), strategy)
    _, two, rows, _ = _run(tmp_path / "two", trainer, _text(copy_text, 4))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert one[-1] < one[0] and rows[0]["gradient_norm"] > TRAINING.clip_norm
    assert trainer.best == pytest.approx(1 / 6)  # the dev loss of the last step, shared between the replicas


def test_a_strategy_of_one_device_trains_wide_models(copy_text):
    losses = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        trainer = _trainer(TRAINING, strategy, dataclasses.replace(MODEL, d_model=256))  # as wide as is compiled
        step, batches = _start(trainer, _text(copy_text, 1))
        step(next(batches))
        losses.append(trainer._log_row()["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_gradients_that_are_sent_in_bfloat16_are_off_by_its_rounding(copy_text):
    """Two to the -9 of each number at most, once for what is sent and once for the sum, so 0.39% of their norm."""
    gradients = {}
    for kind in ("float32", "bfloat16"):
        tf.distribute.MirroredStrategy._collective_key_base += 1000  # as `training.cluster` does
        config = dataclasses.replace(TRAINING, reduction_dtype=kind)
        trainer = _trainer(config, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
        tf.distribute.MirroredStrategy._collective_key_base += 1000
        step, batches = _start(trainer, _text(copy_text, 2))
        strategy = trainer.workers.strategy
        found = strategy.run(lambda batch: step._replica_gradients(batch, tf.constant(0))[0], args=(next(batches),))
        whole = [strategy.experimental_local_results(each)[0].numpy().ravel() for each in found]
        gradients[kind] = np.concatenate(whole)
    error = np.linalg.norm(gradients["bfloat16"] - gradients["float32"]) / np.linalg.norm(gradients["float32"])
    assert 1e-4 < error < 2.0**-8, error


def test_gradients_are_sent_once_a_step(copy_text, monkeypatch):
    sent, real = [], tf.distribute.ReplicaContext.all_reduce

    def all_reduce(context, operation, values, *options):
        sent.append(len(tf.nest.flatten(values)))
        return real(context, operation, values, *options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", all_reduce)
    trainer = _trainer(TRAINING, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    step, batches = _start(trainer, _text(copy_text, 2))
    step(next(batches))
    many = [count for count in sent if count > 3]
    assert len(many) == 2  # once for each replica, traced once
    assert many[0] >= len(trainer.model.trainable_variables)


@pytest.mark.slow
def test_accumulation_changes_no_loss(tmp_path, copy_text):
    losses = [
        _one_device(tmp_path / str(parts), copy_text, dataclasses.replace(TRAINING, accumulation_steps=parts))[1]
        for parts in (1, 2)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_parts_of_a_step_are_taken_by_one_loop(copy_text):
    """So that one part's activations are there at a time, and many parts take no longer to trace."""
    sizes = []
    for parts in (2, 4):
        trainer = _trainer(dataclasses.replace(TRAINING, accumulation_steps=parts), tf.distribute.get_strategy())
        step, batches = _start(trainer, _text(copy_text, 4))
        graph = step._compiled.get_concrete_function(next(batches), tf.constant(True)).graph.as_graph_def()
        sizes.append(len(graph.node) + sum(len(function.node_def) for function in graph.library.function))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("rows", [8, None])
def test_a_part_of_rows_whose_number_is_static_has_such_a_number(rows):
    shapes = []

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([rows, 3])])
    def run(leaf):
        def body(number, total):
            part = part_of(leaf, number, 2)
            shapes.append(part.shape.as_list())
            return number + 1, total + tf.cast(number, tf.float32) * tf.reduce_sum(part)

        return tf.while_loop(lambda number, _: number < 2, body, (0, 0.0))[1]

    leaf = tf.reshape(tf.range(24.0), [8, 3])
    assert float(run(leaf)) == float(tf.reduce_sum(leaf[4:])) and shapes == [[rows and 4, 3]]


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_resuming_gives_the_losses_of_an_uninterrupted_run(tmp_path, copy_text, precision):
    import keras

    keras.config.set_dtype_policy(precision)
    model = dataclasses.replace(MODEL, input_dropout_rate=0.2, output_dropout_rate=0.2, state_dropout_rate=0.2)
    config = dataclasses.replace(TRAINING, precision=precision)
    _, whole, whole_rows, _ = _one_device(tmp_path / "whole", copy_text, config, model_config=model)
    short = dataclasses.replace(config, max_steps=4)
    _one_device(tmp_path / "parts", copy_text, short, model_config=model)
    _, parts, rows, _ = _one_device(tmp_path / "parts", copy_text, config, model_config=model)
    assert parts == whole
    assert [row["step"] for row in rows if "learning_rate" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["learning_rate"] for row in rows if "learning_rate" in row] == [
        row["learning_rate"] for row in whole_rows if "learning_rate" in row
    ]


@pytest.mark.slow
@pytest.mark.parametrize("case", ("one_device", "mirrored", pytest.param("compiled", marks=pytest.mark.slow)))
def test_the_moving_average_follows_the_weights(case, copy_text):
    """Against NumPy, update by update; `compiled` is wide enough to be one kernel with the optimizer's."""
    config = dataclasses.replace(TRAINING, ema_decay=0.3)
    strategy = tf.distribute.get_strategy()
    model_config = dataclasses.replace(MODEL, d_model=256 if case == "compiled" else 8)
    text = _text(copy_text, 2)
    if case == "mirrored":
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = _trainer(config, strategy, model_config)
    weights = trainer.model.trainable_variables
    step, batches = _start(trainer, text)
    expected = [np.array(tf.convert_to_tensor(average)) for average in step.averages]
    for update in range(1, 4):
        step(next(batches))
        decay = min(0.3, (1 + update) / (10 + update))
        now = [np.array(tf.convert_to_tensor(weight.value)) for weight in weights]
        expected = [decay * average + (1 - decay) * weight for average, weight in zip(expected, now)]
        for average, own in zip(step.averages, expected, strict=True):
            np.testing.assert_allclose(tf.convert_to_tensor(average), own, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(expected, now)) > 1e-4


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, copy_text):
    trainer = _trainer(TRAINING, tf.distribute.get_strategy())
    step, batches = _start(trainer, _text(copy_text, 1))
    kernel = trainer.model.decoder.combine.kernel
    good = kernel.numpy()
    kernel.assign(np.full_like(good, np.nan))
    before = [v.numpy() for v in step.optimizer.variables]
    step(next(batches))
    for variable, value in zip(step.optimizer.variables, before):
        np.testing.assert_array_equal(variable, value)
    assert step.skipped.numpy() == 1 and step.optimizer.iterations.numpy() == 0
    assert step.non_finite_in_a_row.numpy() == 1
    assert set(trainer._log_row()) == {
        "learning_rate",
        "target_tokens",
        "target_tokens_per_s",
        "skipped_steps",
        "restarts",
    }
    kernel.assign(good)
    step(next(batches))
    assert step.skipped.numpy() == 1 and step.optimizer.iterations.numpy() == 1
    assert step.steps.numpy() == 2 and step.non_finite_in_a_row.numpy() == 0


def test_the_loss_scale_halves_after_an_overflow(copy_text):
    config = dataclasses.replace(TRAINING, precision="mixed_float16")
    step = _trainer(config, tf.distribute.get_strategy()).train_step
    first = float(step.loss_scale.numpy())
    step._update_loss_scale(tf.constant(False), tf.constant(True))
    assert float(step.loss_scale.numpy()) == first / 2
    step.finite_steps.assign(1999)
    step._update_loss_scale(tf.constant(True), tf.constant(True))
    assert float(step.loss_scale.numpy()) == first and step.finite_steps.numpy() == 0
    step._update_loss_scale(tf.constant(False), tf.constant(False))
    assert float(step.loss_scale.numpy()) == first  # a step that is not applied


def test_training_stops_when_the_best_metric_stands_still(tmp_path, copy_text):
    config = dataclasses.replace(TRAINING, max_steps=50, evaluate_every=1, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.25, 9.0])
    text = _text(copy_text, 1)
    trainer = _trainer(config, tf.distribute.get_strategy())
    reason, _, _, _ = _run(tmp_path, trainer, text, lambda step: Evaluation({"dev_loss": next(losses)}, ""))
    assert reason == "dev_loss has not improved for 2 evaluations" and trainer.step == 4
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.best_step() == 2 and checkpoints.steps()[-1] == 4


def test_rows_of_the_log_hold_what_scripts_rely_on(tmp_path, copy_text):
    reason, _, rows, lines = _one_device(tmp_path, copy_text, TRAINING, slices=1)
    assert reason == "max_steps=6 reached"
    assert set(rows[0]) == {
        "step",
        "loss",
        "smoothed_loss",
        "perplexity",
        "token_accuracy",
        "learning_rate",
        "gradient_norm",
        "target_tokens",
        "target_tokens_per_s",
        "padding_share",
        "skipped_steps",
        "restarts",
    }
    assert rows[0]["learning_rate"] == pytest.approx(1e-2) and 0 <= rows[0]["padding_share"] < 0.5
    assert any(line.startswith("step 1/6  loss") for line in lines)


def test_every_fires_at_multiples_and_at_the_end():
    assert [step for step in range(1, 8) if Every(7)(3, step)] == [3, 6, 7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"attention": "luong_general"}, marks=pytest.mark.slow),
        {"attention": "bahdanau", "input_feeding": True},
    ],
    ids=str,
)
def test_it_learns_to_copy(copy_text, fields):
    config = dataclasses.replace(
        TRAINING, batch_tokens=1024, schedule="luong_halving", label_smoothing=0.0, max_steps=400
    )
    model = ModelConfig(
        d_model=48,
        num_encoder_layers=1,
        num_decoder_layers=1,
        input_dropout_rate=0.0,
        output_dropout_rate=0.0,
        **fields,
    )
    text = _text(copy_text, 1, batch_tokens=1024)
    strategy = tf.distribute.get_strategy()
    trainer = Trainer(build_seq2seq(model, 260, 260), config, Workers(strategy))
    step, batches = _start(trainer, text)
    accuracy = 0.0
    while accuracy <= 0.99 and step.steps.numpy() < config.max_steps:
        for _ in range(40):
            step(next(batches))
        batch = next(batches)
        hidden, _ = trainer.model(batch.source_ids, batch.target_input_ids)
        predicted = tf.argmax(trainer.model.project(hidden), -1, output_type=tf.int32)
        real = batch.target_output_ids.numpy() > 0
        accuracy = (predicted.numpy() == batch.target_output_ids.numpy())[real].mean()
    assert accuracy > 0.99
    assert (batch.target_output_ids.numpy() == EOS_ID).any()


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_process(tmp_path, copy_text, monkeypatch):
    """multi_worker over loopback by TF_CONFIG, through the train job itself."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    arguments = worker_arguments(copy_text, tmp_path, 4)
    assert train.main([*arguments, f"--run_dir={tmp_path}/one", "--config.training.accumulation_steps=2"]) == 0
    for process in start_workers([*arguments, f"--run_dir={tmp_path}/two"]):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    losses = [losses_of(tmp_path / name) for name in ("one", "two")]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_workers_of_different_configurations_do_not_begin(tmp_path, copy_text):
    arguments = [*worker_arguments(copy_text, tmp_path, 4), f"--run_dir={tmp_path}/two"]
    for process in start_workers(arguments, of_last=[*arguments, "--config.training.learning_rate=0.5"]):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2 and "Traceback" not in errors
        assert "training.learning_rate 0.5 and 0.01; start all workers with one command" in errors
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
def test_workers_of_different_text_do_not_begin(tmp_path, copy_text):
    other = shutil.copytree(copy_text, tmp_path / "text")
    (other / "dev.tgt").write_text("a b c\n" * 24, encoding="utf-8")
    arguments, others = (
        [*worker_arguments(text, tmp_path, 4), f"--run_dir={tmp_path}/two"] for text in (copy_text, other)
    )
    for process in start_workers(arguments, of_last=others):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2 and "Traceback" not in errors, errors
        assert (
            "Worker 1 (127.0.0.1:" in errors and "has another text in " in errors and "dev.tgt than worker 0" in errors
        )


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_worker_that_is_lost_ends_the_others_and_all_go_on(tmp_path, copy_text, how):
    arguments = [
        argument.replace("checkpoint_every=400", "checkpoint_every=20")
        for argument in worker_arguments(copy_text, tmp_path, 400)
    ]
    processes, log = start_workers([*arguments, f"--run_dir={tmp_path}/two"]), tmp_path / "two" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count('"loss"') > 30) and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(how)
    started = time.monotonic()
    _, errors = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 75 and "Traceback" not in errors, errors
    assert "worker 1 (127.0.0.1:" in errors and "stopped or cannot be reached" in errors
    assert time.monotonic() - started < 60
    processes[1].kill()
    processes[1].communicate()
    more = [argument.replace("max_steps=400", "max_steps=60") for argument in arguments]
    for name in ("two", "whole"):
        for process in start_workers([*more, f"--run_dir={tmp_path}/{name}"]):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    cards = [json.loads((tmp_path / name / "run_card.json").read_text()) for name in ("two", "whole")]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]


@pytest.mark.slow
def test_a_worker_that_is_stopped_stops_all_and_they_go_on(tmp_path, copy_text):
    """The signal reaches the worker that keeps no files; both save at the same step."""
    arguments = worker_arguments(copy_text, tmp_path, 60)
    assert train.main([*arguments, f"--run_dir={tmp_path}/one", "--config.training.accumulation_steps=2"]) == 0
    arguments += [f"--run_dir={tmp_path}/two"]
    processes, log = start_workers(arguments), tmp_path / "two" / "metrics.jsonl"
    while not (log.exists() and '"loss"' in log.read_text()) and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    for process, reason in zip(processes, ("another worker was stopped", "stopped by SIGTERM")):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 75 and f"{reason} at step " in errors, errors
    [step] = [path.name for path in (tmp_path / "two" / "checkpoints").glob("step-*[1-9]*")]
    assert int(step[5:]) % 10 == 0
    for process in start_workers(arguments):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0 and f"resuming at step {int(step[5:])}" in errors, errors
    np.testing.assert_allclose(losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), rtol=2e-4)


@pytest.mark.parametrize(
    "optimizer, replicas", [("adam", 1), ("sgd", 1), pytest.param("adam", 2, marks=pytest.mark.slow)]
)
def test_distributions_have_the_norms_of_gradients_by_layer_where_the_optimizer_keeps_gradients(
    copy_text, optimizer, replicas
):
    config = dataclasses.replace(TRAINING, optimizer=optimizer)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    trainer = _trainer(config, strategy)
    step, batches = _start(trainer, _text(copy_text, replicas))
    step(next(batches))
    found = dict(step.distributions())
    weights = {weight.path: weight for weight in trainer.model.trainable_variables}
    assert {name.removeprefix("weights/") for name in found if name.startswith("weights/")} == set(weights)
    norms = {name.removeprefix("gradient_norms/"): value for name, value in found.items() if "gradient_norms/" in name}
    if optimizer == "sgd":
        assert not norms
        return
    assert set(norms) == {path.rpartition("/")[0] for path, weight in weights.items() if weight.ndim > 1}
    for layer, values in norms.items():
        gradients = [
            found[f"gradients/{path}"]
            for path, weight in weights.items()
            if weight.ndim > 1
            if path.rpartition("/")[0] == layer
        ]
        assert values.size == sum(gradient.shape[-1] for gradient in gradients)
        np.testing.assert_allclose(np.sum(values**2), sum(np.sum(g.astype(float) ** 2) for g in gradients), rtol=1e-4)
    assert any(values.max() > 0 for values in norms.values())

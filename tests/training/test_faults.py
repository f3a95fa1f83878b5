"""What training does when it is stopped, when its numbers go bad, when memory runs out."""

import collections
import dataclasses
import json
import shutil
import tempfile
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.data.batch_plan import BatchPlan
from nmt_keras.data.batching import TrainingText
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.errors import Failure, Stopped, UserError
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.tokenizers.characters import ByteTokenizer
from nmt_keras.training import asynchronous
from nmt_keras.training.asynchronous import AsynchronousStep
from nmt_keras.training.checkpoints import Checkpoints, weights_sha256
from nmt_keras.training.feed import Feed
from nmt_keras.training.non_finite_steps import NonFiniteSteps
from nmt_keras.training.rendezvous import Cluster
from nmt_keras.training.stopping import StopRequest
from nmt_keras.training.summaries import Summaries
from nmt_keras.training.trainer import Evaluation, Trainer
from nmt_keras.training.workers import Workers

STEPS = 8
TRAINING = TrainingConfig(
    max_steps=STEPS,
    batch_tokens=256,
    learning_rate=1e-2,
    schedule="inverse_sqrt",
    warmup_steps=3,
    log_every=1,
    evaluate_every=4,
    checkpoint_every=3,
    max_bad_steps=2,
    best_metric="dev_loss",
    ema_decay=0.5,
)
MODEL = ModelConfig(
    d_model=8, num_encoder_layers=1, num_decoder_layers=1, input_dropout_rate=0.2, state_dropout_rate=0.2
)


class Run:
    """A run directory that is trained in by one trainer after the other, as jobs would."""

    def __init__(self, folder, copy_text):
        self.folder = folder
        cache = str(copy_text / "cache")
        corpus = ParallelCorpus(*([TextFile(str(copy_text / f"train.{side}"), cache)] for side in ("src", "tgt")))
        lengths = [[np.array([len(line) + 1 for line in side])] for side in corpus.text()]
        limits = {"max_source_length": 32, "max_target_length": 32}
        self.plan = BatchPlan(*lengths, seed=1, batch_tokens=256, **limits)
        self.text = TrainingText(self.plan, corpus, ByteTokenizer(), ByteTokenizer(), **limits)
        self.lines = []

    def trainer(self, config=TRAINING):
        """One that goes on from what is there."""
        model = build_seq2seq(MODEL, 260, 260)
        rng = np.random.default_rng(2)
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape) * 0.3)
        return Trainer(
            model,
            config,
            Workers(tf.distribute.get_strategy()),
            NonFiniteSteps(self.folder / "bad", 0, self.lines.append),
        )

    def train(self, trainer=None, stop=None, evaluate=None):
        """Trains until it ends; returns the trainer and why it ended."""
        trainer = trainer or self.trainer()
        checkpoints = Checkpoints(
            self.folder / "checkpoints", trainer.config.keep_checkpoints, report=self.lines.append
        )
        trainer.restore(checkpoints, self.plan.fingerprint)
        summaries = Summaries(self.folder, trainer.step, trainer.owes_evaluation)
        evaluate = evaluate or (lambda step: Evaluation({"dev_loss": abs(step - 4.5)}, ""))
        feed = Feed(self.text, trainer.workers)
        return trainer, trainer.train(feed, checkpoints, summaries, evaluate, self.lines.append, stop)

    def rows(self):
        """What was logged, but speeds."""
        lines = (self.folder / "metrics.jsonl").read_text().split("\n")[:-1]
        return [{k: v for k, v in json.loads(line).items() if k != "target_tokens_per_s"} for line in lines]

    def curve(self, tag):
        """The points that TensorBoard shows.

        It reads files by their names, which end with the second and TensorFlow's count of writers: of one second, the
        tenth comes before the ninth. No training is stopped and begun again within a second, but here.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = sorted((self.folder / "summaries").glob("events.*"))
            in_order = sorted(paths, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
            for number, path in enumerate(in_order):
                shutil.copy(path, f"{folder}/events.out.tfevents.{number:010}")
            events = plugin_event_accumulator.EventAccumulator(folder)
            events.Reload()
        return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]


@pytest.fixture
def run(tmp_path, copy_text):
    return Run(tmp_path / "run", copy_text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, copy_text):
    """A run that nothing disturbed: its rows, its curve, the hash of its weights."""
    run = Run(tmp_path_factory.mktemp("whole"), copy_text)
    trainer, _ = run.train()
    return run.rows(), run.curve("train/loss"), weights_sha256(trainer.model)


def _assert_is_whole(run, trainer, whole):
    rows, curve, digest = whole
    assert run.rows() == rows and len(rows) == STEPS + 2
    assert run.curve("train/loss") == curve and [step for step, _ in curve] == list(range(1, STEPS + 1))
    assert [step for step, _ in run.curve("dev/loss")] == [4, 8]
    assert weights_sha256(trainer.model) == digest


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_as_if_it_had_not(run, whole):
    """Asked in a step that nothing else saves; the state is that after the step."""
    first, stop = run.trainer(), StopRequest()
    take = first.train_step.__call__

    class Stopping:
        def __getattr__(self, name):
            return getattr(first.__dict__["_real"], name)

        def __call__(self, batch, apply=True):
            take(batch, apply)
            if first.step == 4:
                stop.request("stopped by SIGTERM")

    first._real, first.train_step = first.train_step, Stopping()
    _, reason = run.train(first, stop)
    assert reason == "stopped by SIGTERM at step 5, which is saved" and first.is_stopped
    assert Checkpoints(run.folder / "checkpoints").steps() == [3, 4, 5]
    second, reason = run.train()
    assert reason == "max_steps=8 reached" and not second.is_stopped
    _assert_is_whole(run, second, whole)


@pytest.mark.slow
def test_a_stop_interrupts_an_evaluation_which_comes_again(run, whole):
    stop, real = StopRequest(), lambda step: Evaluation({"dev_loss": abs(step - 4.5)}, "")

    def evaluate(step):
        stop.request("stopped by SIGINT")
        raise AssertionError("it was not interrupted")

    first, reason = run.train(stop=stop, evaluate=evaluate)
    assert reason == "stopped by SIGINT at step 4, which is saved" and first.owes_evaluation
    assert [row["step"] for row in run.rows()] == [1, 2, 3, 4]
    _, reason = run.train(stop=(again := StopRequest()), evaluate=lambda step: again.request("once more"))
    assert reason == "once more at step 4, which is saved"

    def killed(step):
        if step == 4:
            return real(step)
        raise Stopped("as if killed")

    class Killed(BaseException):
        pass

    third = run.trainer()
    save = third.save
    third.save = lambda *args, replace=False: (_ for _ in ()).throw(Killed()) if replace else save(*args)
    with pytest.raises(Killed):  # after the evaluation was logged, before that was saved
        run.train(third, evaluate=killed)
    last, _ = run.train()
    _assert_is_whole(run, last, whole)
    checkpoints = Checkpoints(run.folder / "checkpoints")
    assert checkpoints.best_step() == 4 and not list(checkpoints.folder.glob(".*"))


def test_a_request_that_may_interrupt_does():
    stop = StopRequest()
    stop.interrupts = True
    with pytest.raises(Stopped, match="^stopped by SIGTERM$"):
        stop.request("stopped by SIGTERM")
    assert not issubclass(Stopped, Exception)


def _poison(monkeypatch, trainer, steps, below):
    """Makes the loss of some steps NaN, as long as there were fewer restarts than `below`."""
    step = trainer.train_step
    real = step.loss

    class Poisoned:
        names, name_of_minimised = real.names, real.name_of_minimised

        def __call__(self, *args):
            return _spoiled(real(*args))

    def _spoiled(sums):
        now = tf.convert_to_tensor(step.steps)
        bad = tf.reduce_any(now == tf.constant(list(steps), tf.int64)) & (tf.convert_to_tensor(step.restarts) < below)
        return sums._replace(loss=tf.where(bad, np.nan, sums.loss))

    monkeypatch.setattr(step, "loss", Poisoned())


def test_a_bad_step_is_skipped_counted_and_kept_with_the_weights_before_it(run, monkeypatch):
    trainer = run.trainer(dataclasses.replace(TRAINING, max_steps=5))
    _poison(monkeypatch, trainer, [3], 1)
    before = {}

    class Watching:
        def __getattr__(self, name):
            return getattr(trainer.__dict__["_real"], name)

        def __call__(self, batch, apply=True):
            if trainer.step == 3:
                before.update((v.path, v.numpy()) for v in trainer.model.variables)
                before["batch"] = batch
            trainer.__dict__["_real"](batch, apply)

    trainer._real, trainer.train_step = trainer.train_step, Watching()
    trainer, _ = run.train(trainer)
    assert (trainer.restarts, run.rows()[-2]["skipped_steps"]) == (0, 1.0)
    assert run.rows()[3] == {
        "step": 4,
        "learning_rate": run.rows()[3]["learning_rate"],
        "target_tokens": 0.0,
        "skipped_steps": 1.0,
        "restarts": 0.0,
    }
    [line] = [line for line in run.lines if line.startswith("warning: ")]
    assert line.startswith("warning: step 4 is skipped: its loss is nan and the norm of its gradient 0.0; kept in ")
    dumps = NonFiniteSteps(run.folder / "bad")
    assert dumps.names() == ["step-00000004-restart-0"]
    bad, worker = dumps.read()
    assert (bad.step, bad.restarts, bad.seed, bad.accumulation_steps, bad.in_a_row, worker) == (4, 0, 1, 1, 1, 0)
    assert np.isnan(bad.loss)
    batch = before.pop("batch")
    for mine, kept in zip(batch, bad.slices[0], strict=True):
        np.testing.assert_array_equal(mine, kept)
    assert bad.weights.keys() == before.keys()
    for path, weights in bad.weights.items():
        np.testing.assert_array_equal(weights, before[path])


def test_after_too_many_bad_steps_the_last_good_checkpoint_is_taken_with_other_seeds(run, monkeypatch, whole):
    trainer = run.trainer()
    _poison(monkeypatch, trainer, [5, 6], 1)  # step 6 is saved in between, and is not good
    trainer, reason = run.train(trainer)
    assert reason == "max_steps=8 reached" and trainer.restarts == 1
    [line] = [line for line in run.lines if "restart 1 of 3" in line]
    assert "2 steps in a row up to step 7 had a loss or gradient that is not finite; going on from step 4" in line
    assert "step-00000006-restart-0, step-00000007-restart-0" in line
    rows, before = run.rows(), whole[0]
    assert [row["step"] for row in rows] == [row["step"] for row in before]
    assert rows[:5] == before[:5] and rows[5]["loss"] != before[5]["loss"]
    assert rows[5]["learning_rate"] == pytest.approx(before[5]["learning_rate"] / 2)
    assert [step for step, _ in run.curve("train/loss")] == list(range(1, STEPS + 1))
    orders = [[run.plan.batch(0, i, restarts).lines.tolist() for i in range(5)] for restarts in (0, 1, 2)]
    assert orders[0] != orders[1] != orders[2]
    again = run.trainer(dataclasses.replace(TRAINING, max_steps=STEPS + 1))
    again, _ = run.train(again)
    assert again.restarts == 1 and run.rows()[-2]["learning_rate"] < before[-2]["learning_rate"]


@pytest.mark.slow
def test_training_that_stays_bad_ends_and_names_its_dumps(run, monkeypatch):
    trainer = run.trainer()
    _poison(monkeypatch, trainer, range(2, 9), 9)
    with pytest.raises(Failure) as caught:
        run.train(trainer)
    message = str(caught.value)
    assert message.startswith(
        "2 steps in a row up to step 4 had a loss or gradient that is not finite, after 3 restarts"
    )
    names = [f"step-0000000{step}-restart-{restart}" for restart in range(4) for step in (3, 4)]
    assert names == NonFiniteSteps(run.folder / "bad").names() and all(name in message for name in names)
    assert "python -m pipelines.replay --run_dir=" in message
    assert Checkpoints(run.folder / "checkpoints").steps() == [0, 3]  # where a restart begins, and the latest


@pytest.mark.slow
def test_an_overflow_that_a_smaller_scale_mends_is_no_bad_step(run, monkeypatch):
    """Under float16 a gradient that overflows halves the loss scale; a loss that is not finite is bad at once."""
    config = dataclasses.replace(TRAINING, precision="mixed_float16")
    trainer = run.trainer(config)
    step = trainer.train_step
    batches = Feed(run.text, trainer.workers).start(0, 0)
    real = tf.linalg.global_norm
    monkeypatch.setattr(tf.linalg, "global_norm", lambda gradients: real(gradients) * np.inf)
    step.compile(batches.element_spec)
    step(next(batches))
    assert (step.skipped.numpy(), step.non_finite_in_a_row.numpy(), step.loss_scale.numpy()) == (1, 0, 2.0**14)
    step.loss_scale.assign(1.0)
    step(next(batches))
    assert (step.skipped.numpy(), step.non_finite_in_a_row.numpy()) == (2, 1)


@pytest.mark.slow
def test_a_device_without_memory_ends_the_run_with_its_state_saved(run, whole):
    first = run.trainer()

    class Failing:
        def __getattr__(self, name):
            return getattr(first.__dict__["_real"], name)

        def __call__(self, batch, apply=True):
            if first.step == 5:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            first.__dict__["_real"](batch, apply)

    first._real, first.train_step = first.train_step, Failing()
    with pytest.raises(UserError) as caught:
        run.train(first)
    bucket = run.plan.batch(*divmod(5, run.plan.num_batches)).bucket
    assert str(caught.value) == (
        f"The device ran out of memory at step 6, in the bucket of up to {bucket.source_length} source and "
        f"{bucket.target_length} target ids, {bucket.largest_batch} sentences; what it had learned is saved as step 5. "
        "Go on with a smaller --config.training.batch_tokens (it is 256) or more "
        "--config.training.accumulation_steps (it is 1), and --allow_config_change"
    )
    second, _ = run.train()
    _assert_is_whole(run, second, whole)


class _WithoutMemory:
    """A step whose state is whole, and which has no memory for the next batch."""

    def __init__(self, step):
        self._step = step

    def __getattr__(self, name):
        return getattr(self._step, name)

    def __call__(self, batch, apply=True):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.parametrize("number", [0, 1], ids=["chief", "other"])
def test_a_worker_of_several_without_memory_neither_saves_nor_says_so(run, number):
    """A save is one of all: the chief would wait in it, and the others write no files."""
    trainer = run.trainer()
    trainer.workers = Workers(tf.distribute.get_strategy(), Cluster(("a:1", "b:2"), number))
    trainer.train_step = _WithoutMemory(trainer.train_step)
    checkpoints = types.SimpleNamespace(save=pytest.fail)
    with pytest.raises(UserError, match="at step 1, in the bucket .*; the latest checkpoint is intact. Go on with"):
        trainer._take_step(iter([None]), Feed(run.text, Workers(tf.distribute.get_strategy())), checkpoints)


class _Coordinator:
    """Hands steps to nobody; a step's result is what `fetch` of it gives, and `schedule` raises what failed."""

    def __init__(self, failing, raises_at=None):
        self.failing, self.raises_at = failing, raises_at

    def schedule(self, function, args):
        step = int(args[1])
        if step == self.raises_at:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return types.SimpleNamespace(fetch=lambda: self._fetch(step))

    def _fetch(self, step):
        if step == self.failing:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return types.SimpleNamespace(is_non_finite=False), 0


@pytest.mark.parametrize(
    "coordinator, waits, told",
    [
        (_Coordinator(failing=2), False, "at step 3, {bucket}"),
        (_Coordinator(failing=2), True, "at step 3, {bucket}"),
        (_Coordinator(failing=None, raises_at=5), False, "at one of the steps 3 to 5"),
    ],
    ids=["where there is no room", "where all is waited for", "where another is handed out"],
)
def test_a_step_that_fails_after_others_were_handed_out_is_named(run, monkeypatch, coordinator, waits, told):
    trainer = run.trainer()
    variables = trainer.train_step.__dict__
    step = trainer.train_step = AsynchronousStep.__new__(AsynchronousStep)
    step.__dict__.update(variables, _coordinator=coordinator, _compiled=print, _pending=collections.deque(), _most=4)
    step.__dict__.update(_next=0, failed=range(0), _ages=[], _makers=set())
    monkeypatch.setattr(asynchronous, "_maker_of", lambda result: "a worker")
    feed = Feed(run.text, Workers(tf.distribute.get_strategy()))
    told = told.format(bucket=feed.describe(2, 0))
    with pytest.raises(UserError, match=f"^The device ran out of memory {told}; the latest checkpoint is intact. Go"):
        with trainer._explaining_late_failures(feed):
            for _ in range(4 if waits else 8):
                trainer._take_step(iter([None]), feed, types.SimpleNamespace(save=pytest.fail))
            step.wait()


def test_a_step_that_failed_half_way_is_not_saved(run):
    """The optimizer had begun: the state is that of no step."""
    trainer = run.trainer()
    assert trainer.train_step.is_between_steps()
    trainer.train_step.begun.assign(1)
    assert not trainer.train_step.is_between_steps()
    trainer.train_step.steps.assign(1)
    assert trainer.train_step.is_between_steps()


def test_the_loss_scale_is_one_of_the_precision(run):
    """Also where a run goes on in another one."""
    for precision, before, after in (("float32", 8192.0, 1.0), ("mixed_float16", 1.0, 2.0**15)):
        step = run.trainer(dataclasses.replace(TRAINING, precision=precision)).train_step
        step.loss_scale.assign(before)
        step.settle()
        assert step.loss_scale.numpy() == after


@pytest.mark.slow
def test_a_restart_that_meets_the_same_at_once_goes_back_further(run, monkeypatch):
    """The latest checkpoint was saved after the update that broke the weights."""
    trainer = run.trainer(dataclasses.replace(TRAINING, checkpoint_every=1))
    _poison(monkeypatch, trainer, range(4, 9), 2)
    trainer, reason = run.train(trainer)
    assert reason == "max_steps=8 reached" and trainer.restarts == 2
    first, second = [line for line in run.lines if " of 3)" in line]
    assert "going on from step 4 " in first and "going on from step 3 " in second


@pytest.mark.slow
def test_a_good_step_ends_a_row_of_bad_ones_also_of_an_earlier_job(run, monkeypatch):
    trainer = run.trainer(dataclasses.replace(TRAINING, max_steps=2, max_bad_steps=3))
    _poison(monkeypatch, trainer, [0, 1], 1)
    run.train(trainer)
    monkeypatch.undo()
    trainer, _ = run.train(run.trainer(dataclasses.replace(TRAINING, max_steps=3, max_bad_steps=2)))
    assert trainer.restarts == 0 and trainer.step == 3


@pytest.mark.slow
def test_another_plan_is_refused_unless_it_is_allowed(run):
    run.train(run.trainer(dataclasses.replace(TRAINING, max_steps=1)))
    checkpoints = Checkpoints(run.folder / "checkpoints")
    with pytest.raises(UserError, match="^The checkpoint of step 1 in .* was made with other batches than are planned"):
        run.trainer().restore(checkpoints, "another")
    assert run.trainer().restore(checkpoints, "another", allow_change=True)

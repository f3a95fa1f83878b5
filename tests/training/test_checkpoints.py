"""Checkpoints are whole or absent: round trip, retention, damage, a full disk."""

import errno
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.errors import UserError
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.checkpoints import Checkpoints, Part, by_path
from nmt_keras.training.cluster import SIGNS_OF_LOSS


def _model(**fields):
    config = ModelConfig(**{"d_model": 8, "num_encoder_layers": 2, "num_decoder_layers": 3, **fields})
    return build_seq2seq(config, 11, 13)


def _fill(model, seed):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))


def _small(value=0.0):
    return tf.train.Checkpoint(model={"a": tf.Variable([value, 2.0])}, steps=tf.Variable(3))


def _value(objects):
    return float(objects.model["a"][0])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def saved(folder):
    """Checkpoints of steps 10, 20 and 30, with the step as the value; `reports` collects what is said."""
    checkpoints = Checkpoints(folder, keep=3, report=lambda line: checkpoints.reports.append(line))
    checkpoints.reports = []
    for step in (10, 20, 30):
        checkpoints.save(step, _small(step), {"best": step / 2})
    return checkpoints


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input_feeding": True, "share_embeddings": False, "cell": "gru"},
        {"bidirectional": False, "tie_output": True, "attention": "bahdanau"},
    ],
)
def test_every_variable_of_a_model_comes_back(folder, fields):
    """Layers hang in lists of lists, which TensorFlow's own tracking does not see."""
    model, other = _model(**fields), _model(**fields)
    _fill(model, 1)
    _fill(other, 2)
    assert len(by_path(model.variables)) == len(model.variables) > 10
    Checkpoints(folder).save(7, tf.train.Checkpoint(model=by_path(model.variables)), {"best": 1.5})
    manifest = Checkpoints(folder).restore(tf.train.Checkpoint(model=by_path(other.variables)))
    assert manifest["step"] == 7 and manifest["state"] == {"best": 1.5}
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(b.numpy(), a.numpy(), err_msg=a.path)


def test_a_checkpoint_is_three_kinds_of_file_under_the_name_of_its_step(saved, folder):
    assert _names(folder) == ["step-00000010", "step-00000020", "step-00000030"]
    assert _names(folder / "step-00000020") == ["manifest.json", "variables.data-00000-of-00001", "variables.index"]
    manifest = json.loads((folder / "step-00000020" / "manifest.json").read_text())
    assert (manifest["step"], manifest["state"]) == (20, {"best": 10.0})
    assert sorted(manifest["files"]) == ["variables.data-00000-of-00001", "variables.index"]


@pytest.mark.parametrize("which, expected", [("latest", 30), ("10", 10), ("20", 20), ("best", 20)])
def test_latest_best_and_any_step_can_be_restored(saved, which, expected):
    saved.mark_best(20, "dev_bleu", 31.5)
    objects = _small()
    assert saved.restore(objects, which)["step"] == expected
    assert _value(objects) == expected
    assert saved.reports == []


def test_part_of_a_checkpoint_can_be_restored_when_that_is_asked_for(saved):
    part = tf.train.Checkpoint(model={"a": tf.Variable([0.0, 0.0])})
    assert saved.restore(part, "20", partial=True)["step"] == 20
    assert _value(part) == 20
    with pytest.raises(UserError, match="^The checkpoint of step 20 in .* is of another model: "):
        saved.restore(tf.train.Checkpoint(model={"a": tf.Variable([0.0, 0.0])}), "20")


def test_the_best_and_the_latest_are_kept(folder):
    checkpoints = Checkpoints(folder, keep=2)
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(step, _small(step), {})
        if step in (1, 2):
            checkpoints.mark_best(step, "dev_bleu", float(step))
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    checkpoints.mark_best(5, "dev_bleu", 9.0)
    assert checkpoints.steps() == [4, 5]
    assert json.loads((folder / "best.json").read_text()) == {"step": 5, "metric": "dev_bleu", "value": 9.0}


def test_saving_a_step_again_changes_nothing(saved, folder):
    before = (folder / "step-00000020" / "manifest.json").read_bytes()
    saved.save(20, _small(99), {})
    assert (folder / "step-00000020" / "manifest.json").read_bytes() == before


def test_a_worker_that_is_not_the_chief_leaves_no_file(folder):
    Checkpoints(folder, is_chief=False).save(10, _small(1), {})
    Checkpoints(folder, is_chief=False).mark_best(10, "dev_bleu", 1.0)
    assert _names(folder) == []


def _truncate(folder):
    data = folder / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])


def _flip(folder):
    data = folder / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[3] ^= 1
    data.write_bytes(content)


def _set_manifest(content):
    return lambda folder: (folder / "manifest.json").write_bytes(content)


DAMAGES = {
    "truncated data": (_truncate, r"variables\.data-00000-of-00001 does not match its checksum"),
    "flipped bit": (_flip, r"variables\.data-00000-of-00001 does not match its checksum"),
    "missing index": (lambda folder: (folder / "variables.index").unlink(), r"it is incomplete \(.*variables\.index"),
    "missing manifest": (lambda folder: (folder / "manifest.json").unlink(), r"it is incomplete \(.*manifest\.json"),
    "half a manifest": (_set_manifest(b'{"format": 2, "step"'), r"it is incomplete \("),
    "empty manifest": (_set_manifest(b""), r"it is incomplete \("),
    "binary manifest": (_set_manifest(b"\x00\xff\xfe\x80" * 9), r"it is incomplete \("),
    "manifest without files": (_set_manifest(b'{"format": 2, "step": 30}'), r"it is incomplete \("),
    "manifest of a list": (_set_manifest(b"[1]"), r"it is incomplete \("),
    "files of a list": (_set_manifest(b'{"format": 2, "files": ["a"]}'), r"it is incomplete \("),
    "later format": (_set_manifest(b'{"format": 3, "files": {}}'), "its format is 3, this version reads 2"),
}


@pytest.mark.parametrize("damage, problem", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_that_is_said(saved, folder, damage, problem):
    damage(folder / "step-00000030")
    objects = _small()
    assert saved.restore(objects)["step"] == 20
    assert _value(objects) == 20
    (line,) = saved.reports
    assert re.fullmatch(f"checkpoint of step 30 is not used: {problem}.*", line)
    with pytest.raises(
        UserError, match=f"^The checkpoint of step 30 in .* cannot be used: {problem}.*; there are: 10, 20"
    ):
        saved.restore(objects, "30")


def test_when_no_checkpoint_is_intact_that_is_said(saved, folder):
    for step in (10, 20, 30):
        _truncate(folder / f"step-{step:08d}")
    with pytest.raises(
        UserError, match="^No checkpoint in .*checkpoints is intact; start again in a new run directory$"
    ):
        saved.restore(_small())
    assert len(saved.reports) == 3


def test_what_a_killed_save_left_behind_is_ignored(saved, folder):
    (folder / ".tmp-00000040-123").mkdir()
    (folder / ".tmp-00000040-123" / "variables.index").write_bytes(b"half")
    assert saved.steps() == [10, 20, 30]
    assert saved.restore(_small())["step"] == 30
    saved.save(40, _small(40), {})
    assert saved.steps() == [20, 30, 40]


def test_reading_a_run_takes_nothing_from_the_job_that_trains_in_it(saved, folder):
    (folder / ".tmp-00000040-123").mkdir()
    Checkpoints(folder).restore(_small())
    assert (folder / ".tmp-00000040-123").exists()
    Checkpoints(folder, is_chief=False).clean_up()
    assert (folder / ".tmp-00000040-123").exists()
    Checkpoints(folder).clean_up()
    assert _names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


def test_a_checkpoint_is_replaced_as_a_whole(saved, folder):
    saved.save(30, _small(31), {"best": 1}, replace=True)
    objects = _small()
    assert Checkpoints(folder).restore(objects)["state"] == {"best": 1} and _value(objects) == 31
    (folder / "step-00000030").rename(folder / ".replaced-step-00000030")  # killed between two renames
    Checkpoints(folder).clean_up()
    assert Checkpoints(folder).steps() == [10, 20, 30]
    (folder / ".replaced-step-00000030").mkdir()  # killed after them
    Checkpoints(folder).clean_up()
    assert _names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


def test_the_latest_that_is_good_is_kept_and_step_0_only_for_that(folder):
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(0, _small(0), {})
    for step, is_good in ((1, False), (2, False)):
        checkpoints.save(step, _small(step), {"is_good": is_good})
        assert checkpoints.steps() == [0, step]
    objects = _small()
    assert checkpoints.restore(objects, accept=lambda m: m["state"].get("is_good", True))["step"] == 0
    assert checkpoints.restore(objects, accept=lambda manifest: False) is None
    checkpoints.discard_after(0)
    assert checkpoints.steps() == [0]
    checkpoints.save(1, _small(1), {"is_good": True})  # written anew
    assert checkpoints.steps() == [0, 1]
    checkpoints.save(2, _small(2), {"is_good": True})
    assert checkpoints.steps() == [2]


def test_later_checkpoints_and_their_mark_are_discarded(saved, folder):
    saved.mark_best(20, "dev_loss", 1.0)
    saved.discard_after(20)
    assert saved.best_step() == 20
    saved.discard_after(10)
    assert saved.steps() == [10] and not (folder / "best.json").exists()


def test_an_average_leaves_the_start_out(folder):
    checkpoints = Checkpoints(folder)
    for step in (0, 10, 20):
        checkpoints.save(step, _small(step), {"is_good": step < 10})
    assert checkpoints.restore_average({"a": tf.Variable([0.0, 0.0])}, "model", count=3) == [10, 20]


def test_an_incomplete_old_checkpoint_goes_with_the_others(saved, folder):
    (folder / "step-00000005").mkdir()  # what a killed deletion left
    saved.save(40, _small(40), {})
    assert _names(folder) == ["step-00000020", "step-00000030", "step-00000040"]


def test_a_folder_with_the_name_of_a_copy_is_ignored(saved, folder):
    (folder / "step-00000030.old").mkdir()
    assert saved.steps() == [10, 20, 30]


def test_without_a_checkpoint_the_latest_is_none(folder):
    assert Checkpoints(folder).restore(_small()) is None
    assert not folder.exists()
    with pytest.raises(
        UserError, match="^The checkpoint of step 5 in .* cannot be used: there is none; there are: none$"
    ):
        Checkpoints(folder).restore(_small(), "5")


def test_a_step_that_is_missing_is_answered_with_those_there_are(saved):
    with pytest.raises(
        UserError,
        match="^The checkpoint of step 15 in .*checkpoints cannot be used: there is none; there are: 10, 20, 30$",
    ):
        saved.restore(_small(), "15")


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"\xff\xfe", b"3"], ids=["none", "empty", "no step", "binary", "number"]
)
def test_a_missing_or_broken_best_mark_is_explained(saved, folder, content):
    if content is not None:
        (folder / "best.json").write_bytes(content)
    with pytest.raises(
        UserError,
        match="has no best checkpoint: the run has not been evaluated yet; train on, or give --checkpoint=latest$",
    ):
        saved.restore(_small(), "best")


@pytest.mark.parametrize(
    "other", [{"d_model": 10}, {"num_decoder_layers": 2}, {"num_encoder_layers": 3}, {"cell": "gru"}]
)
@pytest.mark.parametrize("which", ["latest", "4"])
def test_a_checkpoint_of_another_model_is_refused(folder, other, which):
    Checkpoints(folder).save(4, tf.train.Checkpoint(model=by_path(_model().variables)), {})
    with pytest.raises(UserError, match="^The checkpoint of step 4 in .*checkpoints is of another model: [^\n]+$"):
        Checkpoints(folder).restore(tf.train.Checkpoint(model=by_path(_model(**other).variables)), which)


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"\[Errno 28\] No space left on device"),
        (tf.errors.ResourceExhaustedError(None, None, "disk; No space left\nmore"), "disk; No space left"),
    ],
    ids=["python", "tensorflow"],
)
def test_a_write_that_fails_leaves_the_earlier_ones_and_no_temporary_folder(saved, folder, monkeypatch, error, text):
    def fail(self, path):
        with open(path + ".index", "wb") as file:
            file.write(b"half")
        raise error

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(
        UserError,
        match=f"^Cannot write the checkpoint of step 40 to .*checkpoints: {text}; earlier "
        "ones are intact, free the disk and run the same command again$",
    ):
        saved.save(40, _small(40), {})
    monkeypatch.undo()
    assert _names(folder) == ["step-00000010", "step-00000020", "step-00000030"]
    objects = _small()
    assert saved.restore(objects)["step"] == 30 and _value(objects) == 30


@pytest.mark.parametrize("sign", SIGNS_OF_LOSS)
@pytest.mark.parametrize("name", ["", "worker-1"], ids=["chief", "other"])
def test_the_loss_of_a_worker_is_no_fault_of_the_disk(saved, folder, sign, name):
    """A save waits for the other workers, so that one that is lost shows there too."""
    error = sign(None, None, "worker 1 is lost")

    def fail():
        raise error

    part = Part(name, [], _small(), fail, lambda: None)
    of_several = Checkpoints(folder, part=part, signs_of_loss=SIGNS_OF_LOSS)
    with pytest.raises(sign) as caught:
        of_several.save(40, _small(40), {})
    assert caught.value is error and not list(folder.glob(".tmp-*")) and saved.steps() == [10, 20, 30]
    with pytest.raises(UserError, match="^Cannot write the checkpoint of step 40"):  # who is alone has lost nobody
        Checkpoints(folder, part=part).save(40, _small(40), {})


def test_an_average_is_of_the_latest_intact_ones(saved, folder):
    variables = {"a": tf.Variable([0.0, 0.0])}
    assert saved.restore_average(variables, "model", count=2) == [20, 30]
    np.testing.assert_array_equal(variables["a"], [25.0, 2.0])
    damaged = next((folder / "step-00000020").glob("variables.data*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    fresh = Checkpoints(folder, report=saved.reports.append)
    assert fresh.restore_average(variables, "model", count=3) == [10, 30]
    np.testing.assert_array_equal(variables["a"], [20.0, 2.0])
    assert "checkpoint of step 20 is not used" in saved.reports[-1]
    with pytest.raises(UserError, match="at least two intact checkpoints in .*, there is 1: train on, or give --check"):
        fresh.restore_average(variables, "model", count=2)

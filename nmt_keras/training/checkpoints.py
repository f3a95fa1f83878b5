"""Checkpoints that are whole or absent.

`checkpoints/step-00000500/` holds TensorFlow's checkpoint files and `manifest.json` with the size and SHA-256 of each,
the step, and the trainer's book-keeping. It is written under a temporary name, flushed to the disk and renamed, so a
killed job or a full disk leaves the earlier ones as they were. What does not match its manifest is not used.
`checkpoints/best.json` names the best step so far; that one is never deleted.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nmt_keras import files
from nmt_keras.errors import UserError
from nmt_keras.reports import Report, silent

FORMAT = 2
_MANIFEST = "manifest.json"


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Keras variables under their own paths, as `tf.train.Checkpoint` is to track them.

    TensorFlow tracks a Keras model by its attributes and does not see layers in a list of lists: it does not save them,
    and does not report them as missing either.

    Raises:
        ValueError: two variables have one path.
    """
    variables = list(variables)
    paths = {variable.path: variable.value for variable in variables}
    if len(paths) < len(variables):
        raise ValueError("two variables have one path: give the layers of a model distinct names")
    return paths


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 of all weights, by path."""
    digest = hashlib.sha256()
    for path, variable in sorted(by_path(model.variables).items()):
        digest.update(path.encode() + np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


class Part(NamedTuple):
    """What a worker of several keeps beside what all share, in a checkpoint of all of them."""

    name: str  # of this worker's files; "" of the chief, whose own are among what all share
    others: Sequence[str]  # of the other workers' files
    objects: tf.train.Checkpoint
    wait: Callable[[], None]  # until all workers are here
    begin_anew: Callable[[], None]  # to call where a checkpoint has nothing of this worker, and it has the chief's


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `checkpoints/` of a run directory.
        keep: how many of the latest are kept, beside the best.
        is_chief: in a job of several workers all must call `save` (it is a collective), and the chief's files stay.
        report: takes a line for the user.
        part: what this worker keeps by itself, where each makes steps of its own.
        signs_of_loss: errors by which another worker's loss shows, which are not of the disk; of a job that has others.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int = sys.maxsize,
        is_chief: bool = True,
        report: Report = silent,
        part: Part | None = None,
        signs_of_loss: tuple[type[Exception], ...] = (),
    ):
        self.folder = folder
        self.keep = keep
        self._is_chief = is_chief
        self._report = report
        self._part = part
        self._signs_of_loss = signs_of_loss
        self._saved: set[int] = set()
        self._intact: set[int] = set()  # written or verified by this process

    def clean_up(self) -> None:
        """Repairs what a killed job left. Only the job that trains may call it: others would delete its saves."""
        if self._is_chief:
            for replaced in self.folder.glob(".replaced-*"):  # the new one may not have had its name yet
                final = self.folder / replaced.name.removeprefix(".replaced-")
                if final.exists():
                    shutil.rmtree(replaced, ignore_errors=True)
                else:
                    replaced.rename(final)
            for leftover in (*self.folder.glob(".tmp-*"), *self.folder.glob(".part-*")):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(self, step: int, objects: tf.train.Checkpoint, state: dict[str, Any], replace: bool = False) -> None:
        """Writes the checkpoint of `step`, unless it exists, and deletes what is over `keep`.

        Args:
            step: the number of batches consumed.
            objects: what is tracked.
            state: JSON values that `restore` gives back.
            replace: write it also where it exists.

        Raises:
            UserError: the disk is full or the folder cannot be written; earlier checkpoints are intact.
            tf.errors.OpError: one of the signs of loss, where another worker is lost meanwhile.
        """
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".tmp-{step:08d}-{uuid.uuid4().hex[:12]}"  # workers in containers may share a pid
        if step in self._saved and not replace:
            return
        self._saved.add(step)
        try:
            if self._part is not None and self._part.name:
                self._hand_over(step, self._part)
                return
            temporary.mkdir(parents=True, exist_ok=True)
            objects.write(str(temporary / "variables"))
            if self._part is not None:
                self._collect(step, self._part, temporary)
            fingerprints = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            manifest = {"format": FORMAT, "step": step, "files": fingerprints, "state": state}
            files.write_json(temporary / _MANIFEST, manifest)
            for path in temporary.iterdir():
                _flush(path)
            _flush(temporary)
            if self._is_chief:
                replaced = self.folder / f".replaced-{final.name}"
                if final.exists():  # of an earlier job; the same content where it is intact
                    if self._verify(step)[0] is not None and not replace:
                        return
                    final.rename(replaced)
                temporary.rename(final)
                _flush(self.folder)
                shutil.rmtree(replaced, ignore_errors=True)
                self._intact.add(step)
                self._delete_old()
        except self._signs_of_loss:
            raise
        except (OSError, tf.errors.OpError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"Cannot write the checkpoint of step {step} to {self.folder}: {reason}; earlier ones are "
                "intact, free the disk and run the same command again"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _hand_over(self, step: int, part: Part) -> None:
        """Writes what this worker keeps by itself, and waits until the chief has taken it."""
        place = self._part_folder(step, part.name)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        part.objects.write(str(place / part.name))
        part.wait()
        part.wait()

    def _collect(self, step: int, part: Part, folder: pathlib.Path) -> None:
        """Takes what the other workers keep by themselves into a checkpoint."""
        part.wait()
        for name in part.others:
            place = self._part_folder(step, name)
            for path in place.iterdir():
                path.rename(folder / path.name)
            place.rmdir()
        part.wait()

    def _part_folder(self, step: int, name: str) -> pathlib.Path:
        return self.folder / f".part-{step:08d}-{name}"

    def restore(
        self,
        objects: tf.train.Checkpoint,
        which: str = "latest",
        partial: bool = False,
        accept: Callable[[dict[str, Any]], bool] = lambda manifest: True,
    ) -> dict[str, Any] | None:
        """Reads a checkpoint into `objects`.

        Args:
            objects: what was saved, already built.
            which: `latest`, `best` or a step. A corrupt `latest` gives way to the one before, and that is reported.
            partial: whether the checkpoint may hold more than `objects`.
            accept: for `latest`, whether a checkpoint is wanted, by its manifest; if not, the one before is tried.

        Returns:
            The manifest, or None where `which` is `latest` and there is no checkpoint, or none is wanted.

        Raises:
            UserError: there is no such checkpoint, it is corrupt, or it belongs to another model.
        """
        if which == "latest":
            steps, unwanted = self.steps(), False
            for step in reversed(steps):
                manifest, problem = self._verify(step)
                if manifest is not None and accept(manifest):
                    self._read(step, objects, partial)
                    return manifest
                if manifest is None:
                    self._report(f"checkpoint of step {step} is not used: {problem}")
                unwanted = unwanted or manifest is not None
            if steps and not unwanted and "format" in problem:
                raise UserError(
                    f"No checkpoint in {self.folder} can be read: {problem}; train with the version it is of"
                )
            if steps and not unwanted:
                raise UserError(f"No checkpoint in {self.folder} is intact; start again in a new run directory")
            return None
        step = self.best_step() if which == "best" else int(which)
        manifest, problem = self._verify(step)
        if manifest is None:
            raise UserError(
                f"The checkpoint of step {step} in {self.folder} cannot be used: {problem}; there are: "
                f"{', '.join(map(str, self.steps())) or 'none'}"
            )
        self._read(step, objects, partial)
        return manifest

    def restore_average(self, variables: dict[str, tf.Variable], name: str, count: int) -> list[int]:
        """Gives variables the mean of what the latest checkpoints hold (Junczys-Dowmunt et al. 2016, 3.2).

        Args:
            variables: already made, by path.
            name: what they are saved as, an attribute of the saved objects.
            count: of checkpoints, at most. One that is corrupt is left out, and that is reported.

        Returns:
            Their steps.

        Raises:
            UserError: fewer than two are intact, or they belong to another model.
        """
        objects, totals, used = tf.train.Checkpoint(**{name: variables}), [0.0] * len(variables), []
        for step in [step for step in self.steps() if step][-count:]:
            manifest, problem = self._verify(step)
            if manifest is None:
                self._report(f"checkpoint of step {step} is not used: {problem}")
                continue
            self._read(step, objects, partial=True)
            totals = [total + value.numpy().astype("float64") for total, value in zip(totals, variables.values())]
            used.append(step)
        if len(used) < 2:
            raise UserError(
                f"An average needs at least two intact checkpoints in {self.folder}, there is {len(used)}: train on, "
                "or give --checkpoint=latest"
            )
        for total, variable in zip(totals, variables.values()):
            variable.assign(total / len(used))
        return used

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Makes the saved checkpoint of `step` the best one."""
        if self._is_chief:
            files.write_json(self.folder / "best.json", {"step": step, "metric": metric, "value": value})
            self._delete_old()

    def forget_best(self) -> None:
        """No checkpoint is the best one any more."""
        if self._is_chief:
            (self.folder / "best.json").unlink(missing_ok=True)

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which training is about to make anew, and their best mark."""
        self._saved = {saved for saved in self._saved if saved <= step}
        if self._is_chief:
            for later in self.steps():
                if later > step:
                    self._delete(later)
            try:
                if self.best_step() > step:
                    (self.folder / "best.json").unlink()
            except UserError:
                pass

    def best_step(self) -> int:
        """The best step.

        Raises:
            UserError: none was marked.
        """
        try:
            return json.loads((self.folder / "best.json").read_text(encoding="utf-8"))["step"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder} has no best checkpoint: the run has not been evaluated yet; train on, or "
                "give --checkpoint=latest"
            ) from error

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(
            int(path.name.removeprefix("step-"))
            for path in self.folder.glob("step-*")
            if path.name.removeprefix("step-").isdecimal()
        )

    def _verify(self, step: int) -> tuple[dict[str, Any] | None, str]:
        folder = self.folder / f"step-{step:08d}"
        if not folder.is_dir():
            return None, "there is none"
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                return None, f"its format is {manifest['format']}, this version reads {FORMAT}"
            for name, fingerprint in manifest["files"].items():
                if _fingerprint(folder / name) != fingerprint:
                    return None, f"{name} does not match its checksum"
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            return None, f"it is incomplete ({error})"
        return manifest, ""

    def _read(self, step: int, objects: tf.train.Checkpoint, partial: bool) -> None:
        try:
            folder = self.folder / f"step-{step:08d}"
            status = objects.read(str(folder / "variables"))
            status.assert_existing_objects_matched()
            if not partial:
                status.assert_consumed()
            else:
                status.expect_partial()
            if self._part is not None and self._part.name:
                self._read_part(folder, self._part)
        except (AssertionError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"The checkpoint of step {step} in {self.folder} is of another model: {reason}") from error

    def _read_part(self, folder: pathlib.Path, part: Part) -> None:
        if (folder / f"{part.name}.index").exists():
            part.objects.read(str(folder / part.name)).assert_consumed()
        else:  # there were fewer workers, or one that made each step with the others
            self._report(f"{folder.name} has no optimizer of {part.name}: it begins with the chief's")
            part.begin_anew()

    def _delete_old(self) -> None:
        """Keeps the best, the latest ones, and the latest that a restart may begin from.

        Step 0 is kept until there are two later good ones: the first of them may already have broken weights.
        """
        try:
            best = self.best_step()
        except UserError:
            best = None
        steps = self.steps()
        intact = [step for step in steps if step in self._intact or self._verify(step)[0] is not None]
        self._intact.update(intact)
        good = [step for step in intact if self._is_good(step)]
        trained = [step for step in intact if step]
        kept = {best, *good[-1:], *trained[-self.keep :], *([0] if len(good) < 3 else [])}
        for step in steps:
            if step not in kept and step < max(intact, default=0):
                self._delete(step)

    def _is_good(self, step: int) -> bool:
        manifest = json.loads((self.folder / f"step-{step:08d}" / _MANIFEST).read_text(encoding="utf-8"))
        return manifest["state"].get("is_good", True)

    def _delete(self, step: int) -> None:
        gone = self.folder / f".tmp-deleted-{step:08d}"  # a killed job leaves no half-deleted one under its name
        (self.folder / f"step-{step:08d}").rename(gone)
        shutil.rmtree(gone)
        self._intact.discard(step)


def _fingerprint(path: pathlib.Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

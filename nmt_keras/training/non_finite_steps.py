"""Steps whose loss or gradient was not finite, on the disk: what `pipelines.replay` computes again.

`bad_batches/step-00000012-restart-0/` holds `batch.npz` (the arrays of each replica's slice), `weights.npz` (the
weights before the step, by path) and `step.json` (step, what makes its seeds, loss, gradient norm, worker). The latest
few of each restart are kept.
"""

import json
import pathlib
import shutil

import numpy as np

from nmt_keras.data.batching import Batch
from nmt_keras.errors import UserError
from nmt_keras.reports import Report, silent
from nmt_keras.training.train_step import NonFiniteStep

_KEPT = 2  # of a restart


class NonFiniteSteps:
    """The dumps of one run, or of one worker of it.

    Args:
        folder: `bad_batches/` of a run directory.
        worker: the number of this process among the workers; its slices are its own.
        report: takes a line for the user.
    """

    def __init__(self, folder: pathlib.Path, worker: int = 0, report: Report = silent):
        self.folder = folder
        self._worker = worker
        self._report = report
        self._written: dict[str, int] = {}  # names and restarts, of this job

    def write(self, non_finite: NonFiniteStep) -> None:
        """Reports a step and writes its dump; of this job's dumps the latest two of each restart are kept.

        If the disk is full the dump is lost, and training goes on.
        """
        what = f"its loss is {non_finite.loss} and the norm of its gradient {non_finite.gradient_norm}"
        name = f"step-{non_finite.step:08d}-restart-{non_finite.restarts}" + (
            f"-worker-{self._worker}" if self._worker else ""
        )
        temporary = self.folder / f".tmp-{name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            arrays = {
                f"{number}/{name}": leaf
                for number, part in enumerate(non_finite.slices)
                for name, leaf in part._asdict().items()
                if isinstance(leaf, np.ndarray)
            }
            np.savez(temporary / "batch.npz", **arrays)  # type: ignore[arg-type]
            np.savez(temporary / "weights.npz", **non_finite.weights)  # type: ignore[arg-type]
            about = {name: value for name, value in non_finite._asdict().items() if name not in ("slices", "weights")}
            card = {
                **about,
                "loss": str(non_finite.loss),
                "gradient_norm": str(non_finite.gradient_norm),
                "worker": self._worker,
            }
            (temporary / "step.json").write_text(json.dumps(card) + "\n", encoding="utf-8")
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of an earlier job that came here too
            temporary.rename(self.folder / name)
            self._written[name] = non_finite.restarts
            for old in [name for name, restarts in self._written.items() if restarts == non_finite.restarts][:-_KEPT]:
                shutil.rmtree(self.folder / old, ignore_errors=True)
                del self._written[old]
            self._report(f"warning: step {non_finite.step:,} is skipped: {what}; kept in {self.folder / name}")
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._report(f"warning: step {non_finite.step:,} is skipped: {what}; its batch cannot be kept: {error}")

    def names(self) -> list[str]:
        """The names of all dumps, in the order of their restarts and steps."""
        found = (path.name for path in self.folder.glob("step-*-restart-*"))
        return sorted(found, key=lambda name: (name.partition("-restart-")[2], name))

    def describe(self) -> str:
        """Where the batches of this job are, for a message."""
        names = ", ".join(self._written) or "none could be kept"
        return f"see {self.folder} ({names}); python -m pipelines.replay --run_dir={self.folder.parent} names the layer"

    def read(self, name: str = "") -> tuple[NonFiniteStep, int]:
        """A dump, by its name, and the number of the worker that wrote it; the latest if "".

        Raises:
            UserError: there is none, or it is not whole.
        """
        names = self.names()
        if not names or name and name not in names:
            raise UserError(
                f"{self.folder} has no dump{' ' * bool(name) + name}; there are: {', '.join(names) or 'none'}. "
                "Training writes one when a step's loss or gradient is not finite"
            )
        folder = self.folder / (name or names[-1])
        try:
            card = json.loads((folder / "step.json").read_text(encoding="utf-8"))
            with np.load(folder / "batch.npz") as arrays:
                count = len({key.partition("/")[0] for key in arrays})
                slices = [
                    Batch(**{key.partition("/")[2]: arrays[key] for key in arrays if key.startswith(f"{number}/")})
                    for number in range(count)
                ]
            with np.load(folder / "weights.npz") as arrays:
                weights = dict(arrays)
            worker = card.pop("worker")
            card |= {name: float(card[name]) for name in ("loss", "gradient_norm")}
            return NonFiniteStep(**card, slices=slices, weights=weights), worker
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"The dump {folder} cannot be read ({error}); give another --dump") from error

"""The clock of `benchmarks.speedrun` for the other toolkits: each trains by its own recipe, with one thread.

`peer_models/joeynmt_iwslt14.yaml` and `peer_models/opennmt_small.yml` say where the recipes were published, and what is
not theirs. The text is in the pieces of `peers.write_text`, with case, and translations are joined and scored as ours.
The clock is the processor time of making the text, of the peer's processes and of scoring; installing is before it.
"""

import gzip
import os
import pathlib
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

from benchmarks import measure, peers
from nmt_keras.errors import UserError
from nmt_keras.inference.evaluation import bleu_metric

_MODELS = pathlib.Path(__file__).parent / "peer_models"
_EVALUATE_EVERY = {"joeynmt": 60, "opennmt": 300}  # updates: eight times or more in an hour of a core
_TRANSLATIONS = {"joeynmt": r"(\d+)\.hyps", "opennmt": r"predictions\.txt\.(\d+)"}
_POLL_S = 1.0
_GRACE_S = 30.0
# JoeyNMT 2.3 gives the schedule of its recipe an argument that PyTorch has no more.
_JOEYNMT = r"""
import runpy
from torch.optim import lr_scheduler
class ReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    def __init__(self, *arguments, verbose=False, **options):
        super().__init__(*arguments, **options)
lr_scheduler.ReduceLROnPlateau = ReduceLROnPlateau
runpy.run_module("joeynmt", run_name="__main__", alter_sys=True)
"""


def train(
    toolkit: str,
    data_dir: str,
    work: pathlib.Path,
    folder: pathlib.Path,
    seed: int,
    max_minutes: float,
    note: Callable[[int, float, float], bool],
) -> None:
    """Trains until an evaluation is good enough, or for so many minutes.

    Args:
        toolkit: joeynmt or opennmt.
        data_dir: Multi30k.
        work: of `peers.install`.
        folder: empty; keeps the text, the model and what the toolkit prints.
        seed: of the toolkit.
        max_minutes: of the clock.
        note: takes the updates, the BLEU and the minutes of an evaluation, and says whether it is good enough.

    Raises:
        UserError: the toolkit ended with an error.
    """
    if not pathlib.Path("/proc/self/stat").exists():
        raise UserError(f"--toolkit={toolkit} is timed by /proc: run it on Linux")
    before = _own_seconds()
    peers.write_text(data_dir, work, folder)
    references = _sort_dev_set(folder, pathlib.Path(data_dir))
    bleu, done = bleu_metric("de"), set()
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = measure.start_pinned(_command(toolkit, work, folder, seed), 1, log, has_session=True)
        try:
            is_over = False
            while not is_over:
                time.sleep(_POLL_S)
                is_over = process.poll() is not None
                ended = _own_seconds() - before  # the process too, once it is over
                minutes = (ended + (0.0 if is_over else session_seconds(process.pid))) / 60.0
                for step, texts in evaluations(folder / "model", _TRANSLATIONS[toolkit], len(references)):
                    if step in done:
                        continue
                    done.add(step)
                    if note(step, bleu.corpus_score(texts, [references]).score, minutes):
                        return
                if minutes >= max_minutes:
                    return
            if process.returncode:
                raise UserError(
                    f"{toolkit} ended with status {process.returncode}; read "
                    + measure.keep((folder / "log").read_text(encoding="utf-8", errors="replace"))
                )
        finally:
            end(process)


def _sort_dev_set(folder: pathlib.Path, data_dir: pathlib.Path) -> list[str]:
    """Sorts the dev set by the length of its sources, which JoeyNMT does not, so that its batches, of which each is as
    long as its longest translation, cost a third; BLEU is the same in any order. Returns the references."""
    texts = {name: (folder / name).read_text(encoding="utf-8").split("\n")[:-1] for name in ("val.en", "val.de")}
    order = sorted(range(len(texts["val.en"])), key=lambda row: len(texts["val.en"][row].split()))
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{lines[row]}\n" for row in order), encoding="utf-8")
    with gzip.open(data_dir / "val.de.gz", "rt", encoding="utf-8", newline="\n") as file:
        references = file.read().split("\n")[:-1]
    return [references[row] for row in order]


def evaluations(folder: pathlib.Path, pattern: str, lines: int) -> Iterator[tuple[int, list[str]]]:
    """The updates and texts of the evaluations that are there whole, by the updates.

    Args:
        folder: of the model; translations are in it, or in a folder of it, as pieces with spaces.
        pattern: of their names, with a group of the number of updates.
        lines: of a whole one.
    """
    found = [(re.fullmatch(pattern, path.name), path) for path in folder.rglob("*")]
    for step, path in sorted((int(match[1]), path) for match, path in found if match):
        *texts, rest = path.read_bytes().split(b"\n")
        if len(texts) == lines and not rest:
            yield step, [text.decode("utf-8").replace(" ", "").replace("▁", " ").strip() for text in texts]


def session_seconds(session: int) -> float:
    """Processor time of the processes of a session, and of those that these have waited for."""
    ticks = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended
            continue
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))  # user and system, its own and its children's
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _command(toolkit: str, work: pathlib.Path, folder: pathlib.Path, seed: int) -> list[str]:
    options = {"folder": folder, "seed": seed, "evaluate_every": _EVALUATE_EVERY[toolkit]}
    name = {"joeynmt": "joeynmt_iwslt14.yaml", "opennmt": "opennmt_small.yml"}[toolkit]
    config = folder / name
    config.write_text((_MODELS / name).read_text(encoding="utf-8").format(**options), encoding="utf-8")
    if toolkit == "joeynmt":
        return [peers.python(work, toolkit), "-c", _JOEYNMT, "train", str(config), "--skip-test"]
    program = [str(work / toolkit / "bin" / "onmt-main"), "--model_type", "NMTSmallV1", "--auto_config"]
    return [*program, "--config", str(config), "--seed", str(seed), "train", "--with_eval"]


def end(process: subprocess.Popen) -> None:
    """Ends the session of a process."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue

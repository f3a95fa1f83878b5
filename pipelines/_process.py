"""The process of a job: its log, and TensorFlow without remarks."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator

from tqdm import tqdm

# How lines begin that tell how far a job is and what it has loaded; all others are told by a quiet job too.
_PROGRESS = re.compile(
    r"step [\d,]+|step: |checkpoint: |model: |data: |tokenizer: |target language: |unknown pieces|largest batch|"
    r"resuming|translating |recurrences: |doctor, note: |comparing "
)
_is_quiet = False


@contextlib.contextmanager
def quiet(is_quiet: bool) -> Iterator[None]:
    """Within the block, where it is, lines of progress and bars are left out."""
    global _is_quiet
    before, bars = _is_quiet, os.environ.get("TQDM_DISABLE")
    _is_quiet = is_quiet
    if is_quiet:
        os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        _is_quiet = before
        if is_quiet:
            os.environ.pop("TQDM_DISABLE")
            if bars is not None:
                os.environ["TQDM_DISABLE"] = bars


def report(line: str) -> None:
    """A line for the user, on stderr and past a progress bar."""
    if not (_is_quiet and _PROGRESS.match(line)):
        tqdm.write(line, file=sys.stderr)


def load_tensorflow() -> None:
    """Imports TensorFlow without its remarks on this machine's CPU and missing GPU, which no log level silences."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)

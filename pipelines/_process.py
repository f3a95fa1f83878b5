"""The process of a job: its log, and TensorFlow without remarks."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from tqdm import tqdm

from nmt_keras.engine import load_tensorflow  # noqa: F401  # jobs have all of their process here

# How lines begin that tell how far a job is and what it has loaded; all others are told by a quiet job too.
_PROGRESS = re.compile(
    r"step [\d,]+|step: |checkpoint: |model: |data: |tokenizer: |target language: |unknown pieces|largest batch|"
    r"resuming|translating |recurrences: |doctor, note: |comparing |scores: "
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

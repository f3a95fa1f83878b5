"""The proof of a conversion to PyTorch: both models on the ids of the same dev lines."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID
from nmt_keras.conversion import pytorch_session
from nmt_keras.conversion.source import DevLines, Source, translated
from nmt_keras.data.padding import rows_of, table_of
from nmt_keras.errors import UserError

_TOLERANCE = 1e-4  # of a logit: float32 sums in another order
_SECONDS, _SECONDS_A_LINE = 300.0, 20.0  # that PyTorch may take to start, and for a line: only what hangs takes so long


def prove(source: Source, folder: pathlib.Path, dev: Sequence[DevLines]) -> dict[str, Any]:
    """Compares the written file, in a process of its own, with the model.

    Returns:
        How many dev lines were compared, and how many are `different`: by a logit, at any position of our greedy
        translation, or in the greedy translation where no two ids were equally probable but for rounding; the largest
        difference of a logit; and how many greedy translations are equal.
    """
    pairs = [(ids, list(hypothesis.ids)) for ids, hypothesis in translated(source, dev, 1)]
    size = source.config.decoding.batch_sentences
    batches = [_Batch(pairs[start : start + size]) for start in range(0, len(pairs), size)]
    different, distances, equal = 0, [], 0
    with tempfile.TemporaryDirectory() as results:
        theirs = iter(_run(folder, batches, source.config.decoding.max_length, pathlib.Path(results)))
        for number, batch in enumerate(batches):
            hidden, _ = source.model(tf.constant(batch.source), tf.constant(batch.target))
            ours = source.model.project(hidden).numpy()
            distance = np.abs(ours - np.load(f"{results}/logits_{number}.npy", allow_pickle=False)).max(-1)
            for (_, ids), logits, row in zip(batch.pairs, ours, distance):
                found = [*next(theirs), EOS_ID]
                distances.append(float(row[: len(ids)].max()))
                equal += found[: len(ids)] == ids
                different += not (distances[-1] <= _TOLERANCE and _is_same(ids, found, logits))
    return {
        "compared": len(pairs),
        "different": different,
        "largest_logit_difference": max(distances),
        "equal_greedy": equal,
    }


class _Batch:
    """Rows of source and target ids as arrays; the target begins with BOS."""

    def __init__(self, pairs: list[tuple[list[int], list[int]]]):
        self.pairs = pairs
        self.source = _table([ids for ids, _ in pairs])
        self.target = _table([[BOS_ID, *ids[:-1]] for _, ids in pairs])


def _table(rows: list[list[int]]) -> np.ndarray:
    """Ids as int32 [B, L]."""
    return table_of(rows_of(rows), reserved=0)[0]


def _is_same(ours: list[int], theirs: list[int], logits: np.ndarray) -> bool:
    """Whether two translations are equal, or part where both ids have one logit, [T, V], but for rounding."""
    place = next((i for i, (one, other) in enumerate(zip(ours, theirs)) if one != other), None)
    return place is None or bool(logits[place, ours[place]] - logits[place, theirs[place]] <= 2 * _TOLERANCE)


def _run(folder: pathlib.Path, batches: Sequence[_Batch], max_length: int, results: pathlib.Path) -> list[list[int]]:
    """Runs the written file, which leaves logits in `results`; the greedy translations of all rows."""
    arrays: dict[str, np.ndarray] = {}
    for number, batch in enumerate(batches):
        arrays |= {f"source_{number}": batch.source, f"target_{number}": batch.target}
    np.savez(results / "batches.npz", **arrays)  # type: ignore[arg-type]
    arguments = str(folder.resolve()), str(results / "batches.npz"), str(results), str(max_length)
    _session(*arguments, seconds=_SECONDS + _SECONDS_A_LINE * sum(len(batch.pairs) for batch in batches))
    return json.loads((results / "translations.json").read_text(encoding="utf-8"))


def _session(*arguments: str, seconds: float) -> None:
    """Runs `pytorch_session` in a process of its own, which is ended after so many seconds.

    Raises:
        UserError: it failed, with its last line, or took longer.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", pytorch_session.__file__, *arguments],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"PyTorch did not run the written file within {seconds:,.0f} s: see whether `python -c 'import torch'` "
            "ends, or compare fewer lines, as with --proof_lines=20"
        ) from error
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"it ended with status {done.returncode}"
        raise UserError(f"PyTorch does not run the written file, see whether `import torch` works: {last}")

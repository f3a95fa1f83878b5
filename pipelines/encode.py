"""Writes sentence vectors, a line of text each: float32 [lines, D], the means of the encoder's states, as NumPy's .npy.

python -m pipelines.encode --run_dir=runs/m30k --input=test.en --output=test.npy
"""

import contextlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.errors import UserError
from nmt_keras.reports import shows_bars
from pipelines import _cli, _process, _text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _cli.define_inference_flags(values, argv, searches=False)
    _text.define_model_flags(values)
    flags.DEFINE_string("input", None, "Text, a sentence a line; .gz is unpacked. Default: stdin.", flag_values=values)
    flags.DEFINE_string("output", None, "The .npy file.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    _text.check_model_flags(values)
    if not values.output:
        raise UserError("--output must be given, as in --output=vectors.npy")
    files.require_writable(values.output, [values.input])
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_text.opened(values.input)) if values.input else sys.stdin.buffer
        temporary = stack.enter_context(files.atomic_write(values.output))  # found to be writable before the work
        client = stack.enter_context(_text.open_client(values))
        progress = stack.enter_context(tqdm(unit="line", disable=not shows_bars()))
        vectors = []
        lines = _text.lines(source, values.input or "stdin")
        for row in client.vectors(lines, target_language=_text.target_language(values)):
            vectors.append(np.array(row["vector"], np.float32))
            if row["truncated"]:
                _process.report(f"warning: line {len(vectors):,} is over the model's limit and was encoded in part")
            progress.update()
        array = np.stack(vectors) if vectors else np.zeros([0, 0], np.float32)
        with open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
    _process.report(f"{len(array):,} vectors of {array.shape[1]:,} numbers")


if __name__ == "__main__":
    sys.exit(main())

"""Translates text, a sentence a line, with a trained model or an export; stdin to stdout unless files are given.

python -m pipelines.translate --run_dir=runs/m30k --input=test.en --output=test.hyp
"""

import codecs
import contextlib
import gzip
import io
import itertools
import os
import pathlib
import sys
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.data.corpus import Oddities
from nmt_keras.errors import UserError
from pipelines import _runtime

Translate = Callable[[Iterable[str]], Iterator[tuple[str, bool]]]  # to translations, and whether a line was cut


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    _runtime.define_inference_flags(values)
    flags.DEFINE_string("saved_model", None, "Or a SavedModel: saved_models/<name>/<version>.", flag_values=values)
    flags.DEFINE_string("input", None, "Text to translate; .gz is unpacked. Default: stdin.", flag_values=values)
    flags.DEFINE_string("output", None, "Where the translations go. Default: stdout.", flag_values=values)
    flags.DEFINE_bool("sample", False, "Sample instead of searching.", flag_values=values)
    flags.DEFINE_integer("seed", 1, "Of --sample.", lower_bound=-(2**31), upper_bound=2**31 - 1, flag_values=values)
    flags.DEFINE_float("temperature", 1.0, "Of --sample; below 1 is bolder.", lower_bound=1e-3, flag_values=values)
    flags.DEFINE_integer(
        "top_k", 0, "With --sample: only the k most probable pieces; 0 is all.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_float(
        "top_p",
        1.0,
        "With --sample: only the most probable pieces of this total probability.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "on_long",
        "truncate",
        ["truncate", "refuse"],
        "What to do with a line over the model's limit: translate its beginning, or stop.",
        flag_values=values,
    )


def _job(values: flags.FlagValues) -> None:
    if bool(values.run_dir) == bool(values.saved_model):
        raise UserError("Exactly one of --run_dir and --saved_model must be given")
    for name in ("seed", "temperature", "top_k", "top_p"):
        if values[name].present and not values.sample:
            raise UserError(f"--{name} belongs to sampling: give --sample too")
    if (
        values.input
        and values.output
        and os.path.exists(values.output)
        and os.path.samefile(values.input, values.output)
    ):
        raise UserError(f"--output is --input, {values.input}: the text would be lost; give another --output")
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_open(values.input)) if values.input else sys.stdin.buffer
        translate = (_with_saved_model if values.saved_model else _with_run_dir)(values)
        write = stack.enter_context(_writer(values.output))
        progress = stack.enter_context(tqdm(unit="line", disable=not (sys.stderr.isatty() and values.output)))
        oddities = Oddities()
        for number, (text, truncated) in enumerate(translate(_lines(source, oddities)), 1):
            if truncated and values.on_long == "refuse":
                raise UserError(
                    f"Line {number} is longer than the model's limit; shorten it, raise "
                    "decoding.max_source_length, or give --on_long=truncate"
                )
            if truncated:
                _runtime.report(f"warning: line {number} is longer than the model's limit and was translated in part")
            write(text + "\n")
            progress.update()
        for finding in oddities.findings():
            _runtime.report(f"{values.input or 'stdin'}: {finding}")


def _with_run_dir(values: flags.FlagValues) -> Translate:
    _runtime.load_tensorflow()
    from nmt_keras import run_directory

    run_dir = pathlib.Path(values.run_dir)
    config = run_directory.read_config(run_dir)
    _runtime.inference_config(config, beam_size=values.beam_size, length_penalty=values.length_penalty)

    from nmt_keras.inference.search import Sampling

    sampling = Sampling(values.seed, values.temperature, values.top_k, values.top_p) if values.sample else None
    run = run_directory.load_run(run_dir, values.checkpoint, _runtime.report)._replace(config=config)
    translator = run.translator(sampling=sampling)
    return lambda lines: ((result.text, result.truncated) for result in translator.translate_stream(lines))


def _with_saved_model(values: flags.FlagValues) -> Translate:
    _runtime.load_tensorflow()
    from nmt_keras.inference.export import load_signature

    for name in ("beam_size", "length_penalty", "checkpoint", "sample"):
        if values[name].present:
            raise UserError(f"--{name} goes with --run_dir: an export's search was fixed when it was made")
    serve = load_signature(pathlib.Path(values.saved_model))
    return lambda lines: itertools.chain.from_iterable(map(serve, _batches(lines, 64)))


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(source, oddities) -> Iterator[str]:
    """Lines end at the line feed alone; a CR before it and a byte order mark at the start are not text."""
    try:
        for number, line in enumerate(source, 1):
            line = line.removesuffix(b"\n")
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                oddities.note_bom()
                line = line.removeprefix(codecs.BOM_UTF8)
            oddities.note(number, line)
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"Cannot unpack --input: {error}; it is truncated or no gzip file") from error


def _open(path: str) -> typing.BinaryIO:
    try:
        return typing.cast(typing.BinaryIO, gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; check --input") from error


@contextlib.contextmanager
def _writer(path: str | None):
    """A function that writes text. A file appears when all of it is there: a failed job leaves none."""
    if path is None:
        typing.cast(io.TextIOWrapper, sys.stdout).reconfigure(encoding="utf-8", newline="\n")
        yield lambda text: print(text, end="", flush=True)
        return
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        yield file.write


if __name__ == "__main__":
    sys.exit(main())

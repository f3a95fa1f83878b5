"""Translates text, a sentence a line, with a trained model or an export; stdin to stdout unless files are given.

python -m pipelines.translate --run_dir=runs/m30k --input=test.en --output=test.hyp

A line out per line in, in order. With --scores, --alignments, or more than one translation of a line (--n_best,
--samples), each is a JSON object with all hypotheses of its line, best first.
"""

import codecs
import contextlib
import dataclasses
import gzip
import io
import itertools
import json
import math
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

# Lines, and how many came before, to lines of output, each with whether its source was cut.
Translate = Callable[[Iterable[str], int], Iterator[tuple[str, bool]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _runtime.define_inference_flags(values, argv)
    flags.DEFINE_string("saved_model", None, "Or a SavedModel: saved_models/<name>/<version>.", flag_values=values)
    flags.DEFINE_string("input", None, "Text to translate; .gz is unpacked. Default: stdin.", flag_values=values)
    flags.DEFINE_string("output", None, "Where the translations go. Default: stdout.", flag_values=values)
    flags.DEFINE_bool("resume", False, "Go on with the --output of an interrupted job.", flag_values=values)
    flags.DEFINE_integer("n_best", 1, "Translations of each line, at most --beam_size.", 1, flag_values=values)
    flags.DEFINE_integer("samples", 0, "Draw so many translations instead of searching.", 0, flag_values=values)
    flags.DEFINE_bool("scores", False, "Also scores, and log probabilities of pieces.", flag_values=values)
    flags.DEFINE_bool("alignments", False, "Also the source piece that each piece reads most.", flag_values=values)
    flags.DEFINE_integer("seed", 1, "Of --samples.", lower_bound=-(2**31), upper_bound=2**31 - 1, flag_values=values)
    flags.DEFINE_float(
        "temperature", 1.0, "With --samples: below 1 is more cautious.", lower_bound=1e-3, flag_values=values
    )
    flags.DEFINE_integer(
        "top_k", 0, "With --samples: only the k most probable pieces; 0 is all.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_float(
        "top_p",
        1.0,
        "With --samples: only the most probable pieces of this total probability.",
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


def _job(values: flags.FlagValues) -> int | None:
    _check(values)
    count = 0
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(_open(values.input)) if values.input else sys.stdin.buffer
            translate, about = (_with_saved_model if values.saved_model else _with_run_dir)(values)
            write, count = stack.enter_context(_writer(values.output, values.resume, about))
            if count:
                _runtime.report(f"resuming after line {count:,}")
            progress = stack.enter_context(
                tqdm(unit="line", initial=count, disable=not (sys.stderr.isatty() and values.output))
            )
            oddities = Oddities()
            lines = _lines(source, oddities)
            skipped = sum(1 for _ in itertools.islice(lines, count))
            if skipped < count:
                raise UserError(f"--resume: the interrupted --output has {count:,} lines, --input only {skipped:,}")
            for text, truncated in translate(lines, count):
                if truncated and values.on_long == "refuse":
                    raise UserError(
                        f"Line {count + 1} is longer than the model's limit; shorten it, raise "
                        "--decoding.max_source_length, or give --on_long=truncate"
                    )
                if truncated:
                    _runtime.report(
                        f"warning: line {count + 1} is longer than the model's limit and was translated in part; "
                        "--decoding.max_source_length is the limit"
                    )
                write(text + "\n")
                count += 1
                progress.update()
            for finding in oddities.findings():
                _runtime.report(f"{values.input or 'stdin'}: {finding}")
    except KeyboardInterrupt:
        go_on = "; the same command with --resume goes on from there" if values.output and count else ""
        _runtime.report(f"interrupted after line {count:,}{go_on}")
        return _runtime.STATUS_INTERRUPTED
    return None


def _check(values: flags.FlagValues) -> None:
    if bool(values.run_dir) == bool(values.saved_model):
        raise UserError("Exactly one of --run_dir and --saved_model must be given")
    if values.saved_model:
        names = ("checkpoint", "samples", "n_best", "scores", "alignments", "beam_size", "length_penalty")
        given = [name for name in names if values[name].present]
        given += [f"decoding.{name}" for name in _runtime.decoding_overrides(values)]
        if given:
            raise UserError(f"--{given[0]} goes with --run_dir: an export's search was fixed when it was made")
    for name in ("seed", "temperature", "top_k", "top_p"):
        if values[name].present and not values.samples:
            raise UserError(f"--{name} belongs to sampling: give --samples=1 too")
    if values.samples and values["n_best"].present:
        raise UserError("--n_best belongs to searching: --samples is how many are drawn")
    if values.resume and not values.output:
        raise UserError("--resume goes on with a file: give the --output of the interrupted job")
    if (
        values.input
        and values.output
        and os.path.exists(values.output)
        and os.path.samefile(values.input, values.output)
    ):
        raise UserError(f"--output is --input, {values.input}: the text would be lost; give another --output")


def _with_run_dir(values: flags.FlagValues) -> tuple[Translate, dict[str, typing.Any]]:
    _runtime.load_tensorflow()
    from nmt_keras import run_directory

    run_dir = pathlib.Path(values.run_dir)
    config = run_directory.read_config(run_dir)
    _runtime.inference_config(config, _runtime.decoding_overrides(values))

    from nmt_keras.inference.search import Sampling

    sampling = Sampling(values.seed, values.temperature, values.top_k, values.top_p) if values.samples else None
    if not sampling and values.n_best > config.decoding.beam_size:
        raise UserError(
            f"--n_best must be at most the beam size. Received: {values.n_best} and {config.decoding.beam_size}; give "
            f"--beam_size={values.n_best}"
        )
    run = run_directory.load_run(run_dir, values.checkpoint, _runtime.report)._replace(config=config)
    translator = run.translator(values.samples or values.n_best, sampling)
    as_json = max(values.n_best, values.samples) > 1 or values.scores or values.alignments

    def translate(lines, done):
        results = translator.translate_stream(lines, first_number=done)
        for number, result in enumerate(results, done + 1):
            text = _to_json(number, result, run.tokenizers, values) if as_json else result.text
            yield text, result.truncated

    names = ("input", "run_dir", "n_best", "samples", "scores", "alignments", "seed", "temperature", "top_k", "top_p")
    about = {**{name: values[name].value for name in names}, "step": run.step, "checkpoint": values.checkpoint}
    return translate, {**about, **dataclasses.asdict(config.decoding)}


def _to_json(number: int, translation, tokenizers, values: flags.FlagValues) -> str:
    row: dict[str, typing.Any] = {"line": number, "truncated": translation.truncated}
    if values.alignments:
        row["source_pieces"] = [tokenizers.source.piece(i) for i in translation.source_ids]
    row["hypotheses"] = []
    for hypothesis in translation.hypotheses:
        entry: dict[str, typing.Any] = {"text": hypothesis.text}
        if values.scores or values.alignments:
            entry["pieces"] = [tokenizers.target.piece(i) for i in hypothesis.ids]
        if values.scores:
            found = math.isfinite(hypothesis.log_prob)
            entry["log_prob"], entry["score"] = (hypothesis.log_prob, hypothesis.score) if found else (None, None)
            entry["token_log_probs"] = [round(value, 6) for value in hypothesis.token_log_probs]
        if values.alignments:
            entry["alignment"] = hypothesis.alignment()
        row["hypotheses"].append(entry)
    return json.dumps(row, ensure_ascii=False)


def _with_saved_model(values: flags.FlagValues) -> tuple[Translate, dict[str, typing.Any]]:
    _runtime.load_tensorflow()
    from nmt_keras.inference.export import load_signature

    serve = load_signature(pathlib.Path(values.saved_model))
    return (
        lambda lines, done: itertools.chain.from_iterable(map(serve, _batches(lines, 64))),
        {"input": values.input, "saved_model": values.saved_model},
    )


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
def _writer(path: str | None, resume: bool, about: dict[str, typing.Any]):
    """A function that writes text at once, and how many lines are there. A file has its name when it is whole."""
    if path is None:
        typing.cast(io.TextIOWrapper, sys.stdout).reconfigure(encoding="utf-8", newline="\n")
        yield lambda text: print(text, end="", flush=True), 0
        return
    with files.growing(path, resume, about) as (file, lines):
        yield lambda text: print(text, end="", file=file, flush=True), lines


if __name__ == "__main__":
    sys.exit(main())

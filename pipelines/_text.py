"""Shared by jobs on lines of text: reading and writing the lines, and a client of the model."""

import codecs
import contextlib
import gzip
import io
import pathlib
import sys
import typing
import zlib
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from nmt_keras import files
from nmt_keras.data import encodings
from nmt_keras.data.corpus import Oddities
from nmt_keras.data.documents import require_no_document
from nmt_keras.errors import Interrupted, UserError
from pipelines import _cli, _process

if typing.TYPE_CHECKING:
    from nmt_keras.serving.client import Client

_SERVER_FLAGS = ("timeout", "batch_sentences", "concurrency")


def define_model_flags(values: flags.FlagValues) -> None:
    """The flags of jobs that take an export or a server in the place of --run_dir."""
    flags.DEFINE_string(
        "saved_model", None, "Or a SavedModel, or a folder of its versions, of which the newest.", flag_values=values
    )
    flags.DEFINE_string(
        "server",
        None,
        "Or TF Serving: grpc://host:port/model[/version] or http://host:port/model[/version].",
        flag_values=values,
    )
    flags.DEFINE_float("timeout", 60.0, "With --server: seconds of a request.", 1e-3, flag_values=values)
    flags.DEFINE_integer("batch_sentences", 64, "With --server: texts of a request.", 1, flag_values=values)
    flags.DEFINE_integer("concurrency", 4, "With --server: requests at once.", 1, flag_values=values)


def check_model_flags(values: flags.FlagValues, request_options: Sequence[str] = ()) -> None:
    """Checks that exactly one model is given, and that the flags fit it; an export takes `request_options` only.

    Raises:
        UserError: there is no model or several, or a flag does not fit it.
    """
    models = [f"--{name}" for name in ("run_dir", "saved_model", "server") if values[name].value]
    if len(models) != 1:
        remedy = f"{' and '.join(models)} are; leave one out" if models else "give a model, as in --run_dir=runs/m30k"
        raise UserError(f"Exactly one of --run_dir, --saved_model and --server must be given: {remedy}")
    for name in _SERVER_FLAGS:
        if values[name].present and not values.server:
            raise UserError(f"--{name} is of requests: it goes with --server")
    if not values.run_dir:
        options = _cli.decoding_overrides(values)
        given = ["checkpoint"] * values["checkpoint"].present
        given += [
            name
            for name in ("beam_size", "length_penalty")
            if name in values and values[name].present and name not in request_options
        ]
        given += [
            f"decoding.{name}" for name in options if name not in (*request_options, "beam_size", "length_penalty")
        ]
        if given:
            raise UserError(f"--{given[0]} goes with --run_dir: an export keeps what it was made with")


def open_client(values: flags.FlagValues) -> "Client":
    """A client of the model that the flags name; for a run it uses no shortlist.

    Raises:
        UserError: it cannot be used.
    """
    if values.server:
        if values.server.startswith("grpc"):
            _process.load_tensorflow()
        from nmt_keras.serving.client import Client

        options: dict[str, typing.Any] = {name: values[name].value for name in _SERVER_FLAGS}
        return Client(values.server, **options, report=_process.report)
    _process.load_tensorflow()
    from nmt_keras.serving import local

    if values.saved_model:
        return local.load_export(pathlib.Path(values.saved_model))
    from nmt_keras.runs.loading import load

    overrides = {**_cli.overrides(values), "decoding.shortlist": 0}
    return load(_cli.run_dirs(values), overrides, values.checkpoint, report=_process.report).client()


def target_language(values: flags.FlagValues) -> str | None:
    """The language that a client is asked for; that of a run is part of its configuration."""
    return None if values.run_dir else values.target_language or None


def lines(source: typing.BinaryIO, name: str, flag: str = "input") -> Iterator[str]:
    """Lines end at the line feed alone; a CR before it and a byte order mark at the start are not text.

    Oddities of the text are reported at the end, under the file's `name`; a `flag` names it.
    """
    oddities = Oddities()
    try:
        for number, line in enumerate(source, 1):
            line = line.removesuffix(b"\n")
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                oddities.note_bom()
                line = line.removeprefix(codecs.BOM_UTF8)
            oddities.note(number, line)
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
        for finding in oddities.findings():
            _process.report(f"{name}: {finding}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Interrupted(f"Cannot unpack --{flag}: {error}; it is truncated or no gzip file") from error


def opened(path: str, flag: str = "input") -> typing.BinaryIO:
    """Text to read, which a flag names; .gz is unpacked.

    Raises:
        UserError: there is none.
    """
    try:
        file = _open(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; check --{flag}") from error
    try:
        beginning = file.peek(4096)  # type: ignore[attr-defined]
    except (OSError, EOFError, zlib.error):
        file.close()
        return _open(path)  # whoever reads it says why it cannot be
    with contextlib.ExitStack() as closing:
        closing.callback(file.close)
        require_no_document(path, beginning)
        encoding = encodings.guess(beginning[:4096], [], "")
        if encoding.startswith("UTF-"):
            raise UserError(f"{path} is no UTF-8, it looks like {encoding}: {encodings.command(path, encoding)}")
        closing.pop_all()
    return file


def _open(path: str) -> typing.BinaryIO:
    return typing.cast(typing.BinaryIO, gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb"))


@contextlib.contextmanager
def writer(path: str | None, resume: bool, about: dict[str, typing.Any]) -> Iterator[tuple[Callable[[str], None], int]]:
    """Gives a function that writes text at once, and how many lines are written already. A file gets its name when it
    is complete; without a path, or with -, the output is stdout."""
    if path in (None, "-"):
        typing.cast(io.TextIOWrapper, sys.stdout).reconfigure(encoding="utf-8", newline="\n")
        yield lambda text: print(text, end="", flush=True), 0
        return
    with files.resumable_write(path, resume, about) as (file, count):
        yield lambda text: print(text, end="", file=file, flush=True), count

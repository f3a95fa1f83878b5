"""Says how probable a model finds given translations: a JSON line for each pair, and the perplexity of all on stderr.

python -m pipelines.score --run_dir=runs/m30k --source=test.en --target=test.de --output=test.scores
"""

import contextlib
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence

from absl import flags
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.errors import Interrupted, UserError
from nmt_keras.reports import counted, shows_bars
from pipelines import _cli, _process, _text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _cli.define_inference_flags(values, argv, searches=False)
    _text.define_model_flags(values)
    flags.DEFINE_string("source", None, "Text, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("target", None, "Its translation, line by line.", flag_values=values)
    flags.DEFINE_string("output", None, "Where the scores go. Default: stdout.", flag_values=values)
    flags.DEFINE_bool("resume", False, "Go on with the --output of an interrupted job.", flag_values=values)
    flags.DEFINE_bool("pieces", False, "Also pieces, and the log probability of each.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    _text.check_model_flags(values)
    if not (values.source and values.target):
        raise UserError("--source and --target must be given, as in --source=test.en --target=test.de")
    if values.resume and not values.output:
        raise UserError("--resume goes on with a file: give the --output of the interrupted job")
    if values.output not in (None, "-"):
        files.require_writable(values.output, [values.source, values.target])
    names = ("run_dir", "checkpoint", "target_language", "saved_model", "server", "source", "target", "pieces")
    about = {**{name: values[name].value for name in names}, **_cli.decoding_overrides(values)}
    with contextlib.ExitStack() as stack:
        sides = [_text.lines(stack.enter_context(_text.opened(p)), p) for p in (values.source, values.target)]
        client = stack.enter_context(_text.open_client(values))
        write, done = stack.enter_context(_text.writer(values.output, values.resume, about))
        total, pieces, truncated = _sums(f"{os.path.realpath(values.output)}.partial") if done else (0.0, 0, 0)
        pairs = itertools.islice(_pairs(sides, values), done, None)
        progress = stack.enter_context(tqdm(unit="pair", initial=done, disable=not (shows_bars() and values.output)))
        count = done
        for count, row in enumerate(client.scores(pairs, target_language=_text.target_language(values)), done + 1):
            total += row["log_prob"]
            pieces += row["num_pieces"]
            truncated += row["truncated"]
            kept = {name: row[name] for name in ("log_prob", "num_pieces", "truncated")}
            if values.pieces:
                kept |= {name: row[name] for name in ("pieces", "token_log_probs")}
            write(json.dumps({"line": count, **kept}, ensure_ascii=False) + "\n")
            progress.update()
    if truncated:
        _process.report(f"warning: over the model's limit, and scored in part: {counted(truncated, 'pair')}")
    if not count:
        _process.report(f"{values.source} has no lines: nothing was scored")
        return
    _process.report(
        f"{counted(count, 'pair')}, log probability {total:.2f}, perplexity {math.exp(-total / max(pieces, 1)):.3f}"
    )


def _sums(path: str) -> tuple[float, int, int]:
    """Sums over the rows of an interrupted job: log probability, pieces, and pairs that were scored in part."""
    with open(path, encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    return tuple(sum(row[name] for row in rows) for name in ("log_prob", "num_pieces", "truncated"))  # type: ignore


def _pairs(sides: Sequence[Iterator[str]], values: flags.FlagValues) -> Iterator[tuple[str, str]]:
    for number, (source, target) in enumerate(itertools.zip_longest(*sides)):
        if source is None or target is None:
            shorter = values.source if source is None else values.target
            raise Interrupted(
                f"{values.source} and {values.target} must be aligned line by line: {shorter} has {number:,} lines, "
                "the other more"
            )
        yield source, target


if __name__ == "__main__":
    sys.exit(main())

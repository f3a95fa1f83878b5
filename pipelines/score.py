"""Says how probable a model finds given translations: a JSON line for each pair, and the perplexity of all on stderr.

python -m pipelines.score --run_dir=runs/m30k --source=test.en --target=test.de --output=test.scores
"""

import contextlib
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence

from absl import flags
from tqdm import tqdm

from nmt_keras.errors import UserError
from pipelines import _runtime, _text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _runtime.define_inference_flags(values, argv)
    _text.define_model_flags(values)
    flags.DEFINE_string("source", None, "Text, a sentence a line; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("target", None, "Its translation, line by line.", flag_values=values)
    flags.DEFINE_string("output", None, "Where the scores go. Default: stdout.", flag_values=values)
    flags.DEFINE_bool("pieces", False, "Also pieces, and the log probability of each.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    _text.check_model_flags(values)
    if not (values.source and values.target):
        raise UserError("--source and --target must be given, as in --source=test.en --target=test.de")
    total = count = truncated = pieces = 0
    with contextlib.ExitStack() as stack:
        sides = [_text.lines(stack.enter_context(_text.opened(p)), p) for p in (values.source, values.target)]
        client = stack.enter_context(_text.open_client(values))
        write, _ = stack.enter_context(_text.writer(values.output, False, {}))
        progress = stack.enter_context(tqdm(unit="pair", disable=not (sys.stderr.isatty() and values.output)))
        for count, row in enumerate(client.scores(_pairs(sides, values)), 1):
            total += row["log_prob"]
            pieces += row["num_pieces"]
            truncated += row["truncated"]
            kept = {name: row[name] for name in ("log_prob", "num_pieces", "truncated")}
            if values.pieces:
                kept |= {name: row[name] for name in ("pieces", "token_log_probs")}
            write(json.dumps({"line": count, **kept}, ensure_ascii=False) + "\n")
            progress.update()
    if truncated:
        _runtime.report(f"warning: {truncated:,} pair(s) were over the model's limit and scored in part")
    _runtime.report(f"{count:,} pairs, log probability {total:.2f}, perplexity {math.exp(-total / max(pieces, 1)):.3f}")


def _pairs(sides: Sequence[Iterator[str]], values: flags.FlagValues) -> Iterator[tuple[str, str]]:
    for number, (source, target) in enumerate(itertools.zip_longest(*sides)):
        if source is None or target is None:
            shorter = values.source if source is None else values.target
            raise UserError(
                f"{values.source} and {values.target} must be aligned line by line: {shorter} has {number:,} lines, "
                "the other more"
            )
        yield source, target


if __name__ == "__main__":
    sys.exit(main())

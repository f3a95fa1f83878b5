"""Makes parallel text out of text in one language, with a trained model; or out of parallel text with its terms.

python -m pipelines.augment --run_dir=runs/de-en --input=mono.de.gz --output_dir=text/bt --tag='<BT>' --sample
python -m pipelines.augment --run_dir=runs/big --input=train.en.gz --output_dir=text/distilled --kind=forward
python -m pipelines.augment --kind=terms --glossary=terms.tsv --input=train.en --reference=train.de \
    --source_language=en --target_language=de --output_dir=text/terms

--output_dir gets text.<language> of both languages, line n of line n of --input, pairs.jsonl with scores, and card.json
with what made them. The same command goes on after an interruption.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Sequence

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
    _cli.define_inference_flags(values, argv)
    _cli.define_sampling_flags(values)
    flags.DEFINE_string("input", None, "Text in the language that the run reads; .gz is unpacked.", flag_values=values)
    flags.DEFINE_string("output_dir", None, "Folder for the corpus.", flag_values=values)
    flags.DEFINE_enum(
        "kind",
        "back",
        ["back", "forward", "terms"],
        "back: the next model translates into the language of --input; forward: out of it; terms: it reads --input "
        "with the terms of --glossary that --reference has, for data.annotated_terms.",
        flag_values=values,
    )
    flags.DEFINE_string("glossary", None, "Of --kind=terms: as of translate.", flag_values=values)
    flags.DEFINE_string("source_language", None, "Of --kind=terms: the language of --input.", flag_values=values)
    flags.DEFINE_bool("sample", False, "Draw translations instead of searching.", flag_values=values)
    flags.DEFINE_string("reference", None, "Translations of --input: of --n_best take the nearest.", flag_values=values)
    flags.DEFINE_integer("n_best", 1, "With --reference: of so many, at most --beam_size.", 1, flag_values=values)
    flags.DEFINE_string("tag", "", "A word before what the next model reads, such as <BT>.", flag_values=values)
    flags.DEFINE_bool("noise", False, "Drop, replace and move words of what the next model reads.", flag_values=values)
    flags.DEFINE_float(
        "max_length_ratio", 0.0, "Leave out pairs with a side so many times as long; 0 is off.", 0.0, flag_values=values
    )
    flags.DEFINE_float(
        "min_score", None, "Leave out pairs with a lower log probability of a piece, such as -1.5.", flag_values=values
    )
    flags.DEFINE_list("dual_run_dir", [], "A run of the other direction, for --min_dual.", flag_values=values)
    flags.DEFINE_float(
        "min_dual", 0.0, "Leave out pairs of a lower dual cross entropy, as a likelihood.", 0.0, 1.0, flag_values=values
    )


def _job(values: flags.FlagValues) -> None:
    if values.kind == "terms":
        _annotate(values)
        return
    for name in ("glossary", "source_language"):
        if values[name].present:
            raise UserError(f"--{name} goes with --kind=terms")
    for name in ("run_dir", "input", "output_dir"):
        if not values[name].value:
            raise UserError(f"--{name} must be given, as in --run_dir=runs/de-en --input=mono.de --output_dir=text/bt")
    _check(values)
    _require_kept(values)
    _process.load_tensorflow()
    from nmt_keras.experiment.augment import Changes, Choice, Filters, augment

    drawn = _cli.sampling_of(values) if values.sample else None
    with contextlib.ExitStack() as stack:
        lines = _text.lines(stack.enter_context(_text.opened(values.input)), values.input)
        references = None
        if values.reference:
            references = _text.lines(stack.enter_context(_text.opened(values.reference)), values.reference)
        progress = stack.enter_context(tqdm(unit="line", disable=not shows_bars()))
        card = augment(
            _cli.run_dirs(values),
            lines,
            pathlib.Path(values.output_dir),
            about={"input": values.input, "reference": values.reference},
            kind=values.kind,
            checkpoint=values.checkpoint,
            decoding=_cli.decoding_overrides(values),
            target_language=values.target_language,
            choice=Choice(drawn, _cli.mbr_options(values), values.n_best),
            changes=Changes(values.tag, values.noise),
            filters=Filters(values.max_length_ratio, values.min_score, values.min_dual),
            references=references,
            dual_run_dirs=[pathlib.Path(folder) for folder in values.dual_run_dir],
            seed=values.seed,
            progress=progress.update,
            report=_process.report,
        )
    print(json.dumps(card, ensure_ascii=False))


def _require_kept(values: flags.FlagValues) -> None:
    """Checks that no file of the corpus that is made is one of those it is made of."""
    folder = pathlib.Path(values.output_dir)
    for path in (*folder.glob("text.*"), folder / "pairs.jsonl", folder / "card.json"):
        files.require_writable(path, [values.input, values.reference, values.glossary])


def _annotate(values: flags.FlagValues) -> None:
    for name in ("glossary", "input", "reference", "source_language", "target_language", "output_dir"):
        if not values[name].value:
            raise UserError(
                f"--{name} must be given with --kind=terms, as in --glossary=terms.tsv --input=train.en "
                "--reference=train.de --source_language=en --target_language=de --output_dir=text/terms"
            )
    for name in ("run_dir", "sample", "n_best", "mbr", "tag", "noise", "max_length_ratio", "min_score", "min_dual"):
        if values[name].present:
            raise UserError(f"--{name} does not go with --kind=terms, which translates nothing: leave it out")
    _require_kept(values)
    _process.load_tensorflow()
    from nmt_keras.experiment.annotate import annotate
    from nmt_keras.inference.glossary import Glossary

    with contextlib.ExitStack() as stack:
        sources, targets = (
            _text.lines(stack.enter_context(_text.opened(path)), path) for path in (values.input, values.reference)
        )
        card = annotate(
            sources,
            targets,
            Glossary.read(values.glossary),
            (values.source_language, values.target_language),
            pathlib.Path(values.output_dir),
            about={"input": values.input, "reference": values.reference, "glossary": values.glossary},
            progress=stack.enter_context(tqdm(unit="line", disable=not shows_bars())).update,
            report=_process.report,
        )
    print(json.dumps(card, ensure_ascii=False))


def _check(values: flags.FlagValues) -> None:
    _cli.check_sampling_flags(values, values.sample or values.noise)
    if values.sample and values.mbr is not None:
        raise UserError("--sample draws one translation, --mbr chooses among several: give one of them")
    if (values.n_best > 1) != bool(values.reference):
        raise UserError("--n_best and --reference go together: of so many translations, the nearest to it is taken")
    if values.n_best > 1 and (values.sample or values.mbr is not None):
        raise UserError("--n_best is of a beam: leave out --sample and --mbr")
    if bool(values.min_dual) != bool(values.dual_run_dir):
        raise UserError("--min_dual and --dual_run_dir go together: a run of the other direction scores the pairs")
    if values.tag and any(c.isspace() for c in values.tag):
        raise UserError(f"--tag must be one word. Received: {values.tag!r}")


if __name__ == "__main__":
    sys.exit(main())

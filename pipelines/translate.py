"""Translates text, a sentence a line, with a trained model, an export or a server; stdin to stdout without files.

python -m pipelines.translate --run_dir=runs/m30k --input=test.en --output=test.hyp      # a line out per line in
With --scores, --alignments, --n_best or --samples a line is a JSON object with all hypotheses, best first.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.errors import Interrupted, UserError
from nmt_keras.inference.glossary import Glossary, PlacedTerms, require_takes_terms
from nmt_keras.inference.protection import Protection, named
from nmt_keras.reports import shows_bars
from nmt_keras.tokenizers.white_space import is_blank
from pipelines import _cli, _process, _text

if typing.TYPE_CHECKING:
    from nmt_keras.inference.translation import Translation

_REQUEST_OPTIONS = ("beam_size", "length_penalty", "max_length")  # options of the search that an export takes too
_RULES_BEYOND_EXACT = (
    "split_sentences",
    "replace_unknown",
    "no_repeat_ngram",
    "repetition_penalty",
    "banned_phrases",
    "shortlist",
)
# Iterators of what is given beside each line, by the names that `stream` of a translator or a client has for them.
Given = dict[str, typing.Any]
# Lines, what is given beside them, and how many lines came before them, to their translations.
Stream = Callable[[Iterable[str], Given, int], Iterator["Translation"]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    _cli.define_inference_flags(values, argv)
    _text.define_model_flags(values)
    flags.DEFINE_string("input", None, "Text to translate; .gz is unpacked. Default: stdin.", flag_values=values)
    flags.DEFINE_string(
        "prefixes",
        None,
        "A file of what each translation begins with, line by line; it may end inside a word, or be empty.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "glossary",
        None,
        "A file of terms: a source term, a tab and what it is in a translation, a line each; see docs/search.md.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "protect",
        [],
        "What translations have as the text has it: some of tag, entity, url, email, number, placeholder, or a "
        "regular expression; see docs/search.md. --protect= is nothing. Default: decoding.protect of the run or export",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "Where the translations go. Default: stdout.", flag_values=values)
    flags.DEFINE_bool("resume", False, "Go on with the --output of an interrupted job.", flag_values=values)
    flags.DEFINE_bool(
        "split_sentences",
        False,
        "A line may be a paragraph: translate its sentences, and join the translations.",
        flag_values=values,
    )
    flags.DEFINE_integer("n_best", 1, "Translations of each line, at most --beam_size.", 1, flag_values=values)
    flags.DEFINE_integer("samples", 0, "Draw so many translations instead of searching.", 0, flag_values=values)
    flags.DEFINE_bool("scores", False, "Also scores, and log probabilities of pieces.", flag_values=values)
    flags.DEFINE_bool("alignments", False, "Also the source piece that each piece reads most.", flag_values=values)
    _cli.define_sampling_flags(values)
    flags.DEFINE_integer(
        "exact",
        None,
        "Find the most probable translation of all, within so many steps of the model a line; for analysis.",
        1,
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
    if values.output not in (None, "-"):
        files.require_writable(values.output, [values.input, values.prefixes, values.glossary])
    count, has_few = 0, False
    try:
        glossary = PlacedTerms(Glossary.read(values.glossary), _process.report) if values.glossary else None
        Protection(named(values.protect))  # raises if one of them is none
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(_text.opened(values.input)) if values.input else sys.stdin.buffer
            stream, about = stack.enter_context(_opened(values))
            write, count = stack.enter_context(_text.writer(values.output, values.resume, about))
            if count:
                _process.report(f"resuming after line {count:,}")
            progress = stack.enter_context(
                tqdm(unit="line", initial=count, disable=not (shows_bars() and values.output))
            )
            if not values.input and sys.stdin.isatty():
                _process.report("reading from the keyboard, a sentence a line; Ctrl-D ends, and translates")
            lines = _text.lines(source, values.input or "stdin")
            skipped = sum(1 for _ in itertools.islice(lines, count))
            if skipped < count:
                raise UserError(f"--resume: the interrupted --output has {count:,} lines, --input only {skipped:,}")
            lines, prefixes = _with_prefixes(lines, values, stack, count)
            given: Given = {} if prefixes is None else {"prefixes": prefixes}
            lines, again = itertools.tee(lines)
            texts: Iterable[str] = lines
            if glossary and about.get("annotates_terms"):
                glossary.is_annotated = True
                texts = glossary.annotated(lines, count)
            elif glossary:
                protection = Protection([*about.get("protect", ()), *about.get("placeholders", ())])  # none is a term
                texts, looked_up = itertools.tee(texts)
                given["terms"] = glossary.found((protection.take_out(text).plain for text in looked_up), count)
            for line, translation in zip(again, stream(texts, given, count)):
                if translation.truncated and values.on_long == "refuse":
                    raise Interrupted(
                        f"Line {count + 1} is longer than the model's limit; shorten it, or give --on_long=truncate"
                        + ("" if count else ", or raise --decoding.max_source_length or .max_source_characters")
                    )
                has_few |= _report_doubts(count + 1, line, translation, values, has_few)
                terms = glossary.placed(count + 1, translation) if glossary else None
                text = _to_json(count + 1, translation, values, terms) if _as_json(values) else translation.text
                write(text + "\n")
                count += 1
                progress.update()
        if glossary:
            _process.report(glossary.summary())
        if not count:
            _process.report(f"{values.input or 'stdin'} has no lines: nothing was translated")
    except Interrupted as error:
        kept = f"; the same command with --resume goes on after line {count:,}" if values.output and count else ""
        raise Interrupted(f"{error}{kept}") from error
    except KeyboardInterrupt:
        go_on = "; the same command with --resume goes on from there" if values.output and count else ""
        _process.report(f"interrupted after line {count:,}{go_on}")
        return _cli.STATUS_INTERRUPTED
    return None


def _with_prefixes(
    lines: Iterator[str], values: flags.FlagValues, stack: contextlib.ExitStack, count: int
) -> tuple[Iterator[str], Iterator[str] | None]:
    """The lines after the first `count`, and what --prefixes has for them; None without it."""
    if values.prefixes is None:
        return lines, None
    file = stack.enter_context(_text.opened(values.prefixes, "prefixes"))
    prefixes = itertools.islice(_text.lines(file, values.prefixes, "prefixes"), count, None)

    def pairs() -> Iterator[tuple[str, str]]:
        for number, (line, prefix) in enumerate(itertools.zip_longest(lines, prefixes), count + 1):
            if line is None or prefix is None:
                name = "--input" if line is None else "--prefixes"
                raise Interrupted(
                    f"{name} ends before line {number:,}, and {'--prefixes' if line is None else '--input'} goes on: "
                    "give a line of prefixes for each line of text, empty for none"
                )
            yield line, prefix

    one, other = itertools.tee(pairs())
    return (line for line, _ in one), (prefix for _, prefix in other)


def _check(values: flags.FlagValues) -> None:
    _text.check_model_flags(values, _REQUEST_OPTIONS)
    if not values.run_dir:
        given = [name for name in ("top_k", "top_p", "split_sentences", "mbr", "exact") if values[name].present]
        if given:
            raise UserError(f"--{given[0]} goes with --run_dir: an export keeps what it was made with")
        if values.n_best > 1 and values.beam_size is None and not values.samples:
            raise UserError(
                "--n_best with an export needs --beam_size, at least as large, as in "
                f"--n_best={values.n_best} --beam_size={max(values.n_best, 5)}"
            )
    _cli.check_sampling_flags(values, bool(values.samples))
    if values.mbr is not None and (values.samples or values["n_best"].present):
        raise UserError("--mbr gives one translation of each line: leave out --samples and --n_best")
    if values.exact is not None and (values.samples or values.mbr is not None or values["n_best"].present):
        raise UserError("--exact gives one translation of each line: leave out --samples, --mbr and --n_best")
    for name in ("mbr", "exact", "split_sentences"):
        if values.prefixes is not None and values[name].value:
            raise UserError(f"--prefixes goes with a search or samples of sentences: leave out --{name}")
    for name in ("mbr", "exact", "samples"):
        if values.glossary and values[name].value:
            raise UserError(f"--glossary goes with beam search: leave out --{name}")
    if any(values.protect) and values.exact is not None:
        raise UserError("--protect does not go with --exact: leave out one of them")
    if values.glossary and values.split_sentences:
        raise UserError("--glossary goes with a sentence a line: leave out --split_sentences")
    if values.samples and values["n_best"].present:
        raise UserError("--n_best is of a search, and --samples says how many are drawn: leave out one of them")
    if values.resume and not values.output:
        raise UserError("--resume goes on with a file: give the --output of the interrupted job")


@contextlib.contextmanager
def _opened(values: flags.FlagValues) -> Iterator[tuple[Stream, dict[str, typing.Any]]]:
    """What translates lines, and what decides the translations, for --resume."""
    if values.run_dir:
        stream, about, end = _of_run(values)
        yield stream, about
        end()
        return
    names = (
        "input",
        "prefixes",
        "glossary",
        "target_language",
        "saved_model",
        "server",
        "n_best",
        "samples",
        "scores",
        "alignments",
    )
    request_options = _cli.decoding_overrides(values)
    if _as_json(values):
        request_options |= {"num_hypotheses": max(values.n_best, values.samples)}
    if values.samples:
        request_options |= {"temperature": values.temperature, "seed": values.seed}
    with _text.open_client(values) as client:

        def stream(texts: Iterable[typing.Any], given: Given, first_number: int) -> Iterator["Translation"]:
            return client.stream(
                texts,
                **given,
                protect=_protect(values),
                first_number=first_number,
                target_language=_text.target_language(values),
                **request_options,
            )

        about = {**{name: values[name].value for name in names}, **request_options}
        asked = _protect(values)
        protect = client.protect if asked is None else asked
        about |= _of_model(protect, client.placeholders, client.annotates_terms)
        if values.beam_size or values.samples:
            _warn_of_fewer_beams(values, client.max_beam_size)
        if values.protect and _as_json(values) and client.splits_sentences:
            raise UserError(
                "An export that splits texts gives one text for a line, and nothing of its sentences: leave out "
                "--n_best, --samples, --scores and --alignments"
            )
        yield stream, about


def _warn_of_fewer_beams(values: flags.FlagValues, most: int | None) -> None:
    """Says that an export has fewer beams or samples than were asked for, if it says how many it has."""
    for name, asked in (("beam_size", values.beam_size or 0), ("samples", values.samples)):
        if most is not None and asked > most:
            _process.report(
                f"warning: --{name}={asked} is cut to {most}, the most that this export was made with; "
                f"export the run with --decoding.max_beam_size={asked}"
            )


def _of_model(protect: Sequence[str], placeholders: Sequence[str], annotates_terms: bool) -> dict[str, typing.Any]:
    """What decides what is protected, and how terms are found and written: into the text, of a model that was trained
    with such, where nothing is taken out of it."""
    found: dict[str, typing.Any] = {"protect": list(protect), "placeholders": list(placeholders)}
    found["annotates_terms"] = annotates_terms and not protect
    return {name: values for name, values in found.items() if values}


def _protect(values: flags.FlagValues) -> list[str] | None:
    """The patterns of --protect; None where it is not given."""
    return named(values.protect) if values["protect"].present else None


def _of_run(values: flags.FlagValues) -> tuple[Stream, dict[str, typing.Any], Callable[[], None]]:
    """What `_opened` gives, of --run_dir, and what to do when all is translated."""
    _process.load_tensorflow()
    from nmt_keras.config import DecodingConfig, ExperimentConfig
    from nmt_keras.inference.minimum_bayes_risk import require_enough
    from nmt_keras.runs.loading import load

    sampling = _cli.sampling_of(values) if values.samples else None
    options = _cli.mbr_options(values)

    def about_of(config: ExperimentConfig) -> dict[str, typing.Any]:
        asked = _protect(values)
        protect = named(config.decoding.protect) if asked is None else asked
        return _of_model(protect, config.data.placeholders, config.data.annotated_terms)

    def check(config: ExperimentConfig) -> None:
        if config.decoding.split_sentences and _as_json(values):
            raise UserError(
                "--split_sentences gives one text for a line, and nothing of its sentences: leave out --n_best, "
                "--samples, --scores and --alignments"
            )
        rules = [
            name for name in _RULES_BEYOND_EXACT if getattr(config.decoding, name) != getattr(DecodingConfig, name)
        ]
        if values.exact is not None and rules:
            raise UserError(
                f"--exact knows no decoding.{rules[0]}: give --decoding.{rules[0]} its default, or no --exact"
            )
        for name in ("prefixes", "glossary"):
            if values[name].value and config.decoding.split_sentences:
                raise UserError(f"--{name} goes with a sentence a line: give --decoding.split_sentences=False")
        about = about_of(config)
        if values.glossary and not about.get("annotates_terms"):
            require_takes_terms(config.decoding)
        if options:
            require_enough(options, config.decoding.beam_size)
        if not sampling and values.n_best > config.decoding.beam_size:
            raise UserError(
                f"--n_best must be at most the beam size. Received: {values.n_best} and {config.decoding.beam_size}; "
                f"give --beam_size={values.n_best}"
            )

    overrides = _cli.overrides(values)
    protect = _protect(values)
    if protect is not None:
        overrides["decoding.protect"] = ()  # it may be refused with what else is asked
    if values.split_sentences:
        overrides["decoding.split_sentences"] = True
    if values.exact is not None:  # which knows no penalty, and all ids
        overrides = {"decoding.length_penalty": 0.0, "decoding.shortlist": 0, **overrides}
    run = load(_cli.run_dirs(values), overrides, values.checkpoint, report=_process.report, check=check)
    is_split = run.config.decoding.split_sentences
    if protect and not is_split:
        run.config.decoding.protect = tuple(protect)
    exact = None if values.exact is None else run.exact_translator(values.exact)
    searching = run.translator(values.samples or values.n_best, sampling)
    translator = run.mbr_translator(options) if options else exact or searching
    client = run.client() if protect and is_split else None  # it puts back what is over several sentences

    def stream(texts: Iterable[typing.Any], given: Given, first_number: int) -> Iterator["Translation"]:
        if client is not None:
            return client.stream(texts, **given, protect=protect, target_language=values.target_language or None)
        if given:
            return searching.stream(texts, **given, first_number=first_number)
        return translator.stream(texts, first_number=first_number)

    def end() -> None:
        if exact:
            _process.report(exact.summary())

    names = ["input", "run_dir", "n_best", "samples", "scores", "alignments", "seed", "temperature", "top_k", "top_p"]
    names += ["target_language", "prefixes", "glossary"]
    names += ["mbr", "mbr_utility", "mbr_candidates", "mbr_each"] if options else []
    names += ["exact"] if values.exact is not None else []
    about = {**{name: values[name].value for name in names}, "step": run.step, "checkpoint": values.checkpoint}
    return stream, {**about, **dataclasses.asdict(run.config.decoding), **about_of(run.config)}, end


def _report_doubts(
    number: int, line: str, translation: "Translation", values: flags.FlagValues, is_silent_on_few: bool
) -> bool:
    """Warns of a line that was translated in part, to nothing, or to fewer translations than wanted; whether to the
    last."""
    if translation.truncated:
        _process.report(
            f"warning: line {number} is longer than the model's limit and was translated in part; "
            "--decoding.max_source_length (pieces) and --decoding.max_source_characters are the limits"
            + ("" if values.run_dir else ", with which the model is exported")
        )
    if not translation.outputs.get("is_prefix_kept", True):
        _process.report(
            f"warning: line {number}: its translation does not begin with all of its line of --prefixes: the "
            "vocabulary cannot write it, or decoding.max_length leaves no room, or the line is blank"
        )
    if not translation.outputs.get("is_protected", True):
        _process.report(
            f"warning: line {number}: the regular expressions of what is to be protected took over 1 s, and only what "
            "named patterns find is; give ones that need not go back, as a+b and not (a+)+b"
        )
    if not translation.text.strip() and not is_blank(line):
        _process.report(f"warning: line {number} has text, and its translation is empty")
    count, wanted = len(translation.hypotheses), max(values.n_best, values.samples)
    has_few = not values.run_dir and bool(translation.best.pieces) and count < wanted
    if has_few and not is_silent_on_few:
        _process.report(
            f"warning: line {number} has {count} of {wanted} translations: the export's limit "
            "(decoding.max_beam_size), or all that its search found; other lines like it are not named"
        )
    return has_few


def _as_json(values: flags.FlagValues) -> bool:
    return max(values.n_best, values.samples) > 1 or values.scores or values.alignments


def _to_json(
    number: int, translation: "Translation", values: flags.FlagValues, terms: list[list[tuple[str, bool]]] | None
) -> str:
    row: dict[str, typing.Any] = {"line": number, "truncated": translation.truncated}
    if values.prefixes is not None:
        row["is_prefix_kept"] = bool(translation.outputs.get("is_prefix_kept", True))
    if values.exact is not None:
        row |= translation.outputs
    if values.alignments:
        row["source_pieces"] = translation.source_pieces
    row["hypotheses"] = []
    for place, hypothesis in enumerate(translation.hypotheses):
        entry: dict[str, typing.Any] = {"text": hypothesis.text}
        if "plain" in hypothesis.outputs:  # the text that the pieces are of
            entry["plain"] = hypothesis.outputs["plain"]
        if values.scores or values.alignments:
            entry["pieces"] = hypothesis.pieces
        if values.scores:
            for name in ("log_prob", "score"):
                value = getattr(hypothesis, name)
                entry[name] = value if math.isfinite(value) else None
            entry["token_log_probs"] = [round(value, 6) for value in hypothesis.token_log_probs]
        if values.alignments:
            entry["alignment"] = hypothesis.alignment
        if terms is not None:
            entry["terms"] = [{"term": name, "is_placed": bool(is_placed)} for name, is_placed in terms[place]]
        row["hypotheses"].append(entry)
    return json.dumps(row, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())

"""Makes parallel text out of text in one language, with a trained model: back-translation, and forward translation."""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from nmt_keras import files
from nmt_keras.data.batch_plan import mix
from nmt_keras.data.noise import noised
from nmt_keras.errors import UserError
from nmt_keras.inference.minimum_bayes_risk import MBROptions, chrf_utilities
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.reports import Report, silent
from nmt_keras.runs.layout import read_config
from nmt_keras.runs.loading import Run, load
from nmt_keras.tokenizers.white_space import is_blank

KINDS = ("back", "forward")
_CHUNK = 1024  # lines that are translated, scored and written at a time


class Choice(NamedTuple):
    """How the translation of a line is found: the best of a beam, unless one of these is given."""

    sampling: Sampling | None = None  # one translation is drawn
    mbr: MBROptions | None = None  # one of several is chosen by minimum Bayes risk
    candidates: int = 1  # the nearest to the reference of so many is taken


class Filters(NamedTuple):
    """What leaves a pair out; a limit of 0 or None is off."""

    max_length_ratio: float = 0.0  # of the characters of the longer side to those of the shorter
    min_score: float | None = None  # log probability of a piece of the translation, in the mean
    min_dual: float = 0.0  # dual conditional cross entropy as a likelihood, from 0 to 1


class Changes(NamedTuple):
    """How the source side of the new corpus is changed."""

    tag: str = ""  # a word at its beginning (Caswell et al. 2019)
    noise: bool = False  # (Edunov et al. 2018)


def augment(
    run_dirs: Sequence[pathlib.Path],
    lines: Iterable[str],
    output_dir: pathlib.Path,
    *,
    about: Mapping[str, Any],
    kind: str = "back",
    checkpoint: str = "best",
    decoding: Mapping[str, Any] = MappingProxyType({}),
    target_language: str = "",
    choice: Choice = Choice(),
    changes: Changes = Changes(),
    filters: Filters = Filters(),
    references: Iterable[str] | None = None,
    dual_run_dirs: Sequence[pathlib.Path] = (),
    seed: int = 1,
    progress: Callable[[int], Any] = lambda count: None,
    report: Report = silent,
) -> dict[str, Any]:
    """Translates text into a parallel corpus: `text.<language>` of both languages, `pairs.jsonl` and `card.json`.

    Line n of both files is made of line n of the input. A blank line, and a pair that a filter leaves out, is blank in
    both, which training leaves out. The same call goes on with what an interrupted one has written.

    Args:
        run_dirs: of the model, which reads the language of the input; several are an ensemble.
        lines: the text.
        output_dir: a folder for the corpus.
        about: JSON values that say what the text is, for the card; a call with others does not go on.
        kind: `back` if the next model shall translate into the language of the input, whose source is synthetic;
            `forward` if it shall translate out of it, as a student of this model (Kim and Rush 2016).
        checkpoint: of the runs.
        decoding: options of the search instead of the recipe's.
        target_language: of a model of several; "" is the recipe's.
        choice: how the translation of a line is found.
        changes: of the source side of the new corpus.
        filters: what leaves a pair out.
        references: translations of the lines, of which `choice.candidates` takes the nearest.
        dual_run_dirs: of a model of the other direction, which `filters.min_dual` needs.
        seed: of noise.
        progress: is told how many more lines are done.
        report: takes lines for the user.

    Returns:
        The card: what made the text, and how many pairs there are and were left out, by reason.

    Raises:
        UserError: a run or the text cannot be used, the corpus is there already, or the folder cannot be written.
    """
    card_path = output_dir / "card.json"
    if card_path.exists():
        raise UserError(f"{output_dir} holds a whole corpus, with its card.json: give another --output_dir")
    overrides: dict[str, Any] = {f"decoding.{name}": value for name, value in decoding.items()}
    if target_language:
        overrides["data.target_language"] = target_language
    run = load(run_dirs, overrides, checkpoint, report=report)
    dual = load(dual_run_dirs, _dual_overrides(dual_run_dirs[0], run), report=report) if dual_run_dirs else None
    languages = run.config.data.source_language, run.config.data.target_language
    _require_fitting(run, dual, choice)
    card: dict[str, Any] = {
        **about,
        "kind": kind,
        "run_dirs": list(map(str, run_dirs)),
        "checkpoint": checkpoint,
        "languages": list(languages),
        "step": run.step,
        "weights_sha256": run.weights_sha256,
        "decoding": dataclasses.asdict(run.config.decoding),
        "sampling": choice.sampling and choice.sampling._asdict(),
        "mbr": choice.mbr and choice.mbr.as_json(),
        "candidates": choice.candidates,
        "changes": changes._asdict(),
        "filters": filters._asdict(),
        "dual_run_dirs": list(map(str, dual_run_dirs)),
        "dual_weights_sha256": dual and dual.weights_sha256,
        "seed": seed,
    }
    files.make_folder(output_dir)
    pairs_path = output_dir / "pairs.jsonl"
    options_path = output_dir / "options.json"  # of pairs.jsonl, until card.json is there
    if pairs_path.exists():
        _require_same_options(options_path, card)
    else:
        resume = pairs_path.with_name("pairs.jsonl.partial").exists()
        with files.resumable_write(pairs_path, resume, card) as (file, count):
            if count:
                report(f"resuming after line {count:,}")
                progress(count)
            maker = _Maker(run, dual, choice, filters, changes.tag)
            for row in maker.rows(itertools.islice(lines, count, None), references, count):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                progress(1)
            files.write_json(options_path, card)
    counts = _write_text(pairs_path, output_dir, languages, kind, changes, seed)
    card["lines"] = counts
    files.write_json(card_path, card)
    options_path.unlink()
    left_out = ", ".join(f"{number:,} for {reason}" for reason, number in counts["left_out"].items()) or "none"
    report(f"{counts['pairs']:,} pairs of {counts['all']:,} lines in {output_dir}; left out: {left_out}")
    return card


def _require_fitting(run: Run, dual: Run | None, choice: Choice) -> None:
    """Checks that a run can make what is asked for, and that the other one is of the other direction."""
    decoding, data = run.config.decoding, run.config.data
    if choice.candidates > decoding.beam_size:
        raise UserError(
            f"{choice.candidates} candidates of a line need as many beams. Received: {decoding.beam_size}; give "
            f"--beam_size={choice.candidates}"
        )
    if decoding.split_sentences:
        raise UserError("--decoding.split_sentences joins translations, which have no score: give a sentence a line")
    if data.source_language == data.target_language:
        raise UserError(
            f"{run.folder} translates {data.source_language} to {data.target_language}: both sides of the corpus would "
            f"be one file, text.{data.source_language}"
        )
    back = dual and (dual.config.data.source_language, dual.config.data.target_language)
    if dual and back != (data.target_language, data.source_language):
        raise UserError(
            f"{dual.folder} translates {dual.config.data.source_language} to {dual.config.data.target_language}: "
            f"--dual_run_dir must be of the other direction than {data.source_language} to {data.target_language}"
        )


def _dual_overrides(folder: pathlib.Path, run: Run) -> dict[str, Any]:
    """Options of a run of the other direction: where it has several target languages, that which the text is in."""
    back = run.config.data.source_language
    known = read_config(folder).data.target_languages
    return {"decoding.shortlist": 0, **({"data.target_language": back} if back in known else {})}


def _require_same_options(path: pathlib.Path, card: dict[str, Any]) -> None:
    """Checks that pairs that are there were made with the same options."""
    now = json.loads(json.dumps(card))
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}, which says how pairs.jsonl was made, cannot be read: remove both") from error
    changed = [f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{path.parent} was begun otherwise: {'; '.join(changed)}; give the same, or another --output_dir"
        )


class _Maker:
    """Makes pairs of lines, with their scores."""

    def __init__(self, run: Run, dual: Run | None, choice: Choice, filters: Filters, tag: str):
        self._choice = choice
        self._filters = filters
        self._tag = tag
        self._dual = dual.client() if dual else None
        self._translator = (
            run.mbr_translator(choice.mbr)
            if choice.mbr
            else run.translator(choice.candidates if not choice.sampling else 1, choice.sampling)
        )

    def rows(
        self, lines: Iterable[str], references: Iterable[str] | None, first_number: int
    ) -> Iterator[dict[str, Any]]:
        """A JSON row for each line; `first_number` is how many lines came before."""
        lines = iter(lines)
        expected = itertools.islice(references, first_number, None) if references is not None else None
        while chunk := list(itertools.islice(lines, _CHUNK)):
            for number, line in enumerate(chunk, first_number + 1):
                if self._tag and self._tag in line.split():
                    raise UserError(f"Line {number} has {self._tag!r}, which --tag puts before text: give another tag")
            translations = self._translator.translate(chunk, first_number=first_number)
            wanted = None if expected is None else list(itertools.islice(expected, len(chunk)))
            if wanted is not None and len(wanted) < len(chunk):
                raise UserError(
                    f"The reference ends at line {first_number + len(wanted):,}, and the text goes on: give a "
                    "reference of each line"
                )
            chosen = [_nearest(each, wanted[i] if wanted else None) for i, each in enumerate(translations)]
            rows = [self._row(*each) for each in zip(chunk, chosen, translations)]
            if self._dual is not None:
                self._add_dual(rows)
            for row in rows:
                row["left_out"] = row["left_out"] or self._reason(row)
                yield row
            first_number += len(chunk)
        if expected is not None and next(iter(expected), None) is not None:
            raise UserError(f"The text ends at line {first_number:,}, and the reference goes on: they must be aligned")

    def _row(self, line: str, hypothesis: Hypothesis, translation: Translation) -> dict[str, Any]:
        is_empty = is_blank(line) or not hypothesis.text.strip()
        reason = "an empty side" if is_empty else "a text over the model's limit" if translation.truncated else ""
        score = hypothesis.log_prob / max(len(hypothesis.pieces), 1)
        return {
            "text": line,
            "translation": hypothesis.text,
            "score": round(score, 6) if math.isfinite(score) and not is_empty else None,
            "left_out": reason,
        }

    def _add_dual(self, rows: Sequence[dict[str, Any]]) -> None:
        """exp(-(|H1 - H2| + (H1 + H2) / 2)), H the cross entropy of a piece in either direction (Junczys-Dowmunt 2018,
        2.1)."""
        assert self._dual is not None
        whole = [row for row in rows if not row["left_out"]]
        scored = self._dual.scores((row["translation"], row["text"]) for row in whole)
        for row, back in zip(whole, scored):
            forth, back_score = row["score"] or 0.0, back["log_prob"] / max(back["num_pieces"], 1)
            row["dual"] = round(math.exp(-abs(forth - back_score) + (forth + back_score) / 2), 6)

    def _reason(self, row: Mapping[str, Any]) -> str:
        lengths = sorted(len(row[name].strip()) for name in ("text", "translation"))
        filters = self._filters
        if filters.max_length_ratio and lengths[1] > filters.max_length_ratio * lengths[0]:
            return "the length ratio"
        if filters.min_score is not None and (row["score"] is None or row["score"] < filters.min_score):
            return "the score"
        if filters.min_dual and row["dual"] < filters.min_dual:
            return "the dual score"
        return ""


def _nearest(translation: Translation, reference: str | None) -> Hypothesis:
    """The hypothesis of the highest chrF against a reference; the best where there is none."""
    if reference is None or len(translation.hypotheses) == 1:
        return translation.best
    texts = [hypothesis.text for hypothesis in translation.hypotheses]
    scores = chrf_utilities([*texts, reference])[:-1, -1]
    return translation.hypotheses[int(scores.argmax())]


def _write_text(
    pairs: pathlib.Path, folder: pathlib.Path, languages: tuple[str, str], kind: str, changes: Changes, seed: int
) -> dict[str, Any]:
    """Writes both sides of the corpus; how many pairs there are, and were left out."""
    names = ("text", "translation")
    read = 1 if kind == "back" else 0  # the side that the next model reads
    reasons: dict[str, int] = {}
    total = 0
    with (
        files.atomic_write(folder / f"text.{languages[0]}") as first,
        files.atomic_write(folder / f"text.{languages[1]}") as second,
        open(first, "w", encoding="utf-8", newline="\n") as first_file,
        open(second, "w", encoding="utf-8", newline="\n") as second_file,
        open(pairs, encoding="utf-8", newline="\n") as rows,
    ):
        for total, line in enumerate(rows, 1):
            row = json.loads(line)
            texts = ["", ""] if row["left_out"] else [row[name] for name in names]
            if row["left_out"]:
                reasons[row["left_out"]] = reasons.get(row["left_out"], 0) + 1
            else:
                if changes.noise:
                    texts[read] = noised(texts[read], mix(seed, total))
                if changes.tag:
                    texts[read] = f"{changes.tag} {texts[read]}"
            first_file.write(texts[0] + "\n")
            second_file.write(texts[1] + "\n")
    return {"all": total, "pairs": total - sum(reasons.values()), "left_out": reasons}

"""Makes training text whose sources have their terms beside them, for models that read a glossary so."""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nmt_keras import files
from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import Glossary, stands_in
from nmt_keras.reports import Report, silent


def annotate(
    sources: Iterable[str],
    targets: Iterable[str],
    glossary: Glossary,
    languages: tuple[str, str],
    output_dir: pathlib.Path,
    *,
    about: Mapping[str, Any],
    progress: Callable[[int], Any] = lambda count: None,
    report: Report = silent,
) -> dict[str, Any]:
    """Writes pairs whose source has, after a term, the way to say it that stands in the target: `text.<language>` of
    both languages, and `card.json`.

    Line n of both files is made of line n of the text. A pair without such a term is blank in both, which training
    leaves out: add the text itself as another corpus.

    Args:
        sources: text.
        targets: its translations.
        glossary: of its terms.
        languages: codes of both, which name the files.
        output_dir: a folder for the corpus.
        about: JSON values that say what the text is, for the card.
        progress: is told how many more lines are done.
        report: takes a line for the user.

    Returns:
        The card: how many pairs and terms there are.

    Raises:
        UserError: the sides are not aligned, have no such term, the corpus is there already, or the folder cannot be
            written.
    """
    if languages[0] == languages[1]:
        raise UserError(f"Both languages are {languages[0]!r}: the sides of the corpus would be one file")
    card_path = output_dir / "card.json"
    if card_path.exists():
        raise UserError(f"{output_dir} holds a whole corpus, with its card.json: give another --output_dir")
    files.make_folder(output_dir)
    counts = {"all": 0, "pairs": 0, "terms": 0}
    with (
        files.atomic_write(output_dir / f"text.{languages[0]}") as first,
        files.atomic_write(output_dir / f"text.{languages[1]}") as second,
        open(first, "w", encoding="utf-8", newline="\n") as source_file,
        open(second, "w", encoding="utf-8", newline="\n") as target_file,
    ):
        for source, target in _pairs(sources, targets):
            said = 0

            def choose(ways: tuple[str, ...], target: str = target) -> str | None:
                nonlocal said
                found = next((way for way in ways if stands_in(way, target)), None)
                said += found is not None
                return found

            annotated = glossary.annotated(source, choose)
            source_file.write(f"{annotated if said else ''}\n")
            target_file.write(f"{target if said else ''}\n")
            counts["all"] += 1
            counts["pairs"] += said > 0
            counts["terms"] += said
            progress(1)
        if not counts["pairs"]:
            raise UserError("No pair has a term of the glossary on both sides: give a glossary of this text")
    card = {**about, "kind": "terms", "languages": list(languages), "lines": counts}
    files.write_json(card_path, card)
    report(f"{counts['pairs']:,} pairs of {counts['all']:,} have {counts['terms']:,} terms, in {output_dir}")
    return card


def _pairs(sources: Iterable[str], targets: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, (source, target) in enumerate(itertools.zip_longest(sources, targets), 1):
        if source is None or target is None:
            ended, other = ("--input", "--reference") if source is None else ("--reference", "--input")
            raise UserError(f"{ended} ends before line {number:,}, and {other} goes on: they must be aligned")
        yield source, target

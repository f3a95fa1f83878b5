"""A copy of a corpus without the lines that the doctor would take out, and a list of these."""

import os
import pathlib
from collections.abc import Sequence

from nmt_keras import files
from nmt_keras.data.corpus import TextFile
from nmt_keras.doctor.findings import Finding
from nmt_keras.errors import UserError

DROPPED = ("line count", "empty side", "blank pair", "duplicate", "overlap", "script", "shift")
_AROUND = 2  # lines on either side of a shifted stretch, whose ends are a matter of evidence
_BLOCK = 10_000


def reasons(findings: Sequence[Finding], size: int) -> dict[int, list[str]]:
    """Why lines (0-based, below `size`) are dropped: the kinds of the findings that name them."""
    found: dict[int, list[str]] = {}
    for finding in findings:
        lines = [number - 1 for number in finding.lines]
        if finding.kind == "shift" and lines:
            lines = list(range(lines[0] - _AROUND, lines[-1] + _AROUND + 1))
        for line in lines if finding.kind in DROPPED else ():
            if 0 <= line < size and finding.kind not in found.setdefault(line, []):
                found[line].append(finding.kind)
    return found


def write_clean_copy(
    source: TextFile,
    target: TextFile,
    findings: Sequence[Finding],
    folder: pathlib.Path,
    prefix: str = "",
    beside: Sequence[TextFile] = (),
) -> dict[str, int]:
    """Writes both sides without the lines that findings drop, byte for byte as they were, and `dropped.tsv`.

    Args:
        source: of the corpus.
        target: of the corpus; lines that have no partner by their number are dropped too.
        findings: the doctor's.
        folder: where the files are written, under their own names, without .gz or the like; a side of a file of both
            gets the language's code.
        prefix: of all names, where several corpora are written.
        beside: files with a line for each pair, as of weights or alignments; they lose the same lines.

    Returns:
        How many lines were kept, and how many dropped for each reason.

    Raises:
        UserError: the folder cannot be written, or is the one that the text is in; or a text is in another encoding.
    """
    for finding in findings:
        if finding.kind == "encoding" and "it is no UTF-8" in finding.text:
            raise UserError(f"Nothing was written to {folder}: {finding.text}; then fix the result")
    size = min(len(source), len(target))
    why = reasons(findings, size)
    counts = {"kept": size - len(why)}
    for kinds in why.values():
        for kind in kinds:
            counts[kind] = counts.get(kind, 0) + 1
    if max(len(source), len(target)) > size:
        counts["line count"] = max(len(source), len(target)) - size
    names = [prefix + text.copy_name for text in (source, target)]
    if all(os.path.basename(text.path).isdecimal() for text in (source, target)):  # pipes, such as /dev/fd/63
        names = [f"{prefix}source.txt", f"{prefix}target.txt"]
    if names[0] == names[1]:
        names = [f"source-{names[0]}", f"target-{names[1]}"]
    texts = [source, target, *beside]
    names += [prefix + text.copy_name for text in beside]
    for name, text in zip(names, texts):
        files.require_other_file(folder / name, text.path)
        with files.atomic_write(folder / name) as temporary, open(temporary, "wb") as file:
            for start in range(0, size, _BLOCK):
                lines = [line for line in range(start, min(start + _BLOCK, size)) if line not in why]
                file.writelines(line.removesuffix(b"\n") + b"\n" for line in text.raw_lines(lines))
    with files.atomic_write(folder / f"{prefix}dropped.tsv") as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write("line\treasons\tsource\ttarget\n")
            for line in sorted(why):
                sides = (text.lines([line])[0].replace("\t", " ") for text in (source, target))
                file.write("\t".join((source.place(line), ", ".join(why[line]), *sides)) + "\n")
    return counts

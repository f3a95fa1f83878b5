"""Placeholders: symbols of the tokenizer that stand for what a translation has as its source has it.

A model that learns from text with them copies them to their places; what they stand for is put in again afterwards
(`inference.protection`). In training a span of the source becomes a placeholder where the target has the same span;
afterwards every span does, and comes back as it was, also one that training would translate.
"""

import hashlib
import itertools
import json
import pathlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from tqdm import tqdm

from nmt_keras import files
from nmt_keras.constants import PLACEHOLDERS
from nmt_keras.data.corpus import Origin, ParallelCorpus, TextFile
from nmt_keras.reports import Report, shows_bars

_BLOCK = 10_000
_VERSION = 1  # of what is made of a pair

# The start and the end of each span of a text, in order; TimeoutError or MemoryError where that takes too much.
Finder = Callable[[str], Sequence[tuple[int, int]]]


def symbols_for(source: str, count: int) -> tuple[str, ...]:
    """The symbols of `count` spans of a source, in their order; none where there are more spans than symbols.

    Which comes first depends on the text, so that training sees all of them.
    """
    if count > len(PLACEHOLDERS):
        return ()
    first = zlib.crc32(source.encode("utf-8", "replace"))
    return tuple(PLACEHOLDERS[(first + number) % len(PLACEHOLDERS)] for number in range(count))


def in_pair(source: str, target: str, find: Finder) -> tuple[str, str]:
    """A pair of training, in which the spans that both sides have are placeholders, as many as there are symbols."""
    try:
        spans, others = find(source), find(target)
    except (TimeoutError, MemoryError):
        return source, target
    waiting: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for start, end in reversed(others):
        waiting[target[start:end]].append((start, end))
    both = [((start, end), waiting[source[start:end]].pop()) for start, end in spans if waiting[source[start:end]]]
    both = both[: len(PLACEHOLDERS)]
    symbols = symbols_for(source, len(both))
    in_order = sorted(zip((yours for _, yours in both), symbols))
    return (
        _with_symbols(source, [mine for mine, _ in both], symbols),
        _with_symbols(target, [yours for yours, _ in in_order], [symbol for _, symbol in in_order]),
    )


def in_corpus(
    corpus: ParallelCorpus, patterns: Sequence[str], find: Finder, cache_dir: str, report: Report
) -> ParallelCorpus:
    """A corpus with placeholders, written once to the cache.

    Args:
        corpus: as it is.
        patterns: the regular expressions of what `find` finds, by which the cache knows it.
        find: the spans of a text.
        cache_dir: takes the files.
        report: is told how many pairs have placeholders.
    """
    pairs, changed = [], 0
    for source, target in zip(corpus.sources, corpus.targets):
        known = [[text.sha256, text.path, text.origin and text.origin.files] for text in (source, target)]
        identity = json.dumps([_VERSION, list(patterns), PLACEHOLDERS, known])
        folder = pathlib.Path(cache_dir) / f"placeholders-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        whole = folder / "whole.json"
        if not whole.exists():  # written last
            files.write_json(whole, _write(source, target, find, [folder / "source", folder / "target"]))
        changed += json.loads(whole.read_text(encoding="utf-8"))
        pairs.append(
            [
                TextFile(str(folder / name), cache_dir, text.origin or _origin(text))
                for name, text in (("source", source), ("target", target))
            ]
        )
    report(f"placeholders: in {changed:,} of {len(corpus):,} pairs")
    sources, targets = zip(*pairs)
    made = ParallelCorpus(sources, targets, corpus.weight_texts, corpus.alignments)
    made.references = corpus.references
    return made


def _origin(text: TextFile) -> Origin:
    return Origin(text.path, (text.path,), copy_name=text.copy_name)


def _write(source: TextFile, target: TextFile, find: Finder, paths: Sequence[pathlib.Path]) -> int:
    """Writes both sides with placeholders, and returns how many pairs have some."""
    changed = 0
    with ExitStack() as stack:
        out = [stack.enter_context(open(stack.enter_context(files.atomic_write(path)), "wb")) for path in paths]
        progress = stack.enter_context(
            tqdm(total=len(source), unit="pair", disable=not shows_bars(), desc="placeholders")
        )
        for mine, yours in _pairs(source, target):
            made = in_pair(mine, yours, find)
            changed += made != (mine, yours)
            for file, line in zip(out, made):
                file.write(line.encode("utf-8", "replace") + b"\n")
            progress.update()
    return changed


def _pairs(source: TextFile, target: TextFile) -> Iterator[tuple[str, str]]:
    for start in range(0, len(source), _BLOCK):
        block = range(start, min(start + _BLOCK, len(source)))
        yield from zip(source.lines(block), target.lines(block), strict=True)


def _with_symbols(text: str, spans: Sequence[tuple[int, int]], symbols: Sequence[str]) -> str:
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    between = [text[start:end] for start, end in zip(starts, ends)]
    return "".join(itertools.chain.from_iterable(zip(between, [*symbols, ""])))

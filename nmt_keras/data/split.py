"""Dev and test pairs taken out of training text, by a hash of the source.

Sources that differ in case, spaces and punctuation alone are one sentence, and no sentence is in two parts. The
sentences of the smallest hashes are the dev set, the next ones the test set: where text is added later, pairs may move
from dev to test and from test to training, and none that was trained on is ever measured on.
"""

import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras import files
from nmt_keras.data.corpus import Origin, TextFile
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.white_space import is_blank

_IGNORED = dict.fromkeys(code for code in range(0x20000) if unicodedata.category(chr(code))[0] in "PSZC")
_BLOCK = 10_000
_VERSION = 1


Pair = tuple[TextFile, TextFile]


class Split(NamedTuple):
    """Text in three parts.

    Attributes:
        train: the source and the target of each corpus.
        beside: the files beside each corpus, with the lines of `train`.
        dev: the source and the target of each language.
        test: the same; none where no test set was asked for.
    """

    train: list[Pair]
    beside: list[list[TextFile | None]]
    dev: list[Pair]
    test: list[Pair]


def sentence_key(line: str) -> int | None:
    """A hash, of 64 bits, of a line without case, spaces, punctuation and symbols; None if nothing is left."""
    rest = line.casefold().translate(_IGNORED)
    return _hash(rest) if rest else None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def split(
    corpora: Sequence[Pair],
    beside: Sequence[Sequence[TextFile | None]],
    languages: Sequence[str],
    source_language: str,
    dev: int,
    test: int,
    cache_dir: str,
) -> Split:
    """Takes dev and test sentences out of corpora, into files of the cache.

    Args:
        corpora: the source and the target of each.
        beside: files with a line for each pair of a corpus, or None.
        languages: of the targets. Each language has a dev set of its own.
        source_language: of the sources; it names files.
        dev: sentences of the dev set. Of several pairs of one source in a language one is taken, and none trained on.
        test: of the test set.
        cache_dir: takes the files.

    Raises:
        UserError: the corpora have too few sentences.
    """
    known = [[*pair, *others] for pair, others in zip(corpora, beside, strict=True)]
    known_by = [
        [text and (text.sha256, text.path, text.origin and text.origin.files) for text in texts] for texts in known
    ]
    identity = json.dumps([_VERSION, dev, test, list(languages), source_language, known_by])
    folder = pathlib.Path(cache_dir) / f"split-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    whole = folder / "whole.json"
    if not whole.exists():  # written last
        _write(known, languages, dev, test, folder)
        files.write_json(whole, {"dev": dev, "test": test})

    def opened(name: str, origin: Origin) -> TextFile:
        places = np.load(folder / (name + ".places.npy"), mmap_mode="r")
        return TextFile(str(folder / name), cache_dir, origin._replace(places=places))

    def held_out(part: str, language: str) -> Pair:
        of_language = [pair for pair, other in zip(corpora, languages) if other == language]
        first, second = (
            opened(f"{part}-{language}-{side}", _joined(part, code, [pair[side] for pair in of_language]))
            for side, code in enumerate((source_language, language))
        )
        return first, second

    train = [
        [text and opened(f"train-{number}-{side}", _origin(text)) for side, text in enumerate(texts)]
        for number, texts in enumerate(known)
    ]
    return Split(
        [(source, target) for source, target, *_ in train if source and target],
        [texts[2:] for texts in train],
        [held_out("dev", language) for language in dict.fromkeys(languages)],
        [held_out("test", language) for language in dict.fromkeys(languages)] if test else [],
    )


def _origin(text: TextFile) -> Origin:
    return text.origin or Origin(text.path, (text.path,), copy_name=text.copy_name)


def _joined(part: str, code: str, texts: Sequence[TextFile]) -> Origin:
    names = tuple(name for text in texts for name in _origin(text).files)
    return Origin(f"{part} pairs of {', '.join(text.path for text in texts)}", names, copy_name=f"{part}.{code}")


def _write(
    corpora: Sequence[Sequence[TextFile | None]], languages: Sequence[str], dev: int, test: int, folder: pathlib.Path
) -> None:
    keys = [_keys(texts[0], texts[1]) for texts in corpora if texts[0] and texts[1]]
    held_out = []
    for language in dict.fromkeys(languages):
        mine = [number for number, other in enumerate(languages) if other == language]
        known = np.unique(np.concatenate([keys[number][keys[number] > 0] for number in mine]))
        if len(known) <= dev + test:
            raise UserError(
                f"The training text in {language!r} has {len(known):,} different sentences, and data.dev_pairs and "
                f"data.test_pairs take {dev + test:,}: give more text, or take fewer"
            )
        held_out.append(known[: dev + test])
        for part, chosen in (("dev", known[:dev]), ("test", known[dev : dev + test])):
            lines_of = _first_of_each([keys[number] for number in mine], chosen)
            for side in range(2):
                texts = [corpora[number][side] for number in mine]
                parts = [(text, lines) for text, lines in zip(texts, lines_of) if text is not None]
                _copy(parts, folder / f"{part}-{language}-{side}")
    every = np.concatenate(held_out)
    for number, corpus in enumerate(corpora):
        lines = np.flatnonzero(~np.isin(keys[number], every))
        for side, text in enumerate(corpus):
            if text is not None:
                _copy([(text, lines)], folder / f"train-{number}-{side}")


def _first_of_each(keys: Sequence[np.ndarray], chosen: np.ndarray) -> list[np.ndarray]:
    """The lines of texts, by their keys, that are the first to have each of the chosen ones."""
    every = np.concatenate(keys)
    places = np.flatnonzero(np.isin(every, chosen))
    firsts = np.sort(places[np.unique(every[places], return_index=True)[1]])
    starts = np.cumsum([0, *map(len, keys)])
    return [firsts[(firsts >= a) & (firsts < b)] - a for a, b in zip(starts, starts[1:])]


def _keys(source: TextFile, target: TextFile) -> np.ndarray:
    """uint64 [lines]: the key of each source, at least 1; 0 of a pair that lacks a side."""
    keys = np.zeros(len(source), np.uint64)
    for start in range(0, len(source), _BLOCK):
        lines = range(start, min(start + _BLOCK, len(source)))
        for line, mine, yours in zip(lines, source.lines(lines), target.lines(lines)):
            if not is_blank(mine) and not is_blank(yours):
                keys[line] = max(sentence_key(mine) or _hash(mine.strip()), 1)
    return keys


def _copy(parts: Sequence[tuple[TextFile, np.ndarray]], path: pathlib.Path) -> None:
    """Writes lines of texts, byte for byte, and where each comes from: the number of its file and its line there."""
    places, before = [], 0
    with files.atomic_write(path) as temporary, open(temporary, "wb") as file:
        for text, lines in parts:
            known = text.origin.places if text.origin else None
            place = np.stack([np.zeros_like(lines), lines + 1], 1) if known is None else known[lines]
            places.append(place + np.array([before, 0]))
            before += len(_origin(text).files)
            for start in range(0, len(lines), _BLOCK):
                raw = text.raw_lines(lines[start : start + _BLOCK])
                file.writelines(line.removesuffix(b"\n") + b"\n" for line in raw)
    with files.atomic_write(path.with_name(path.name + ".places.npy")) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(places).astype(np.int64))

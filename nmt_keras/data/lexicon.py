"""A lexicon of the target ids that translate a source id, from parallel text: IBM Model 1 (Brown et al. 1993, 4.2)."""

import pathlib
import zipfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras import files
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.base import NUM_SPECIALS, Tokenizer

_ITERATIONS = 5


class Lexicon(NamedTuple):
    """What a vocabulary shortlist is made of."""

    proposals: np.ndarray  # int32 [V_source, n]: each source id's most probable target ids, the best first
    common: np.ndarray  # int32 [m]: the most frequent target ids, which any sentence may need
    tokenizers: np.ndarray  # hashes of the source and the target tokenizer, whose ids these are

    def write(self, path: pathlib.Path) -> None:
        """Writes it, whole or not at all."""
        with files.atomic_write(path) as new, new.open("wb") as file:
            np.savez_compressed(file, **self._asdict())

    def coverage(self, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], num_proposals: int) -> float:
        """The share of target ids that are in the shortlist of their source: the common ones and so many proposals."""
        found = total = 0
        for source, target in pairs:
            listed = np.union1d(self.proposals[np.asarray(source), :num_proposals], self.common)
            found += int(np.isin(target, listed).sum())
            total += len(target)
        return found / max(total, 1)

    def require(self, num_proposals: int, tokenizers: Sequence[Tokenizer], remedy: str) -> None:
        """Checks that a search can take a shortlist from it.

        Raises:
            UserError: it is of other tokenizers, or proposes fewer ids; the message ends with the remedy.
        """
        if self.tokenizers.tolist() != [tokenizer.sha256 for tokenizer in tokenizers]:
            raise UserError(f"The lexicon is of other vocabularies than the model's; {remedy}")
        kept, most = self.proposals.shape[1], tokenizers[1].vocab_size
        if num_proposals > kept:
            anew = f", or {remedy} --proposals={num_proposals}" if num_proposals <= most else ""
            raise UserError(
                f"`decoding.shortlist` must be at most {kept}, the proposals that the lexicon keeps of each source id. "
                f"Received: {num_proposals}; give no more{anew}"
            )

    @classmethod
    def read(cls, path: pathlib.Path) -> "Lexicon":
        """Reads what `write` wrote.

        Raises:
            UserError: there is none, or it is broken.
        """
        remedy = f"make it with python -m pipelines.lexicon --run_dir={path.parent}"
        if not path.exists():
            raise UserError(f"There is no lexicon {path}, which `decoding.shortlist` needs; {remedy}")
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return cls(**{name: arrays[name] for name in cls._fields})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no readable lexicon, which `decoding.shortlist` needs; {remedy}") from error


def build_lexicon(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    tokenizers: Sequence[Tokenizer],
    num_proposals: int,
    num_common: int,
) -> Lexicon:
    """Estimates a lexicon.

    Args:
        pairs: source and target ids of each sentence pair, without BOS and EOS.
        tokenizers: of the source and of the target.
        num_proposals: n. An id with fewer partners repeats its best; one that was never seen proposes PAD.
        num_common: m, at most the target ids that occur.

    Raises:
        UserError: there are no pairs.
    """
    source_size, target_size = (tokenizer.vocab_size for tokenizer in tokenizers)
    frequency = np.zeros(target_size, np.int64)
    sources, places, first = [], [], 0  # of each link, its source id, and its target id's place in `targets`
    targets = []
    for source, target in pairs:
        source_ids, (target_ids, counts) = np.unique(source), np.unique(target, return_counts=True)
        frequency[target_ids] += counts
        sources.append(np.repeat(source_ids.astype(np.int32), len(target_ids)))
        places.append(np.tile(np.arange(first, first + len(target_ids), dtype=np.int32), len(source_ids)))
        targets.append(target_ids)
        first += len(target_ids)
    if not sources:
        raise UserError("A lexicon needs training text, and no pair has text on both sides; check data.train_source")
    source_of, place_of = np.concatenate(sources), np.concatenate(places)
    target_of = np.concatenate(targets)[place_of]
    keys, entry_of = np.unique(source_of * np.int64(target_size) + target_of, return_inverse=True)
    entry_of = entry_of.astype(np.int32)
    probability = np.ones(len(keys))
    for _ in range(_ITERATIONS):
        shares = probability[entry_of]
        shares /= np.bincount(place_of, shares)[place_of]  # each source id's share in explaining a target id
        expected = np.bincount(entry_of, shares)
        probability = expected / np.bincount(keys // target_size, expected, source_size)[keys // target_size]
    proposals = np.zeros([source_size, num_proposals], np.int32)
    order = np.lexsort((-probability, keys // target_size))
    starts = np.searchsorted(keys[order] // target_size, np.arange(source_size + 1))
    for number, (start, end) in enumerate(zip(starts, starts[1:])):
        if end > start:
            best = keys[order[start : min(end, start + num_proposals)]] % target_size
            proposals[number] = np.pad(best, (0, num_proposals - len(best)), constant_values=best[0])
    frequency[:NUM_SPECIALS] = 0
    common = np.argsort(-frequency, kind="stable")[: min(num_common, np.count_nonzero(frequency))]
    return Lexicon(proposals, common.astype(np.int32), np.array([tokenizer.sha256 for tokenizer in tokenizers]))

"""Word alignments of the training text, in Pharaoh's format, as fast_align and eflomal write it.

A line has a link for each pair of words that translate each other, `0-0 1-2`: the places of a source word and of a
target word between spaces, from 0. Links of words become links of all their pieces.
"""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from nmt_keras.constants import EOS_ID, PAD_ID
from nmt_keras.data.batch_plan import PADDING_LINE
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.encoded import EncodedCorpus
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.base import Tokenizer

_LINK = re.compile(r"(\d{1,6})-(\d{1,6})")
_CHUNK = 10_000  # lines that are compared with their links at a time
_VERSION = 1  # of the cache's file


def read_links(text: TextFile) -> np.ndarray:
    """int32 [links, 3], line, source word and target word of each link, from the cache where it was read before.

    Raises:
        UserError: a line is no alignment.
    """

    def write(path: pathlib.Path) -> None:
        rows = []
        for start in range(0, len(text), _CHUNK):
            for number, line in enumerate(text.lines(range(start, min(start + _CHUNK, len(text)))), start):
                for link in line.split():
                    match = _LINK.fullmatch(link)
                    if not match:
                        raise UserError(
                            f"{text.path}, line {number + 1:,}: {link!r} is no link of two words; Pharaoh's format, "
                            "which fast_align writes, is 0-0 1-2"
                        )
                    rows.append((number, int(match[1]), int(match[2])))
        with open(path, "wb") as file:
            np.save(file, np.array(rows, np.int32).reshape(-1, 3))

    return np.load(text.cached(text.cache_name(f"links.{_VERSION}.npy"), write), mmap_mode="r")


class Alignments:
    """The links of a corpus, for batches of its lines.

    Args:
        corpus: with a file of alignments for some of its texts, or all.
        encoded: its ids.
        tokenizers: of source and target.

    Raises:
        UserError: a file is no alignment, or has a link to a word that is not there.
    """

    def __init__(self, corpus: ParallelCorpus, encoded: EncodedCorpus, tokenizers: Sequence[Tokenizer]):
        self._corpus = corpus
        self._num_tags = encoded.num_tags
        self._begins = [
            np.array([tokenizer.begins_word(number) for number in range(tokenizer.vocab_size)])
            for tokenizer in tokenizers
        ]
        self._links = [None if text is None else read_links(text) for text in corpus.alignments]
        for number, (text, links) in enumerate(zip(corpus.alignments, self._links)):
            if text is not None and links is not None:
                self._require_words(number, text.path, links, encoded)

    def __call__(self, source_ids: np.ndarray, target_ids: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """Which source piece translates which target piece, bool [B, T, S].

        Args:
            source_ids: int32 [B, S], each with EOS.
            target_ids: int32 [B, T], each with EOS.
            lines: integer [B], running line numbers; padding rows have no links.
        """
        found = np.zeros([len(lines), target_ids.shape[1], source_ids.shape[1]], bool)
        words = [
            _words_of(ids, begins, tags)
            for ids, begins, tags in zip((source_ids, target_ids), self._begins, (self._num_tags, 0))
        ]
        corpora = self._corpus.corpora_of(lines)
        for row, (line, corpus) in enumerate(zip(lines, corpora)):
            links = self._links[corpus] if line != PADDING_LINE else None
            if links is None:
                continue
            own = line - self._corpus.starts[corpus]
            begin, end = np.searchsorted(links[:, 0], [own, own + 1])
            source_words, target_words = (side[row] for side in words)
            table = np.zeros([target_words.max() + 2, source_words.max() + 2], bool)  # the last of each: no word
            _, first, second = links[begin:end].T
            there = (second < len(table) - 1) & (first < table.shape[1] - 1)  # a text may have been cut
            table[second[there], first[there]] = True
            found[row] = table[np.ix_(target_words, source_words)]
        return found

    def _require_words(self, corpus: int, path: str, links: np.ndarray, encoded: EncodedCorpus) -> None:
        """Checks that all links of a corpus are to words that are there."""
        start, texts = self._corpus.starts[corpus], (self._corpus.sources[corpus], self._corpus.targets[corpus])
        for first in range(0, len(texts[0]), _CHUNK):
            lines = np.arange(first, min(first + _CHUNK, len(texts[0])))
            begin, end = np.searchsorted(links[:, 0], [lines[0], lines[-1] + 1])
            own = links[begin:end]
            for side, name in enumerate(("source", "target")):
                rows = encoded.pieces(side, start + lines)
                ends = np.cumsum(rows.lengths)
                begun = np.append(0, np.cumsum(self._begins[side][rows.ids]))
                firsts = np.minimum(ends - rows.lengths, max(len(rows.ids) - 1, 0))
                is_inside = ~self._begins[side][rows.ids[firsts]] if len(rows.ids) else np.zeros(len(lines), bool)
                counts = begun[ends] - begun[ends - rows.lengths] + (is_inside & (rows.lengths > 0))
                wrong = np.flatnonzero(own[:, 1 + side] >= counts[own[:, 0] - first])
                if len(wrong):
                    line, *link = own[wrong[0]].tolist()
                    raise UserError(
                        f"{path}, line {line + 1:,}: the link {link[0]}-{link[1]}, but "
                        f"the {name} in {texts[side].path} has {counts[line - first]} word(s) between spaces, counted "
                        "from 0: align the text as it is in the training files"
                    )


def _words_of(ids: np.ndarray, begins: np.ndarray, num_tags: int) -> np.ndarray:
    """The number of the word that each piece is of, integer [B, L]; -1 for tags, EOS and padding."""
    is_piece = (ids != PAD_ID) & (ids != EOS_ID)
    is_piece[:, :num_tags] = False
    starts = begins[ids] & is_piece
    if ids.shape[1] > num_tags:
        starts[:, num_tags] = is_piece[:, num_tags]  # the first piece begins a word, with or without a space
    return np.where(is_piece, np.cumsum(starts, 1) - 1, -1)

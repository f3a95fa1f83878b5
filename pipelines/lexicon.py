"""Learns which target pieces a source piece is translated by: python -m pipelines.lexicon --run_dir=runs/mine

Writes `lexicon.npz` into the run directory, from the training text. Jobs then search a shortlist of the vocabulary
where they are asked to, as in --decoding.shortlist=50, which is faster; it changes some translations, and cost no BLEU
where we measured it (`benchmarks/NOTES.md`). The last line of stdout is JSON: the share of the dev set's target pieces
that shortlists of 10, 50 and all proposals have, if so many are kept.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_CHUNK = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("run_dir", None, "The run directory of the training.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Where its text is now. Default: the recipe's.", flag_values=values)
    flags.DEFINE_integer("lines", 100_000, "Sentence pairs it is learned from, evenly spaced.", 1, flag_values=values)
    flags.DEFINE_integer("proposals", 100, "Target pieces kept of a source piece, or all.", 1, flag_values=values)
    flags.DEFINE_integer("common", 200, "Frequent target pieces that any sentence has.", 0, flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not values.run_dir:
        raise UserError("--run_dir must be given: that of the training whose text the lexicon is learned from")
    _process.load_tensorflow()
    import numpy as np

    from nmt_keras.data.corpus import ParallelCorpus
    from nmt_keras.data.lexicon import build_lexicon
    from nmt_keras.experiment.text import open_dev, open_train, with_placeholders
    from nmt_keras.reports import silent
    from nmt_keras.runs.layout import lexicon_of, read_config
    from nmt_keras.runs.tokenizers import load_tokenizers
    from nmt_keras.tokenizers.target_tags import tag_ids

    run_dir = pathlib.Path(values.run_dir)
    data = read_config(run_dir).data
    data.data_dir = data.data_dir if values.data_dir is None else values.data_dir
    tokenizers = load_tokenizers(run_dir)
    proposals = min(values.proposals, tokenizers.target.vocab_size)

    def pairs(
        corpus: ParallelCorpus, rows: np.ndarray, languages: Sequence[str]
    ) -> Iterator[tuple[list[int], list[int]]]:
        tags = tag_ids(data, tokenizers.source, languages)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            for source, target, number in zip(*corpus.fetch(chunk), corpus.corpora_of(chunk)):
                source_ids = tokenizers.source.encode(source)[: data.max_source_length - bool(tags)]
                target_ids = tokenizers.target.encode(target)[: data.max_target_length]
                if source_ids and target_ids:
                    yield tags[number : number + 1] + source_ids, target_ids

    train = with_placeholders(data, open_train(data, _process.report), silent)
    dev = with_placeholders(data, open_dev(data, _process.report), silent)
    rows = np.unique(np.linspace(0, len(train) - 1, min(values.lines, len(train)), dtype=np.int64))
    lexicon = build_lexicon(pairs(train, rows, data.train_languages), tokenizers, proposals, values.common)
    lexicon.write(lexicon_of(run_dir))
    dev_pairs = list(pairs(dev, np.arange(len(dev)), data.languages_of_dev))
    counts = sorted({min(count, proposals) for count in (10, 50, proposals)})
    coverage = {count: round(lexicon.coverage(dev_pairs, count), 4) for count in counts}
    _process.report(f"{lexicon_of(run_dir)}: learned from {len(rows):,} pairs")
    print(json.dumps({"pairs": len(rows), "common": len(lexicon.common), "dev_coverage": coverage}))


if __name__ == "__main__":
    sys.exit(main())

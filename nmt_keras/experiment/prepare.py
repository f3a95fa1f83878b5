"""Prepares a corpus where one process is not enough: Apache Beam indexes, encodes and examines its shards.

What it writes are the files that training would make in `data.cache_dir`, with the same bytes, so the plan and its
batches are the same. A shard is a pair of files of the recipe (`data.train_source`, `data.train_target`); text is
encoded in parts of 200,000 lines, and a shard is examined by one worker. All workers must see the text, the cache and
the output folder.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.encoded import PART, EncodedText, encode_part, join_parts, parts_of
from nmt_keras.data.sources import is_plain_file
from nmt_keras.doctor.before_training import examine, held_out_of
from nmt_keras.doctor.examination import HeldOut, overlaps
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_dev, open_texts, open_train, with_placeholders
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report, counted, silent
from nmt_keras.runs.tokenizers import load_tokenizers, prepare_tokenizers
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.white_space import is_blank

LOCAL = ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
_BUCKETS = 256  # parts of all hashes, each of which fits into the memory of a worker
_LISTED = 10  # examples of pairs that several shards have

_Task = tuple[str, str, int, int, int, int]  # the recipe's data as JSON, output folder, side, shard, lines from and to


def prepare(
    data: DataConfig,
    output_dir: pathlib.Path,
    *,
    tests: Sequence[tuple[str, str]] = (),
    options: Sequence[str] = LOCAL,
    report: Report = silent,
) -> dict[str, Any]:
    """Indexes, encodes and examines the training text of a recipe.

    Args:
        data: names the text; its cache gets the files.
        output_dir: gets `tokenizer/`, which training takes by `data.tokenizer_from`, and `prepared.json`.
        tests: source and target of text to measure on, whose source lines should not be in the training text.
        options: of Beam's pipelines, such as `--runner=FlinkRunner`.
        report: takes a line for the user.

    Returns:
        What `prepared.json` holds: pairs, ids of either side, findings of each shard, and how many pairs are in several
        shards, with some of their lines.

    Raises:
        UserError: the text cannot be read, or Beam is not installed.
    """
    beam = _beam()
    started = time.monotonic()
    data = dataclasses.replace(data, cache_dir=data.cache_dir or default_cache_dir())
    results = output_dir / ".results"
    shutil.rmtree(results, ignore_errors=True)
    for folder in (pathlib.Path(data.cache_dir), results):
        files.make_folder(folder)

    @contextlib.contextmanager
    def pipeline() -> Iterator[Any]:
        try:
            with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(list(options))) as root:
                yield root
        except (UserError, OSError):
            raise
        except Exception as error:  # Beam hands on what a worker raised as text
            reason = str(error).strip().split("\n")[-1].split(" [while running")[0]
            raise UserError(f"Beam cannot prepare the text, given {' '.join(options)}: {reason}") from error

    for names in tests:
        source, target = open_texts(data, *names)
        if len(source) != len(target):
            raise UserError(
                f"{source.path} has {len(source):,} lines and {target.path} has {len(target):,}: they are not aligned"
            )
    with pipeline() as root:
        paths = root | "paths" >> beam.Create(_paths(data)) | "spread paths" >> beam.Reshuffle()
        _ = paths | "index" >> beam.Map(_index, data.cache_dir)
    corpus = with_placeholders(data, open_train(data, report), report)
    open_dev(data, report)
    report(
        f"{len(corpus):,} pairs in {counted(len(corpus.sources), 'shard')} indexed: {time.monotonic() - started:.0f} s"
    )
    tokenizers = prepare_tokenizers(output_dir, data, corpus, report)
    about = json.dumps(dataclasses.asdict(data)), str(output_dir.absolute())
    tasks: list[_Task] = [
        (*about, side, shard, lines.start, lines.stop)
        for side, texts in enumerate((corpus.sources, corpus.targets))
        for shard, text in enumerate(texts)
        for lines in parts_of(text, tokenizers[side])
    ]
    shards = [(*about, shard) for shard in range(len(corpus.sources))]
    examine_shard = functools.partial(_examine, tests=tuple(tests))
    with pipeline() as root:
        encoded = (
            root | "parts" >> beam.Create(tasks) | "spread parts" >> beam.Reshuffle() | "encode" >> beam.Map(_encode)
        )
        _ = encoded | "by text" >> beam.GroupByKey() | "join" >> beam.MapTuple(_join)
        spread = root | "shards" >> beam.Create(shards) | "spread shards" >> beam.Reshuffle()
        examined = spread | "examine" >> beam.Map(examine_shard)
        _ = examined | "keep findings" >> beam.Map(_keep, str(results), "shard")
        hashed = spread | "hash" >> beam.FlatMap(_hashes)
        compared = hashed | "by hash" >> beam.GroupByKey() | "compare" >> beam.MapTuple(_in_several)
        _ = compared | "keep what is in several" >> beam.Map(_keep, str(results), "bucket")
    prepared = {**_gathered(corpus, tokenizers, results), "seconds": round(time.monotonic() - started)}
    shutil.rmtree(results)
    files.write_json(output_dir / "prepared.json", prepared)
    for finding in (finding for shard in prepared["shards"] for finding in shard["findings"]):
        report(f"doctor, {finding['severity']}: {finding['text']}")
    report(
        f"{prepared['pairs']:,} pairs, {prepared['source_ids']:,} and {prepared['target_ids']:,} ids; "
        f"{prepared['pairs_in_several_shards']:,} pairs are in several shards; {prepared['seconds']} s"
    )
    return prepared


def _beam() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError("Apache Beam is not installed: pip install 'nmt_keras[beam]'") from error
    return apache_beam


def _paths(data: DataConfig) -> list[str]:
    """The plain files of the training text; what is in other formats is converted by this process."""
    paths = sorted({os.path.join(data.data_dir, name) for name in (*data.train_source, *data.train_target) if name})
    return [path for path in paths if is_plain_file(path)]


def _index(path: str, cache_dir: str) -> None:
    TextFile(path, cache_dir)


class _Opened(NamedTuple):
    data: DataConfig
    corpus: ParallelCorpus  # as it is
    encoded: ParallelCorpus  # as it is encoded, with placeholders
    dev: ParallelCorpus
    tokenizers: Tokenizers


@functools.lru_cache(1)
def _opened(data: str, output_dir: str) -> _Opened:
    """What a worker needs, mapped from the cache."""
    values: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(data).items()}
    config = DataConfig(**values)
    tokenizers = load_tokenizers(pathlib.Path(output_dir))
    corpus = open_train(config, silent)
    return _Opened(config, corpus, with_placeholders(config, corpus, silent), open_dev(config, silent), tokenizers)


def _text(task: _Task) -> tuple[TextFile, Any]:
    """The text of a task and its tokenizer."""
    data, output_dir, side, shard, *_ = task
    opened = _opened(data, output_dir)
    return (opened.encoded.sources, opened.encoded.targets)[side][shard], opened.tokenizers[side]


def _encode(task: _Task) -> tuple[tuple[str, str, int, int], int]:
    return task[:4], encode_part(*_text(task), range(*task[4:]))


def _join(text: tuple[str, str, int, int], counts: Iterable[int]) -> None:
    del counts  # they say that all parts are encoded
    join_parts(*_text((*text, 0, 0)))


def _examine(shard: tuple[str, str, int], tests: Sequence[tuple[str, str]]) -> tuple[int, list[dict[str, Any]]]:
    """The findings of a shard: those that training looks for in the cache, and its overlap with the test sets."""
    data, corpus, _, dev, _ = _opened(*shard[:2])
    number = shard[2]
    language = data.languages_of_train[number]
    findings = examine(data, (corpus.sources[number], corpus.targets[number]), language, held_out_of(dev))
    findings += overlaps(corpus.sources[number], [HeldOut("test", *open_texts(data, *names)) for names in tests])
    return number, [finding.card() for finding in findings]


def _hashes(shard: tuple[str, str, int]) -> Iterator[tuple[int, tuple[int, np.ndarray, np.ndarray]]]:
    """Buckets of the hashes of pairs, with the shard and the lines, a part at a time."""
    corpus = _opened(*shard[:2]).corpus
    source, target = corpus.sources[shard[2]], corpus.targets[shard[2]]
    for start in range(0, len(source), PART):
        lines = range(start, min(start + PART, len(source)))
        pairs = list(zip(source.lines(lines), target.lines(lines)))
        digests = b"".join(
            hashlib.blake2b(f"{mine}\n{yours}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for mine, yours in pairs
        )
        has_text = np.array([not is_blank(mine) and not is_blank(yours) for mine, yours in pairs])
        places, hashes = np.flatnonzero(has_text), np.frombuffer(digests, np.uint64)[has_text]
        buckets = hashes % _BUCKETS
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            mine = order[ends[bucket] : ends[bucket + 1]]
            if len(mine):
                yield bucket, (shard[2], hashes[mine], places[mine] + start + 1)


def _in_several(
    bucket: int, parts: Iterable[tuple[int, np.ndarray, np.ndarray]]
) -> tuple[int, tuple[int, list[list[tuple[int, int]]]]]:
    """How many pairs of a bucket are in several shards, and the shards and lines of some."""
    numbers, hashes, lines = zip(*parts)
    shards = np.repeat(numbers, [len(each) for each in hashes])
    every, line = np.concatenate(hashes), np.concatenate(lines)
    once = np.unique(np.stack([every, shards.astype(np.uint64)]), axis=1)[0]  # each shard's hashes once
    found, counts = np.unique(once, return_counts=True)
    common = found[counts > 1]
    examples = [[(int(s), int(n)) for s, n in zip(shards[every == h], line[every == h])][:3] for h in common[:_LISTED]]
    return bucket, (len(common), examples)


def _keep(result: tuple[int, Any], folder: str, kind: str) -> None:
    """Writes a result where this job reads it: not all runners give any back."""
    files.write_json(pathlib.Path(folder) / f"{kind}-{result[0]:06d}.json", result[1])


def _gathered(corpus: ParallelCorpus, tokenizers: Tokenizers, results: pathlib.Path) -> dict[str, Any]:
    def read(kind: str) -> list[Any]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{kind}-*.json"))]

    ids = [
        sum(int((EncodedText(text, tokenizer).lengths - 1).sum(dtype=np.int64)) for text in texts)
        for texts, tokenizer in zip((corpus.sources, corpus.targets), tokenizers)
    ]
    buckets, findings = read("bucket"), read("shard")
    names = [[source.path, target.path] for source, target in zip(corpus.sources, corpus.targets)]
    return {
        "pairs": len(corpus),
        "source_ids": ids[0],
        "target_ids": ids[1],
        "pairs_in_several_shards": sum(count for count, _ in buckets),
        "some_of_them": [each for _, examples in buckets for each in examples][:_LISTED],
        "shards": [
            {"files": pair, "pairs": len(text), "findings": found}
            for pair, text, found in zip(names, corpus.sources, findings, strict=True)
        ],
    }

"""The two ways of text to what training reads, beside each other: training's own, in one process, and Apache Beam's.

python -m benchmarks.prepare --pairs=10000000 --folder=/tmp/prepare

Writes a corpus of `--shards` pairs of files (that of benchmarks.scale), then indexes, examines and encodes it twice,
into two caches: as training does before its first step, and as `pipelines.prepare` does with two processes of this
machine. Memory is the largest sum of `RssAnon` of all processes of a way, four times a second. Ends with an error where
a file of one cache is not in the other with the same bytes. Prints a table and, as the last line, JSON.
"""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from benchmarks.scale import write_pairs
from nmt_keras.config import DataConfig
from nmt_keras.errors import UserError
from pipelines import _cli, _process

_DEV_PAIRS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_integer("pairs", 10_000_000, "Of the corpus.", lower_bound=1000, flag_values=values)
    flags.DEFINE_integer("shards", 8, "Pairs of files that it consists of.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("vocab_size", 8000, "Pieces of each tokenizer.", lower_bound=300, flag_values=values)
    flags.DEFINE_string("folder", "/tmp/prepare", "Where all is written.", flag_values=values)
    flags.DEFINE_enum("way", "", ["", "one", "beam"], "For the processes that this one starts.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    folder = pathlib.Path(values.folder)
    data = _data(folder, values.shards, values.vocab_size)
    if values.way:
        print(json.dumps(WAYS[values.way](data, folder / values.way)))
        return 0
    for way in WAYS:
        if (folder / way).exists():
            raise UserError(
                f"{folder / way} is there already, of an earlier run; remove it, since what it has is taken"
            )
    _write(folder, values.pairs, values.shards)
    settings = [f"--{name}={values[name].value}" for name in ("pairs", "shards", "vocab_size", "folder")]
    figures: dict[str, Any] = {}
    for way in WAYS:
        _process.report(f"{way}: begun")
        figures[way] = _measured([sys.executable, "-m", "benchmarks.prepare", *settings, f"--way={way}"])
        _process.report(f"{way}: {figures[way]}")
    num_files = require_same_files(*(folder / way / "cache" for way in WAYS))
    print("| way | index, s | examine, s | tokenizers, s | encode, s | all, s | peak MiB |\n" + "| --- " * 7 + "|")
    for way, row in figures.items():
        parts = [f"{row[name]:,.0f}" if name in row else "" for name in ("index", "examine", "tokenizers", "encode")]
        print(f"| {way} | " + " | ".join(parts) + f" | {row['seconds']:,.0f} | {row['peak_mib']:,.0f} |")
    print(json.dumps({"pairs": values.pairs, "shards": values.shards, "same_files": num_files, **figures}))
    return 0


def _write(folder: pathlib.Path, pairs: int, shards: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-pairs // shards)
    for shard in range(shards):
        paths = [folder / f"{shard:02d}.{side}" for side in ("src", "tgt")]
        if not all(path.exists() for path in paths):
            write_pairs(paths, range(shard * size, min((shard + 1) * size, pairs)))
    write_pairs([folder / f"dev.{side}" for side in ("src", "tgt")], range(pairs, pairs + _DEV_PAIRS))


def _data(folder: pathlib.Path, shards: int, vocab_size: int) -> DataConfig:
    return DataConfig(
        source_language="en",
        target_language="de",
        data_dir=str(folder),
        train_source=tuple(f"{shard:02d}.src" for shard in range(shards)),
        train_target=tuple(f"{shard:02d}.tgt" for shard in range(shards)),
        dev_source=("dev.src",),
        dev_target=("dev.tgt",),
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
    )


def _one(data: DataConfig, output_dir: pathlib.Path) -> dict[str, float]:
    """What training does before it plans its batches; returns the seconds of its parts."""
    _process.load_tensorflow()
    from nmt_keras.data.encoded import EncodedCorpus
    from nmt_keras.doctor.before_training import examine, held_out_of
    from nmt_keras.experiment.text import open_dev, open_train
    from nmt_keras.reports import silent
    from nmt_keras.runs.tokenizers import load_tokenizers, prepare_tokenizers

    data = dataclasses.replace(data, cache_dir=str(output_dir / "cache"))
    (output_dir / "cache").mkdir(parents=True)
    marks = [time.monotonic()]
    corpus, dev = open_train(data, silent), open_dev(data, silent)
    marks.append(time.monotonic())
    for pair in zip(corpus.sources, corpus.targets):
        examine(data, pair, data.target_language, held_out_of(dev))
    marks.append(time.monotonic())
    prepare_tokenizers(output_dir, data, corpus, silent)
    marks.append(time.monotonic())
    EncodedCorpus(corpus, load_tokenizers(output_dir))
    marks.append(time.monotonic())
    names = ("index", "examine", "tokenizers", "encode")
    return {name: end - start for name, start, end in zip(names, marks, marks[1:])}


def _beam(data: DataConfig, output_dir: pathlib.Path) -> dict[str, float]:
    from nmt_keras.experiment.prepare import prepare

    prepare(dataclasses.replace(data, cache_dir=str(output_dir / "cache")), output_dir, report=_process.report)
    return {}


WAYS: dict[str, Callable[[DataConfig, pathlib.Path], dict[str, float]]] = {"one": _one, "beam": _beam}


def _measured(command: Sequence[str]) -> dict[str, float]:
    """What a process prints as its last line, with its seconds and the memory of its tree."""
    started, peak, is_done = time.monotonic(), 0, threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            nonlocal peak
            while not is_done.wait(0.25):
                peak = max(peak, sum(map(_rss_anon, _tree(process.pid))))

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        is_done.set()
        watcher.join()
    if process.returncode:
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}; it said why above")
    row = json.loads(output.strip().rpartition("\n")[2])
    return {**row, "seconds": time.monotonic() - started, "peak_mib": peak / 2**20}


def _tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in file.read_text(encoding="ascii").split() for each in _tree(int(child))]
        except OSError:  # it has ended since
            continue
    return found


def _rss_anon(pid: int) -> int:
    """Bytes that a process holds itself; 0 where it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").split("\n")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def require_same_files(one: pathlib.Path, other: pathlib.Path) -> int:
    """How many files two caches have, which must be the same to the byte but for locks."""

    def contents(folder: pathlib.Path) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir()
            if path.is_file() and path.suffix != ".lock"
        }

    mine, yours = contents(one), contents(other)
    different = sorted(name for name in mine.keys() | yours.keys() if mine.get(name) != yours.get(name))
    if different:
        raise UserError(
            f"The two ways made different files, or one lacks them: {', '.join(different[:10])}; this is a bug"
        )
    return len(mine)


if __name__ == "__main__":
    sys.exit(main())

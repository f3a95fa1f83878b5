"""Index, plan, first batch and input pipeline of a large corpus that this program writes.

python -m benchmarks.scale --pairs=10000000 --folder=/tmp/scale

Each phase runs in a process of its own, one after the other; `RssAnon` is what a process holds itself, mapped files not
counted, above what importing TensorFlow left. The training step that the pipeline is compared with is that of the
recipes' network (512 wide). Prints a table and, as the last line, JSON. The corpus stays in the folder.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from nmt_keras.training.precision import configure, resolve_precision
from nmt_keras.training.workers import Workers
from pipelines import _cli, _process

_POOL = 30_000  # halves of lines, of which any two make a line
_BATCHES = 300
_STEPS = 6
_LENGTH = 64
_BUDGET = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_integer("pairs", 10_000_000, "Of the corpus.", lower_bound=1000, flag_values=values)
    flags.DEFINE_string("folder", "/tmp/scale", "Where it is written, with its cache.", flag_values=values)
    flags.DEFINE_string("phase", "", "For the processes that this one starts.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    folder = pathlib.Path(values.folder)
    if values.phase:
        print(json.dumps(PHASES[values.phase](folder, values.pairs)))
        return 0
    figures = {"pairs": values.pairs}
    for phase in PHASES:
        _process.report(phase)
        command = [sys.executable, "-m", "benchmarks.scale", f"--folder={folder}", f"--pairs={values.pairs}"]
        result = subprocess.run([*command, f"--phase={phase}"], stdout=subprocess.PIPE, text=True, check=True)
        figures |= json.loads(result.stdout.strip().split("\n")[-1])
        _process.report(str(figures))
    figures["pipeline_over_training"] = (
        figures["pipeline_target_tokens_per_s"] / figures["training_target_tokens_per_s"]
    )
    print("| | |\n| --- | --- |")
    for name, value in figures.items():
        print(f"| {name} | {value:,.2f} |" if isinstance(value, float) else f"| {name} | {value:,} |")
    print(json.dumps(figures))
    return 0


def _write(folder: pathlib.Path, pairs: int) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"train.{side}" for side in ("src", "tgt")]
    if all(path.exists() for path in paths):
        return {}
    started = time.monotonic()
    write_pairs(paths, range(pairs))
    return {"write_s": time.monotonic() - started}


def write_pairs(paths: Sequence[pathlib.Path], lines: range) -> None:
    """Writes source and target: words with Zipf's frequencies, about 16 on a side, as many in a line as in its other.

    Args:
        paths: of both files.
        lines: of the corpus that has no end; a line ends with its number.
    """
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        letters = [bytes(rng.integers(97, 123, rng.integers(2, 9)).astype(np.uint8)) for _ in range(20_000)]
        sizes = np.random.default_rng(7).integers(2, 15, _POOL)
        halves = [b" ".join(letters[min(i, 19_999)] for i in rng.zipf(1.3, size)) for size in sizes]
        with open(path, "wb", buffering=1 << 20) as file:
            for start in range(lines.start, lines.stop, 100_000):
                size = min(100_000, lines.stop - start)
                picks = np.random.default_rng([9, start]).integers(0, _POOL, (size, 2)).tolist()
                file.write(b"".join(b"%b %b %d\n" % (halves[a], halves[b], n) for n, (a, b) in enumerate(picks, start)))


def _texts(folder: pathlib.Path):
    from nmt_keras.data.corpus import TextFile

    return [TextFile(str(folder / f"train.{side}"), str(folder / "cache")) for side in ("src", "tgt")]


def _tokenizer(folder: pathlib.Path, texts):
    from nmt_keras.tokenizers.building import load_tokenizer, train_tokenizer

    place = folder / "tokenizer"
    if not place.exists():
        lines = itertools.chain(*(text.lines(range(0, len(text), max(len(text) // 50_000, 1))) for text in texts))
        options = {"character_coverage": 1.0, "byte_fallback": True, "normalization": "identity"}
        train_tokenizer("unigram", lines, 8000, **options).save(place)
    return load_tokenizer(place)


def _index(folder: pathlib.Path, pairs: int) -> dict:
    _process.load_tensorflow()
    from nmt_keras.data.encoded import EncodedText

    before, started = _rss_anon(), time.monotonic()
    texts = _texts(folder)
    indexed = time.monotonic()
    tokenizer = _tokenizer(folder, texts)
    trained = time.monotonic()
    for text in texts:
        EncodedText(text, tokenizer)
    counted = time.monotonic()
    assert len(texts[0]) == pairs
    return {
        "text_bytes": sum((folder / f"train.{side}").stat().st_size for side in ("src", "tgt")),
        "index_bytes": sum(path.stat().st_size for path in (folder / "cache").iterdir()),
        "index_lines_s": indexed - started,
        "encode_s": counted - trained,
        "index_peak_rss_anon_mib": _peak_above(before),
    }


def _training_text(folder: pathlib.Path):
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.data.batching import TrainingText
    from nmt_keras.data.corpus import ParallelCorpus
    from nmt_keras.data.encoded import EncodedText

    texts = _texts(folder)
    tokenizer = _tokenizer(folder, texts)
    limits = {"max_source_length": _LENGTH, "max_target_length": _LENGTH}
    lengths = [[EncodedText(text, tokenizer).lengths] for text in texts]
    started = time.monotonic()
    plan = BatchPlan(*lengths, seed=1, batch_tokens=_BUDGET, **limits)
    seconds = time.monotonic() - started
    return TrainingText(plan, ParallelCorpus([texts[0]], [texts[1]]), tokenizer, tokenizer, **limits), seconds


def _feed(folder: pathlib.Path, pairs: int) -> dict:
    del pairs
    _process.load_tensorflow()
    import tensorflow as tf

    before, started = _rss_anon(), time.monotonic()
    text, plan_s = _training_text(folder)
    batches = iter(text.dataset(0))
    next(batches)
    first = time.monotonic() - started
    resumed = time.monotonic()
    next(iter(text.dataset(1_000_003)))
    resumed = time.monotonic() - resumed
    for _ in range(10):
        next(batches)
    tokens, started = 0, time.monotonic()
    for _ in range(_BATCHES):
        tokens += int(tf.math.count_nonzero(next(batches).target_output_ids))
    seconds = time.monotonic() - started
    return {
        "plan_s": plan_s,
        "first_batch_s": first,
        "batch_1000003_s": resumed,
        "batches_per_epoch": text.plan.num_batches,
        "pipeline_batches_per_s": _BATCHES / seconds,
        "pipeline_target_tokens_per_s": tokens / seconds,
        "feed_peak_rss_anon_mib": _peak_above(before),
        "feed_rss_anon_mib": (_rss_anon() - before) / 2**20,
    }


def _train(folder: pathlib.Path, pairs: int) -> dict:
    del pairs
    _process.load_tensorflow()
    import tensorflow as tf

    from nmt_keras.config import ModelConfig, TrainingConfig
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.feed import Feed
    from nmt_keras.training.train_step import TrainStep

    config = TrainingConfig(batch_tokens=_BUDGET, precision="auto")
    resolve_precision(config)
    configure(config)
    text, _ = _training_text(folder)
    workers = Workers(tf.distribute.get_strategy())
    step = TrainStep(build_seq2seq(ModelConfig(), 8000, 8000), config, workers)
    feed = Feed(text, workers)
    batches = feed.start(0, 0)
    step.compile(batches.element_spec)
    kept = [next(batches) for _ in range(_STEPS)]
    for batch in kept:  # shapes are compiled
        step(batch)
    tokens, started = 0, time.monotonic()
    for batch in kept:
        step(batch)
        tokens += int(tf.math.count_nonzero(batch.target_output_ids))
    seconds = time.monotonic() - started
    return {"training_steps_per_s": _STEPS / seconds, "training_target_tokens_per_s": tokens / seconds}


def _doctor(folder: pathlib.Path, pairs: int) -> dict:
    from nmt_keras.doctor.examination import Doctor

    texts = _texts(folder)
    before, started = _rss_anon(), time.monotonic()
    Doctor("xx", "yy").examine(*texts)
    seconds, millions = time.monotonic() - started, pairs / 1e6
    return {"doctor_s": seconds, "doctor_peak_rss_anon_mib_per_million": _peak_above(before) / millions}


PHASES = {"write": _write, "index": _index, "feed": _feed, "train": _train, "doctor": _doctor}


def _rss_anon() -> int:
    return _status("RssAnon")


def _peak_above(before: int) -> float:
    """MiB at the peak above `before`, file pages that are mapped now not counted."""
    return (_status("VmHWM") - _status("RssFile") - before) / 2**20


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").split("\n")
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())

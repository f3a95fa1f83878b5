"""Training speed and memory, ours and the peers', at one shape, in turns on the same cores.

python -m benchmarks.training_speed --data_dir=<folder of Multi30k> --work=/tmp/peers --model=rnn --threads=1

Multi30k en-de, 8,000 joint pieces. --model=rnn: embeddings of 512, BiLSTM 2 x 256, LSTM 512, Luong attention, dropout
0.2; the peers feed attention back into the recurrence, ours does with `rnn_input_feeding`, and is as much wider than
512 as gives it the peers' number of weights (`benchmarks.models`). --model=transformer: 3 + 3 layers, 512 wide. A
model that has over 2% fewer weights than a peer's gets no ratio to it.

A round trains each once. Ours runs its steps twice, reading and batching text each time, and the second time counts:
shapes are compiled by then (`first_s` is the first, compiling included). `of_bound` is the share of what the weights'
products alone would allow. Prints a table and, as the last line, JSON.
"""

import itertools
import json
import pathlib
import sys
import time
from collections.abc import Sequence

from absl import flags

from benchmarks import measure, peers
from nmt_keras.training.precision import configure
from nmt_keras.training.workers import Workers
from pipelines import _cli, _process

_OURS = {
    "rnn": [
        ("rnn", "mixed_bfloat16"),
        ("rnn", "float32"),
        ("rnn_input_feeding", "mixed_bfloat16"),
        ("rnn_input_feeding", "float32"),
    ],
    "transformer": [("transformer", "mixed_bfloat16"), ("transformer", "float32")],
}
_COLUMNS = [
    "name",
    "weights",
    "target_tokens_per_s",
    "over_opennmt",
    "over_joeynmt",
    "of_bound",
    "first_s",
    "peak_rss_mib",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    peers.define_flags(values)
    flags.DEFINE_enum("model", "rnn", list(_OURS), "The shape.", flag_values=values)
    flags.DEFINE_integer("batch", 64, "Of a step.", 1, flag_values=values)
    flags.DEFINE_enum("batch_type", "sentences", ["sentences", "tokens"], "What the batch counts.", flag_values=values)
    flags.DEFINE_integer("steps", 40, "That each trains.", 5, flag_values=values)
    flags.DEFINE_bool("profile", False, "Also print what ours spends ten more steps on.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if measure.answers(values, _work):
        return 0
    work = peers.set_up(values)
    size = {"batch": values.batch, "batch_type": values.batch_type, "steps": values.steps}
    runs: dict[str, list[dict]] = {}
    for _ in range(values.rounds):
        for model, precision in _OURS[values.model]:
            if not peers.is_wanted(values, f"ours, {model}, {precision}"):
                continue
            task = {"model": model, "precision": precision, "data_dir": values.data_dir, "work": str(work), **size}
            task["profile"] = values.profile
            row = measure.run_worker("benchmarks.training_speed", task, values.threads)
            _note(runs, f"ours, {model}, {precision}", row)
        for peer, name in peers.NAMES.items():
            if peers.is_wanted(values, name):
                _note(runs, name, peers.train(peer, values.model, work, values.threads, **size)._asdict())
    table = [{"name": name, **measure.medians(rows)} for name, rows in runs.items()]
    by_name = {row["name"]: row for row in table}
    for row in table:
        for peer, name in peers.NAMES.items():
            if name in by_name:
                sizes = (row["weights"], by_name[name]["weights"])
                speeds = (row["target_tokens_per_s"], by_name[name]["target_tokens_per_s"])
                row[f"over_{peer}"] = measure.ratio(*speeds, sizes)
        if "bound" in row:
            row["of_bound"] = row["target_tokens_per_s"] / row["bound"]
    print(measure.table(table, _COLUMNS))
    print(json.dumps({"threads": values.threads, **size, "rounds": values.rounds, "rows": table}))
    return 0


def _note(runs: dict[str, list[dict]], name: str, row: dict) -> None:
    runs.setdefault(name, []).append(row)
    _process.report(f"{name}: {row['target_tokens_per_s']:,.0f} target tokens/s")
    measure.report_profile(row)


def _work(
    model: str, precision: str, data_dir: str, work: str, batch: int, batch_type: str, steps: int, profile: bool
) -> dict:
    """Trains ours; runs in a process of its own."""
    _process.load_tensorflow()
    import tensorflow as tf

    from benchmarks.models import CONFIGS, VOCAB_SIZE, product_flops
    from nmt_keras.config import TrainingConfig
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.feed import Feed
    from nmt_keras.training.train_step import TrainStep

    config = TrainingConfig(precision=precision)
    configure(config)
    text = _training_text(data_dir, pathlib.Path(work), batch, batch_type)
    workers = Workers(tf.distribute.get_strategy())
    network = build_seq2seq(CONFIGS[model], VOCAB_SIZE, VOCAB_SIZE)
    step, feed = TrainStep(network, config, workers), Feed(text, workers)
    step.compile(feed.element_spec)

    def run(count: int = steps) -> tuple[float, int, int, int]:
        sentences = source_tokens = target_tokens = 0
        started = time.perf_counter()
        for _, train_batch in zip(range(count), feed.start(0, 0)):
            step(train_batch)
            sentences += int(tf.shape(train_batch.lines)[0])
            source_tokens += int(tf.math.count_nonzero(train_batch.source_ids))
            target_tokens += int(tf.math.count_nonzero(train_batch.target_output_ids))
        int(step.steps.numpy())
        return time.perf_counter() - started, sentences, source_tokens, target_tokens

    first, *_ = run()
    seconds, *counts = run()
    target_tokens = counts[-1]
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    gflops = measure.product_gflops(dtype, target_tokens // steps)
    return {
        "target_tokens_per_s": target_tokens / seconds,
        "weights": sum(int(tf.size(weight)) for weight in network.trainable_variables),
        "first_s": first,
        "gflops": gflops,
        "bound": target_tokens / (3e-9 * product_flops(network, *counts) / gflops),
        "profile": measure.op_milliseconds(lambda: run(10)) if profile else {},
    }


def _training_text(data_dir: str, work: pathlib.Path, batch: int, batch_type: str):
    from benchmarks.models import VOCAB_SIZE
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.data.batching import TrainingText
    from nmt_keras.data.corpus import ParallelCorpus, TextFile
    from nmt_keras.data.encoded import EncodedText
    from nmt_keras.tokenizers.building import load_tokenizer, train_tokenizer

    texts = [TextFile(f"{data_dir}/train.{side}.gz", str(work / "cache")) for side in ("en", "de")]
    folder = work / "tokenizer"
    if not folder.exists():
        lines = itertools.chain(*(text.lines(range(len(text))) for text in texts))
        options = {"character_coverage": 1.0, "byte_fallback": True, "normalization": "identity"}
        train_tokenizer("unigram", lines, VOCAB_SIZE, **options).save(folder)
    tokenizer = load_tokenizer(folder)
    limits = {"max_source_length": 100, "max_target_length": 100}
    plan = BatchPlan(
        *([EncodedText(text, tokenizer).lengths] for text in texts), seed=1, **{f"batch_{batch_type}": batch}, **limits
    )
    return TrainingText(plan, ParallelCorpus([texts[0]], [texts[1]]), tokenizer, tokenizer, **limits)


if __name__ == "__main__":
    sys.exit(main())

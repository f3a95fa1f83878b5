"""Translation speed at a forced length, ours and the peers', at one shape, in turns on the same cores.

python -m benchmarks.translation_speed --data_dir=<folder of Multi30k> --work=/tmp/peers --threads=1 --beam_size=5

The dev set of Multi30k is translated from lines of text, in batches of 64 of similar length, to 15 pieces each, by
untrained networks of the peers' shape: what they would say makes no difference to the time, but that ours write no
bytes of characters, which trained ones seldom do and a search has to complete. Ours in float32, bfloat16, int8 where
that is faster, and the last two with a shortlist of 50 pieces a source piece, for which a lexicon is learned
from the training text. The peers translate with what `benchmarks.training_speed` left in --work, which runs first;
CTranslate2 with the Transformer that OpenNMT-tf trained. `of_bound` is the share of what the weights' products alone
would allow (without a shortlist).
The columns "over" compare any row with any peer, of whatever network and number of weights.
Prints a table and, as the last line, JSON.
"""

import functools
import gzip
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

from absl import flags

from benchmarks import measure, peers
from nmt_keras.training.precision import configure
from pipelines import _cli, _process

_LENGTH = 15
_INT8 = "int8_compute"
_SHORTLIST = 50
_UNSAID = -20.0  # added to a logit
_OURS = [
    ("rnn", "float32", 0),
    ("rnn", "mixed_bfloat16", 0),
    ("rnn", "mixed_bfloat16", _SHORTLIST),
    ("rnn_input_feeding", "mixed_bfloat16", 0),
    ("rnn", _INT8, 0),
    ("rnn", _INT8, _SHORTLIST),
    ("transformer", "float32", 0),
    ("transformer", "mixed_bfloat16", 0),
    ("transformer", "mixed_bfloat16", _SHORTLIST),
    ("transformer", _INT8, 0),
    ("transformer", _INT8, _SHORTLIST),
    ("ssru", "mixed_bfloat16", 0),
    ("ssru", "mixed_bfloat16", _SHORTLIST),
    ("ssru", _INT8, 0),
    ("ssru", _INT8, _SHORTLIST),
]
_COLUMNS = ["name", "sentences_per_s", "of_bound"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    peers.define_flags(values)
    flags.DEFINE_integer("beam_size", 5, "1 is greedy.", 1, flag_values=values)
    flags.DEFINE_bool("profile", False, "Also print what ours spends 320 more sentences on.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    if measure.answers(values, _work):
        return 0
    work, runs = peers.set_up(values), {}
    search = (values.threads, values.beam_size, _LENGTH)

    def measured(name: str, run: Callable[[], dict]) -> None:
        if peers.is_wanted(values, name):
            runs.setdefault(name, []).append(run())
            _process.report(f"{name}: {runs[name][-1]['sentences_per_s']:,.1f} sentences/s")
            measure.report_profile(runs[name][-1])

    for _ in range(values.rounds):
        for model, precision, shortlist in _OURS:
            task = {"model": model, "precision": precision, "shortlist": shortlist, "beam_size": values.beam_size}
            task |= {"data_dir": values.data_dir, "work": str(work), "profile": values.profile}
            name = f"ours, {model}, {precision}{', shortlist' if shortlist else ''}"
            measured(name, functools.partial(measure.run_worker, "benchmarks.translation_speed", task, values.threads))
        for (peer, name), model in itertools.product(peers.NAMES.items(), ("rnn", "transformer")):
            measured(f"{name}, {model}", functools.partial(peers.translate, peer, model, work, *search))
        for kind in ("float32", "int8"):
            name = f"CTranslate2 4.8, transformer, {kind}"
            measured(name, functools.partial(peers.ctranslate2, work, kind, *search))
    table = [{"name": name, **measure.medians(rows)} for name, rows in runs.items()]
    for row in table:
        if "bound" in row:
            row["of_bound"] = row["sentences_per_s"] / row["bound"]
        for name, of in runs.items():
            if not name.startswith("ours"):
                row[f"over {name}"] = row["sentences_per_s"] / measure.medians(of)["sentences_per_s"]
    print(measure.table(table, [*_COLUMNS, *(f"over {name}" for name in runs if not name.startswith("ours"))]))
    print(
        json.dumps({"threads": values.threads, "beam_size": values.beam_size, "rounds": values.rounds, "rows": table})
    )
    return 0


def _work(model: str, precision: str, shortlist: int, beam_size: int, data_dir: str, work: str, profile: bool) -> dict:
    """Translates with ours; runs in a process of its own."""
    _process.load_tensorflow()
    import tensorflow as tf

    from benchmarks.models import CONFIGS, VOCAB_SIZE, product_flops
    from nmt_keras.config import DecodingConfig, TrainingConfig
    from nmt_keras.inference.search import Search
    from nmt_keras.inference.text import surfaces_of, tokenize
    from nmt_keras.inference.translator import Translator
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.serving.int8 import to_int8
    from nmt_keras.tokenizers.building import load_tokenizer

    configure(TrainingConfig(precision="mixed_bfloat16" if precision == _INT8 else precision))
    tokenizer = load_tokenizer(pathlib.Path(work) / "tokenizer")
    network = build_seq2seq(CONFIGS[model], VOCAB_SIZE, VOCAB_SIZE)
    network.output_projection.bias.assign(
        [_UNSAID if "\ufffd" in surface.decode("utf-8", "replace") else 0.0 for surface in surfaces_of(tokenizer)]
    )
    config = DecodingConfig(
        beam_size=beam_size, length_penalty=1.0, min_length=_LENGTH, max_length=_LENGTH, shortlist=shortlist
    )
    lexicon = _lexicon(data_dir, pathlib.Path(work), tokenizer) if shortlist else None
    lines, products = _read(data_dir, "val.en"), []
    translated = network
    if precision == _INT8:
        ids = tokenize(tokenizer, tf.constant(lines[:64]), config).ids
        shortlist_ids = Search(network, tokenizer, config, lexicon=lexicon).shortlist_ids(ids)
        found = to_int8(network, ids, beam_size, shortlist_ids)
        translated, products = found.model, [choice.record() for choice in found.choices]
    translator = Translator(translated, tokenizer, tokenizer, config, lexicon=lexicon)
    translator.translate(lines[:128])
    started = time.perf_counter()
    translator.translate(lines)
    seconds = time.perf_counter() - started
    dtype = {"mixed_bfloat16": "bfloat16", _INT8: "int8"}.get(precision, "float32")
    source_tokens = sum(len(tokenizer.encode(line)) + 1 for line in lines)
    positions = 1 + (_LENGTH - 1) * beam_size  # at the first there is one hypothesis
    flops = product_flops(network, len(lines), source_tokens, len(lines) * positions)
    bound = len(lines) / (1e-9 * flops / measure.product_gflops(dtype, 64 * beam_size))
    ops = measure.op_milliseconds(lambda: translator.translate(lines[:320])) if profile else {}
    result = {"sentences_per_s": len(lines) / seconds, "profile": ops, "int8_products": products}
    return result if shortlist else {**result, "bound": bound}


def _read(data_dir: str, name: str) -> list[str]:
    with gzip.open(f"{data_dir}/{name}.gz", "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def _lexicon(data_dir: str, work: pathlib.Path, tokenizer):
    from nmt_keras.data.lexicon import Lexicon, build_lexicon

    path = work / "lexicon.npz"
    if not path.exists():
        sides = ([tokenizer.encode(line) for line in _read(data_dir, f"train.{side}")] for side in ("en", "de"))
        build_lexicon(zip(*sides), (tokenizer, tokenizer), 100, 200).write(path)
    return Lexicon.read(path)


if __name__ == "__main__":
    sys.exit(main())

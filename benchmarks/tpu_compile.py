"""Compiles the training step of each family, and its search, for a TPU, without one: in what time and memory.

python3 -m venv .venv-tpu && .venv-tpu/bin/pip install jax==0.10.2 libtpu==0.0.52    # libtpu: 484 MB, its own terms
python -m benchmarks.tpu_compile --tpu_python=.venv-tpu/bin/python

TensorFlow writes the step as HLO (`experimental_get_compiler_ir`); in the other environment JAX's client for a topology
without devices hands it to libtpu's compiler for one chip of "v5e:2x2" (benchmarks/tpu_compiler.py). A step reads 128
pairs of 32 and 32 ids in mixed_bfloat16, of 8,000 pieces a side. A search, with --programs=search, finds the best of 5
beams and 32 positions for 64 sentences of 32 ids. A replica, with --programs=replica, is the step of one of four chips,
with the sums of gradients over all four by XLA's own operation, since no strategy takes a whole step (WORKSPACE.md).
FLOP and bytes are of the compiler's own cost analysis, which counts the body of a loop once where it does not know how
often it runs, as of a search, so that its figures are of the encoder and a position; the bound is what the larger of
both takes at a v5e's peaks (197 TFLOP/s, 819 GB/s). Prints a Markdown table; the last line is JSON.
"""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_ROWS, _LENGTH, _VOCAB_SIZE = 128, 32, 8000
_SEARCHED_ROWS, _BEAMS = 64, 5
_REPLICAS = 4  # chips of the topology
_PEAK_FLOPS, _PEAK_BYTES = 197e12, 819e9  # of a v5e chip a second, as Google's documentation gives them


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("tpu_python", ".venv-tpu/bin/python", "An interpreter with JAX and libtpu.", flag_values=values)
    flags.DEFINE_string("only", "", "A regular expression: families with such names, not all.", flag_values=values)
    flags.DEFINE_list("programs", list(_PROGRAMS), "What of each family: step, search, replica.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    unknown = [name for name in values.programs if name not in _PROGRAMS]
    if unknown:
        raise UserError(f"--programs has no {unknown[0]!r}: give some of {', '.join(_PROGRAMS)}")
    _process.load_tensorflow()
    rows = []
    for program, (name, fields) in itertools.product(values.programs, _families()):
        if not re.search(values.only, name):
            continue
        with tempfile.NamedTemporaryFile(suffix=".hlo") as file:
            started = time.process_time()
            try:
                file.write(_PROGRAMS[program](fields))
            except Exception as error:  # of any kind: the table says which family does not compile
                rows.append({"program": program, "family": name, "failed": str(error).split("\n")[0][:100]})
                continue
            file.flush()
            traced = time.process_time() - started
            command = [values.tpu_python, str(pathlib.Path(__file__).with_name("tpu_compiler.py")), file.name]
            command += [str(_REPLICAS)] if program == "replica" else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            row = json.loads(done.stdout.strip().split("\n")[-1])
        except ValueError:
            row = {"failed": done.stderr.strip().split("\n")[-1][:100]}
        rows.append({"program": program, "family": name, "trace_cpu_s": round(traced, 1), **row})
        _process.report(json.dumps(rows[-1]))
    print("| program | family | weights | compile, CPU s | memory, MiB | GFLOP | GB | bound, ms | share of peak |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(_line(row))
    print(json.dumps(rows))
    return 0


def _line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['program']} | {row['family']} | failed: {row['failed']} |"
    bound = max(row["flops"] / _PEAK_FLOPS, row["bytes"] / _PEAK_BYTES)
    share = row["flops"] / _PEAK_FLOPS / bound
    figures = [f"{row['weights'] / 1e6:.1f} M", f"{row['compile_cpu_s']:.0f}", f"{row['memory_mib']:.0f}"]
    figures += [f"{row['flops'] / 1e9:.0f}", f"{row['bytes'] / 1e9:.2f}", f"{1e3 * bound:.2f}", f"{share:.0%}"]
    return f"| {' | '.join([row['program'], row['family'], *figures])} |"


def _families() -> Iterator[tuple[str, dict[str, Any]]]:
    """Networks that differ in their loops and products, 512 wide."""
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    yield "rnn (LSTM, Luong)", {}
    yield "rnn, input feeding", {"input_feeding": True}
    yield "conditional_gru", {"decoder": "conditional_gru", "cell": "gru", "num_decoder_layers": 1}
    yield "gnmt", {"encoder": "gnmt", "decoder": "gnmt", **layers}
    yield "rnmt_plus", {"decoder": "rnmt_plus", **layers}
    yield "conv", {"encoder": "conv", "decoder": "conv", **layers}
    yield "transformer", {"encoder": "transformer", "decoder": "transformer", **layers}
    yield "transformer, ssru", {"encoder": "transformer", "decoder": "ssru", **layers}
    yield "monotonic attention", {"attention": "monotonic"}


def _replica_of(fields: dict[str, Any]) -> bytes:
    """The training step of a replica of four, as `_step_of` gives that of one alone."""
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    def all_reduce(context: Any, operation: str, values: Any) -> Any:
        del context, operation
        how = {"group_assignment": tf.constant([list(range(_REPLICAS))]), "reduce_op": "Add", "mode": "CrossReplica"}
        return tf.nest.map_structure(lambda value: gen_xla_ops.xla_all_reduce(value, **how), values)

    with mock.patch.object(tf.distribute.ReplicaContext, "all_reduce", all_reduce):
        return _step_of(fields)


def _step_of(fields: dict[str, Any]) -> bytes:
    """The training step of a network as serialized HLO, with its number of weights in the first eight bytes."""
    import tensorflow as tf

    from nmt_keras.config import ModelConfig, TrainingConfig
    from nmt_keras.data.batching import Batch
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.precision import configure
    from nmt_keras.training.train_step import TrainStep
    from nmt_keras.training.workers import Workers

    config = TrainingConfig(precision="mixed_bfloat16", compile="step")
    configure(config)
    network = build_seq2seq(ModelConfig(d_model=512, **fields), _VOCAB_SIZE, _VOCAB_SIZE)
    step = TrainStep(network, config, Workers(tf.distribute.get_strategy()))

    @tf.function(jit_compile=True, autograph=False)
    def run(*leaves: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(step._step(Batch(*leaves), tf.constant(True)))

    ids = tf.fill([_ROWS, _LENGTH], 5)
    leaves = (ids, ids, ids, tf.ones([_ROWS]), tf.range(_ROWS, dtype=tf.int64))
    hlo = run.experimental_get_compiler_ir(*leaves)(stage="hlo_serialized")
    return int(network.count_params()).to_bytes(8, "little") + hlo


def _search_of(fields: dict[str, Any]) -> bytes:
    """The search of a network, its encoder included, as `_step_of` gives the step."""
    import tensorflow as tf

    from nmt_keras.config import ModelConfig, TrainingConfig
    from nmt_keras.decoding.beam_search import beam_search
    from nmt_keras.decoding.constraints import Constraints
    from nmt_keras.decoding.ranking import Ranking
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.precision import configure

    configure(TrainingConfig(precision="mixed_bfloat16"))
    network = build_seq2seq(ModelConfig(d_model=512, **fields), _VOCAB_SIZE, _VOCAB_SIZE)

    @tf.function(jit_compile=True, autograph=False)
    def run(source_ids: tf.Tensor) -> tuple[tf.Tensor, ...]:
        memory, searching = network.prepare(source_ids), network.for_search()

        def step(ids: tf.Tensor, position: tf.Tensor, state: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
            return searching.step(ids, position, state, memory)

        limits = Constraints(tf.fill([_SEARCHED_ROWS], _LENGTH))
        parts = step, network.init_state(memory), limits, Ranking(1.0)
        found = beam_search(*parts, beam_size=_BEAMS, num_hypotheses=1, max_positions=_LENGTH)
        return found.ids, found.score

    hlo = run.experimental_get_compiler_ir(tf.fill([_SEARCHED_ROWS, _LENGTH], 5))(stage="hlo_serialized")
    return int(network.count_params()).to_bytes(8, "little") + hlo


_PROGRAMS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "step": _step_of,
    "search": _search_of,
    "replica": _replica_of,
}


if __name__ == "__main__":
    sys.exit(main())

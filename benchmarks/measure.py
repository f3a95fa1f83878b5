"""What benchmarks share: pinned processes, the bound that matrix products set, and tables."""

import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import IO, NamedTuple

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _process

_ROOT = pathlib.Path(__file__).parents[1]
_MAX_FEWER = 0.02


class Finished(NamedTuple):
    """A process that ended well."""

    output: str  # stdout and stderr
    peak_rss_mib: float


def run_pinned(command: Sequence[str], threads: int, environment: Mapping[str, str] = MappingProxyType({})) -> Finished:
    """Runs a program with so many threads for operations, on as many cores, the last of this process's.

    Raises:
        UserError: it failed; what it printed is in the file that the message names.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        process = start_pinned(command, threads, file, environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        file.seek(0)
        output = file.read()
    if process.returncode:
        last = output.strip().rpartition("\n")[2]
        if last.startswith("error: "):  # of a job of ours, for its user
            raise UserError(last.removeprefix("error: "))
        raise UserError(f"{command[0]} ended with status {process.returncode}; read {keep(output)}")
    return Finished(output, usage.ru_maxrss / 1024)


def start_pinned(
    command: Sequence[str],
    threads: int,
    output: IO[str],
    environment: Mapping[str, str] = MappingProxyType({}),
    has_session: bool = False,
) -> subprocess.Popen:
    """Starts what `run_pinned` runs; its output goes to a file. `has_session`: it leads a session of its own."""
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(threads))
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "1"}
    return subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=_ROOT,
        env={**os.environ, **pinned, **quiet, **environment},
        start_new_session=has_session,
    )


def require_same(folder: pathlib.Path, settings: Mapping) -> None:
    """Keeps the settings of a benchmark beside its results, which are not made again.

    Raises:
        UserError: what is there was made with others.
    """
    path = folder / "settings.json"
    text = json.dumps(settings, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{folder} holds results of {path.read_text(encoding='utf-8')}: give these, or another --run_dir"
        )


def keep(output: str) -> str:
    """The name of a file that holds what a program printed, for people to read."""
    with tempfile.NamedTemporaryFile("w", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(output)
    return file.name


def answers(values: flags.FlagValues, work: Callable[..., dict]) -> bool:
    """Whether this is a process that `run_worker` started; it has then done its task and printed the result.

    Raises:
        UserError: --worker is no task.
    """
    if not values.worker:
        return False
    try:
        task = json.loads(values.worker)
    except json.JSONDecodeError as error:
        raise UserError(
            f"--worker is for processes that this one starts: leave it out. Received: {values.worker}"
        ) from error
    print(json.dumps(work(**task)))
    return True


def define_flags(values: flags.FlagValues) -> None:
    """What every benchmark that starts processes of its own has."""
    flags.DEFINE_integer("threads", 1, "And cores.", 1, flag_values=values)
    flags.DEFINE_string("worker", "", "For the processes that this one starts.", flag_values=values)


def run_worker(module: str, task: Mapping, threads: int) -> dict:
    """Runs `python -m module --worker=<task as JSON>` pinned; its last line is JSON. Adds `peak_rss_mib`."""
    done = run_pinned([sys.executable, "-m", module, f"--worker={json.dumps(task)}"], threads)
    return {**json.loads(done.output.strip().split("\n")[-1]), "peak_rss_mib": done.peak_rss_mib}


def product_gflops(dtype: str, rows: int, width: int = 512, vocab_size: int = 8000, repeats: int = 3) -> float:
    """10^9 operations a second of the output layer's product, [rows, width] by [width, vocab_size]: float32, bfloat16
    or int8: of what is in that type already, and in int8 without scales."""
    import tensorflow as tf

    from nmt_keras.layers.int8 import Int8Kernel, quantized, rounded

    left = tf.random.stateless_normal([rows, width], [1, 2])
    right = tf.random.stateless_normal([width, vocab_size], [3, 4])
    if dtype == "int8":
        values, scales = rounded(right.numpy(), 1)
        kernel, x = Int8Kernel(values, scales.reshape(-1)), quantized(left)
        product = tf.function(lambda: kernel.columns().sums(x), autograph=False)
    else:
        left, right = tf.cast(left, dtype), tf.cast(right, dtype)
        product = tf.function(lambda: tf.matmul(left, right), autograph=False)
    work, seconds = 2e-9 * rows * width * vocab_size, []
    product()
    for _ in range(9):
        started = time.perf_counter()
        for _ in range(repeats):
            result = product()
        result[0, 0].numpy()  # a GPU has not done it before
        seconds.append((time.perf_counter() - started) / repeats)
    return work / statistics.median(seconds)


def op_milliseconds(run: Callable[[], object]) -> dict[str, float]:
    """What each kind of operation takes itself while `run` runs, the largest first, by TensorFlow's profiler.

    `compiled` is what XLA made of element-wise work. The profiler makes everything slower: it tells shares.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    own: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = xplane_pb2.XSpace()
        for path in pathlib.Path(folder).rglob("*.xplane.pb"):
            space.MergeFromString(path.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            names = ((event, plane.event_metadata[event.metadata_id].name) for event in line.events)
            around: list[tuple[int, str]] = []  # ends and kinds of the events that this one is within
            for event, name in sorted(names, key=lambda pair: (pair[0].offset_ps, -pair[0].duration_ps)):
                while around and around[-1][0] <= event.offset_ps:
                    around.pop()
                is_op = ":" in name and "::" not in name
                kind = "compiled" if "fusion" in name else name.rpartition(":")[2] if is_op else ""
                own[kind] += event.duration_ps
                if around:
                    own[around[-1][1]] -= event.duration_ps
                around.append((event.offset_ps + event.duration_ps, kind))
    del own[""]
    return {kind: picoseconds * 1e-9 for kind, picoseconds in own.most_common() if picoseconds > 0}


def report_profile(row: Mapping) -> None:
    """Prints what `op_milliseconds` found for a row, if it was asked: a line an operation that takes over 1%."""
    total = sum(row.get("profile", {}).values())
    for kind, milliseconds in row.get("profile", {}).items():
        if milliseconds > 0.01 * total:
            _process.report(f"  {milliseconds:8,.1f} ms  {milliseconds / total:6.1%}  {kind}")


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure of several runs."""
    numbers = [name for name, value in rows[0].items() if isinstance(value, (int, float))]
    return {name: statistics.median(row[name] for row in rows) for name in numbers}


def ratio(ours: float, theirs: float, weights: tuple[int, int]) -> float | None:
    """Our figure over a peer's; None where our model has over 2% fewer weights than theirs, which is no comparison."""
    return None if weights[0] < (1 - _MAX_FEWER) * weights[1] else ours / theirs


def table(rows: Sequence[Mapping], columns: Sequence[str]) -> str:
    """Rows as Markdown."""

    def cell(value) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows)])

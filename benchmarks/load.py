"""Load on an export behind TensorFlow Serving's interface: several clients against one, nothing lost, memory flat.

python -m benchmarks.load --saved_model=saved_models/m30k --input=val.en --clients=8 --seconds=60
The server is `pipelines.serve` in a process of its own, which merges requests; clients send a sentence a request by
gRPC, as fast as they are answered. Every answer is compared with that of the sentence alone. The last line is JSON.
"""

import json
import pathlib
import re
import subprocess
import sys
import threading
import time

import numpy as np
from absl import app, flags

_FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "The export.", required=True)
flags.DEFINE_string("input", None, "Sentences, a line each.", required=True)
flags.DEFINE_integer("clients", 8, "At once.", 1)
flags.DEFINE_float("seconds", 60.0, "Of each of the two runs.", 1.0)
flags.DEFINE_integer("requests", 10_000, "Of the watch on memory, after them; 0: none.", 0)
_DISTINCT = 200  # sentences
_PARTS = 4  # of the watch on memory


def _start() -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "pipelines.serve", f"--saved_model={_FLAGS.saved_model}"]
    process = subprocess.Popen([*command, "--rest_port=0", "--grpc_port=0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"grpc://\S+", line):
            return process, found[0]
    raise SystemExit("the server did not start")


def _resident(process: subprocess.Popen) -> float:
    """MiB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def _load(
    address: str, texts: list[str], expected: dict[str, str], clients: int, seconds: float, most: int = 0
) -> dict:
    """Clients that ask one sentence after the other until time is over, or so many were asked."""
    from nmt_keras.serving.client import Client

    times: list[float] = []
    wrong = [0]
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        rng = np.random.default_rng(number)
        with Client(address, batch_sentences=1, concurrency=1, retries=0) as client:
            while time.monotonic() < end and (not most or len(times) < most):
                text = texts[rng.integers(len(texts))]
                start = time.monotonic()
                [answer] = client.translate([text])
                with lock:
                    times.append(time.monotonic() - start)
                    wrong[0] += answer.text != expected[text]

    start = time.monotonic()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = (np.quantile(times, (0.5, 0.99)) * 1e3).tolist()
    return {
        "clients": clients,
        "requests": len(times),
        "requests_per_s": round(len(times) / (time.monotonic() - start), 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "different": wrong[0],
    }


def main(_) -> None:
    """Measures."""
    from nmt_keras.serving.client import Client

    lines = pathlib.Path(_FLAGS.input).read_text(encoding="utf-8").split("\n")
    texts = [line for line in lines if line.strip()][:_DISTINCT]
    process, address = _start()
    try:
        with Client(address, batch_sentences=1, concurrency=1) as client:
            expected = {text: client.translate([text])[0].text for text in texts}
        result: dict = {"one": _load(address, texts, expected, 1, _FLAGS.seconds)}
        result["several"] = _load(address, texts, expected, _FLAGS.clients, _FLAGS.seconds)
        for row in result.values():
            print(row, flush=True)
        if _FLAGS.requests:
            rows, mib = [], [round(_resident(process))]
            for _ in range(_PARTS):
                rows.append(_load(address, texts, expected, _FLAGS.clients, 3600.0, _FLAGS.requests // _PARTS))
                mib.append(round(_resident(process)))
                print(f"{sum(row['requests'] for row in rows):,} requests: {mib[-1]:,} MiB", flush=True)
            counts = {name: sum(row[name] for row in rows) for name in ("requests", "different")}
            result["memory"] = {**counts, "mib": mib}
        print(json.dumps(result))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    app.run(main)

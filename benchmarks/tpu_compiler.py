"""Compiles a file of benchmarks/tpu_compile.py for one chip of a TPU v5e, or so many, and prints a JSON row.

It runs in an environment of its own, with JAX 0.10.2 and libtpu 0.0.52. It uses private names of JAX: other versions
may need others.
"""

import json
import os
import pathlib
import re
import sys
import time

os.environ |= {  # libtpu would ask the machine, which is none of Google's
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import numpy as np  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jax._src.lib.mlir import ir  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jaxlib import _jax, xla_client  # noqa: E402

_COPY = r"mhlo\.copy (%\S+)( \{[^}]*\})? : (tensor<[^>]*>)"  # which has no name in StableHLO
_MIB = float(1 << 20)


def compile_file(path: pathlib.Path, num_replicas: int = 1) -> dict[str, float]:
    """Time, memory and costs of a program: eight bytes with the number of its weights, and its serialized HLO."""
    data = path.read_bytes()
    devices = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu").devices[:num_replicas]
    with mlir.make_ir_context():
        text = str(ir.Module.parse(_jax.mlir.hlo_to_stablehlo(data[8:])))
        module = ir.Module.parse(re.sub(_COPY, r"stablehlo.reshape \1 : (\3) -> \3", text))
        options = xla_client.CompileOptions()
        options.num_replicas = num_replicas
        options.device_assignment = xla_client.DeviceAssignment.create(np.arange(num_replicas)[:, None])
        started = time.process_time()
        program = devices[0].client.compile(module, xla_client.DeviceList(tuple(devices)), options)
    seconds = time.process_time() - started
    memory, costs = program.get_compiled_memory_stats(), program.cost_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return {
        "weights": int.from_bytes(data[:8], "little"),
        "compile_cpu_s": round(seconds, 1),
        "memory_mib": round((used - memory.alias_size_in_bytes) / _MIB),
        "flops": costs["flops"],
        "bytes": costs["bytes accessed"],
    }


if __name__ == "__main__":
    print(json.dumps(compile_file(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))), flush=True)

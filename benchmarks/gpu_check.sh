#!/usr/bin/env bash
# All that needs a GPU, within eight minutes and without a network: the tests marked `gpu`, then benchmarks/gpu.py.
#
#     bash benchmarks/gpu_check.sh FOLDER
#
# The interpreter is PYTHON, else that of .venv, else python3; it needs TensorFlow and pytest. TINY=1 rehearses the benchmark on a CPU.
# FOLDER gets device.txt (card, driver, versions), tests.log, gpu.jsonl and gpu.log, also where something fails.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?the folder for the results}
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v "$python" || command -v python3)
mkdir -p "$out"
(date -u; nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader) > "$out/device.txt" 2>&1
"$python" -c 'import tensorflow as tf; print(tf.__version__, tf.config.list_physical_devices("GPU"))' >> "$out/device.txt" 2>&1
cat "$out/device.txt"
timeout 210 "$python" -m pytest -m gpu -v --durations=0 -p no:cacheprovider tests/layers/test_cudnn.py tests/pipelines/test_gpu.py 2>&1 | tee "$out/tests.log"
tests=$?
timeout 240 "$python" -m benchmarks.gpu --limit_s=180 --output="$out/gpu.jsonl" ${TINY:+--tiny} 2>&1 | tee "$out/gpu.log"
benchmark=$?
echo "tests: status $tests; benchmark: status $benchmark; results in $out"
exit $((tests || benchmark))

"""Imports point one way."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What each part may import, beside itself.
LEAVES = {"constants", "engine", "errors", "reports", "files", "pipes", "config"}
TEXT = LEAVES | {"tokenizers", "data"}
MODELS = {"layers", "models"}
ALLOWED = {
    "constants": set(),
    "engine": set(),
    "errors": set(),
    "reports": set(),
    "files": {"errors"},
    "pipes": {"errors", "files"},
    "config": {"errors"},
    "tokenizers": LEAVES,
    "data": LEAVES | {"tokenizers"},
    "doctor": TEXT,
    "decoding": {"constants"},
    "layers": {"constants"},
    "models": LEAVES | {"layers"},
    "training": TEXT | MODELS | {"decoding"},
    "inference": TEXT | MODELS | {"decoding"},
    "serving": TEXT | MODELS | {"decoding", "inference"},
    "conversion": TEXT | MODELS | {"inference"},
    "runs": TEXT | MODELS | {"doctor", "decoding", "training", "inference", "serving"},
    "experiment": TEXT | MODELS | {"doctor", "decoding", "training", "inference", "serving", "conversion", "runs"},
    "api": LEAVES | {"inference", "serving", "runs", "experiment"},
    "__init__": LEAVES | {"api", "inference", "serving"},
}


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path.name} has a relative import"
            yield from ([f"{node.module}.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "nmt_keras").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_is_below_it(path):
    part = path.relative_to(ROOT / "nmt_keras").parts[0].removesuffix(".py")
    for name in _imported(path):
        assert not name.startswith("pipelines"), f"{path.name} imports a job"
        if name.startswith("nmt_keras."):
            other = name.split(".")[1]
            assert other == part or other in ALLOWED[part], f"{part} must not import {other}"


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "recipes").glob("*.py")), ids=lambda p: p.name)
def test_a_recipe_imports_no_tensorflow(path):
    program = f"import runpy, sys; runpy.run_path({str(path)!r}); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_training_imports_no_tensorflow_text():
    """Which takes 120 MiB; the graphs that translate text need it."""
    modules = "nmt_keras.experiment.train, nmt_keras.training.trainer, nmt_keras.training.feed, nmt_keras.data.batching"
    program = f"import sys, {modules}; sys.exit('tensorflow_text' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0

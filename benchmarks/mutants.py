"""Tests that cannot fail: changes one condition or constant of a module at a time, and runs the tests of the module.

python -m benchmarks.mutants --sample=20
Of each module of `_TESTS` so many changes are drawn. Each is tried in a process of its own, forked after TensorFlow was
imported: the changed source stands in for the file, which is never written. Survivors are printed as they are found;
the last line is a tally as JSON.
"""

import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Iterator

from absl import app, flags

_FLAGS = flags.FLAGS
flags.DEFINE_integer("sample", 20, "Changes of each module.")
flags.DEFINE_integer("seed", 1, "Of the draw.")
flags.DEFINE_list("only", [], "Modules, as in data/padding; all if empty.")
flags.DEFINE_float("timeout", 240.0, "Seconds of the tests of a change.")
_ROOT = pathlib.Path(__file__).parents[1]
_TESTS = {
    "data/batch_plan": ["tests/data/test_batch_plan.py"],
    "data/batching": ["tests/data/test_batching.py"],
    "data/padding": ["tests/data/test_padding.py"],
    "data/encoded": ["tests/data/test_encoded.py"],
    "data/corpus": ["tests/data/test_corpus.py"],
    "data/lexicon": ["tests/data/test_lexicon.py"],
    "decoding/beam_search": ["tests/decoding/test_beam_search.py"],
    "decoding/sampling": ["tests/decoding/test_sampling.py"],
    "decoding/constraints": ["tests/decoding"],
    "decoding/ranking": ["tests/decoding/test_beam_search.py"],
    "decoding/top_k": ["tests/decoding/test_top_k.py"],
    "decoding/banned_phrases": ["tests/decoding"],
    "training/schedules": ["tests/training/test_schedules.py"],
    "training/checkpoints": ["tests/training/test_checkpoints.py"],
    "training/losses/chunks": ["tests/training/losses"],
    "training/losses/forward": ["tests/training/losses"],
    "training/losses/cross_entropy": ["tests/training/losses"],
    "training/memory": ["tests/training/test_memory.py"],
    "training/train_step": ["tests/training/test_trainer.py", "tests/training/test_faults.py"],
    "training/trainer": ["tests/training/test_trainer.py", "tests/training/test_faults.py"],
    "training/dev_loss": ["tests/training/test_dev_loss.py"],
    "training/non_finite_steps": ["tests/training/test_faults.py", "tests/training/test_replay.py"],
    "training/replay": ["tests/training/test_replay.py"],
    "training/feed": ["tests/training/test_memory.py", "tests/training/test_trainer.py"],
    "data/encodings": ["tests/data/test_encodings.py"],
    "data/languages": ["tests/data/test_languages.py"],
    "data/vectors": ["tests/data/test_vectors.py"],
    "serving/export": ["tests/serving/test_signatures.py"],
    "serving/compression": ["tests/serving/test_compression.py"],
    "serving/transports": ["tests/serving/test_client.py"],
    "serving/client": ["tests/serving/test_client.py", "tests/serving/test_demo.py"],
}
_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Every change of a module: its line, what it is, and the changed module."""
    nodes = list(ast.walk(tree))
    skipped = {id(each) for node in nodes for each in _without_effect(node)}
    for place, node in enumerate(nodes):
        if id(node) in skipped:
            continue
        for what, apply in _changes_of(node):
            changed = copy.deepcopy(tree)
            apply(list(ast.walk(changed))[place])
            yield node.lineno, f"{ast.unparse(node)[:70]}  ->  {what}", ast.fix_missing_locations(changed)


def _without_effect(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node that no test could notice: docstrings, annotations, text of f-strings, `__all__`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    for name in ("annotation", "returns"):
        if getattr(node, name, None) is not None:
            yield from ast.walk(getattr(node, name))
    if isinstance(node, ast.JoinedStr):
        yield from ast.walk(node)


def _changes_of(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        new = _SWAPS[type(node.ops[0])]
        yield new.__name__, lambda n: n.ops.__setitem__(0, new())
    elif isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in _SWAPS:
        other = _SWAPS[type(node.op)]
        yield other.__name__, lambda n: setattr(n, "op", other())
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "condition negated", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value), lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield str(node.value + 1), lambda n: setattr(n, "value", n.value + 1)


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: pathlib.Path, tree: ast.Module):
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self._path, loader=self) if name == self._name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def _fate(module: str, tree: ast.Module, timeout: float) -> str:
    """What becomes of a change: `noticed` where tests fail, `survived`, or `endless` where they do not end."""
    child = os.fork()
    if not child:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        path = _ROOT / "nmt_keras" / f"{module}.py"
        sys.meta_path.insert(0, _Changed(f"nmt_keras.{module.replace('/', '.')}", path, tree))
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *_TESTS[module]])))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == 5:
                raise SystemExit(f"{module}: no tests were collected")
            return "survived" if code == 0 else "noticed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "endless"


def main(_) -> None:
    """Prints survivors, and a tally."""
    os.chdir(_ROOT)
    import keras  # noqa: F401  what all children need
    import pytest  # noqa: F401
    import tensorflow  # noqa: F401

    tally = {}
    for module in _FLAGS.only or _TESTS:
        tree = ast.parse((_ROOT / "nmt_keras" / f"{module}.py").read_text(encoding="utf-8"))
        if _fate(module, tree, _FLAGS.timeout) != "survived":
            raise SystemExit(f"{module}: its tests fail as it is")
        changes = list(_changes(tree))
        drawn = random.Random(_FLAGS.seed).sample(changes, min(_FLAGS.sample, len(changes)))
        fates = {"noticed": 0, "endless": 0, "survived": 0}
        for line, what, changed in drawn:
            fate = _fate(module, changed, _FLAGS.timeout)
            fates[fate] += 1
            if fate != "noticed":
                print(f"{fate} {module}.py:{line}: {what}", flush=True)
        tally[module] = {"changes": len(changes), "tried": len(drawn), **fates}
        print(json.dumps({module: tally[module]}), flush=True)
    names = ("tried", "noticed", "endless", "survived")
    print(json.dumps({name: sum(each[name] for each in tally.values()) for name in names}))


if __name__ == "__main__":
    app.run(main)

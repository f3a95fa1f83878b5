"""What is read is data: nothing in a configuration, a tokenizer, a checkpoint or a reply is run."""

import ast
import configparser
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted([*(ROOT / "nmt_keras").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
RUNS_DATA = {"eval", "exec", "compile", "__import__"}
MODULES_THAT_RUN_DATA = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in RUNS_DATA, node.lineno
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {name.partition(".")[0] for name in names} & MODULES_THAT_RUN_DATA, node.lineno
        if isinstance(node, ast.keyword):
            allows = node.arg == "allow_pickle" and not (isinstance(node.value, ast.Constant) and not node.value.value)
            assert not allows and node.arg != "enable_unsafe_deserialization", node.value.lineno


def test_what_is_installed_for_tests_is_known_by_its_hashes():
    """requirements.lock, by `make lock`: an exact version and sha256 of each package that setup.cfg asks for."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = re.findall(
        r"(?m)^([a-z0-9.-]+)(?:\[\w+\])?==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text
    )
    assert len(locked) == len(re.findall(r"(?m)^[^#\s]", text)) > 100
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    asked = config["options"]["install_requires"] + config["options.extras_require"]["dev"]
    names = {re.sub(r"[_.]", "-", name.lower()) for name in re.findall(r"(?m)^\s*([A-Za-z0-9_.-]+)", asked)}
    assert names - {"nmt-keras"} <= {name for name, _ in locked}

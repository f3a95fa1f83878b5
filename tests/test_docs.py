"""The documentation holds: links lead somewhere, jobs have the flags that it gives them, its Python compiles."""

import contextlib
import functools
import importlib
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "WORKSPACE.md", "CONTRIBUTING.md")),
    ROOT / "benchmarks" / "MEASUREMENTS.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_GENERAL = {"config", "decoding", "helpfull", "help"}


def _anchors(text):
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file.read_text(encoding="utf-8")), target
    for path in re.findall(r"`?((?:docs|benchmarks|pipelines|nmt_keras|tests)/[\w/]+\.(?:md|py|sh|png))", text):
        assert (ROOT / path).exists(), path


def _commands(text):
    """The arguments of each `python -m`, of lines that go on after a backslash too."""
    for line in re.sub(r"\\\n\s*", " ", text).split("\n"):
        for command in re.findall(r"python -m ((?:pipelines|benchmarks)\.\w+(?: [^`|#>]*)?)", line):
            with contextlib.suppress(ValueError):  # a quote that closes in the next cell
                module, *arguments = shlex.split(command)
                yield module, [each for each in arguments if each.startswith("--") and each != "--"]


def _flags_of(module):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--helpfull"])
    return set(re.findall(r"--(?:\[no\])?([\w.]+)", text.getvalue()))


@functools.cache
def _known(module):
    return _flags_of(module) | _GENERAL


def _is_flag(argument, known):
    """Whether an argument, `--name` or `--name=value`, is one of the flags, or of the fields of a configuration."""
    name = argument.removeprefix("--").partition("=")[0]
    if name.startswith(("config.", "decoding.")):
        section, _, rest = name.partition(".")
        return (rest if section == "config" else name) in {field.path for field in fields_of(ExperimentConfig)}
    return name in known or name.removeprefix("no") in known


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_jobs_have_the_flags_that_are_given(page):
    for module, arguments in _commands(page.read_text(encoding="utf-8")):
        if module.startswith("benchmarks."):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
        elif module != "pipelines.launch":  # which passes flags on
            for argument in arguments:
                assert _is_flag(argument, _known(module)), f"{module} {argument}"


JOBS = sorted(path.stem for path in (ROOT / "pipelines").glob("[!_]*.py"))
# Pages that name flags of other programs, or of benchmarks, in their sentences.
_OF_OTHERS = ("migration.md", "results.md", "MEASUREMENTS.md", "WORKSPACE.md")
_FLAGS_OF_OTHERS = ("--signal", "--", "--decoding.<name>", "--decoding.*")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_in_sentences_are_those_of_the_job_or_of_some_job(page):
    text = re.sub(r"(?ms)^```.*?^```|^    [^\n]*$", "", page.read_text(encoding="utf-8"))
    of_any = {flag for job in JOBS for flag in _known(f"pipelines.{job}")}
    for span in re.findall(r"`([^`]+)`", text):
        begin, *rest = span.split()
        job = re.sub(r"^(pipelines\.|nmt-)", "", begin)
        if begin.startswith("--") and page.name not in _OF_OTHERS:
            known, given = of_any, [begin]
        elif job in JOBS:
            known, given = of_any if job == "launch" else _known(f"pipelines.{job}"), rest
        else:
            continue
        for argument in given:
            is_ours = argument.startswith("--") and argument.partition("=")[0] not in _FLAGS_OF_OTHERS
            assert not is_ours or _is_flag(argument, known), span


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_fields_that_are_named_exist(page):
    if page.name in (
        "api.md",
        "tutorial.md",
        "migration.md",
        "WORKSPACE.md",
    ):  # which name attributes and others' fields
        return
    known = {field.path for field in fields_of(ExperimentConfig)}
    named = re.findall(
        r"`\"?((?:data|model|training|decoding)\.[a-z_]+)(?!\.|[a-z_]|\()", page.read_text(encoding="utf-8")
    )
    assert {name for name in named if not name.endswith((".md", ".py"))} <= known


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_its_python_compiles(page):
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8")):
        compile(block, str(page), "exec")


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split("\n")) <= 130


def test_each_page_is_in_the_site():
    listed = re.findall(r"- ([\w.-]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_the_notebook_runs_from_its_top_to_its_end(tmp_path):
    """In a process of its own, without Jupyter: `HTML` is what a notebook would show."""
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    for old, new in (("from IPython.display import HTML", "HTML = print"), ("UPDATES = 300", "UPDATES = 60")):
        assert old in code
        code = code.replace(old, new)
    program = tmp_path / "notebook.py"
    program.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "<table><tr><th></th>" in done.stdout and "tok:zh" in done.stdout
    assert list(tmp_path.glob("saved_models/mine/1/saved_model.pb"))
    assert re.search(r"grpc://127\.0\.0\.1:\d+/mine \S", done.stdout)


@pytest.mark.slow
def test_the_tutorial_runs_from_its_top_to_its_end(capsys):
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", text)
    names = {}
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), names)
    assert len(blocks) > 6 and capsys.readouterr().out.count("\n") == 3


def test_what_the_tutorial_names_is_where_it_says():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    named = re.findall(r"`(nmt_keras/[\w/]+\.py)`,\s+((?:`\w+`(?: and )?)+)", text)
    named += [("nmt_keras/layers/attention.py", name) for name in re.findall(r"\| (`\w+Attention`) \|", text)]
    assert len(named) > 12
    for path, names in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"(?m)^(?:class|def) {name}\b", source), f"{path}: {name}"

"""The documentation holds: links lead somewhere, jobs have the flags that it gives them, its Python compiles."""

import contextlib
import importlib
import io
import pathlib
import re
import shlex

import pytest

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_jobs_have_the_flags_that_are_given(page):
    known_fields = {field.path for field in fields_of(ExperimentConfig)}
    flags = {}
    for module, arguments in _commands(page.read_text(encoding="utf-8")):
        if module.startswith("benchmarks."):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
            continue
        if module not in flags:
            flags[module] = _flags_of(module) | _GENERAL
        for argument in arguments:
            name = argument.removeprefix("--").partition("=")[0]
            if name.startswith(("config.", "decoding.")):
                section, _, rest = name.partition(".")
                assert (rest if section == "config" else name) in known_fields, argument
            elif module != "pipelines.launch":
                assert name in flags[module] or name.removeprefix("no") in flags[module], f"{module} {argument}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_its_python_compiles(page):
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8")):
        compile(block, str(page), "exec")


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split("\n")) <= 130


def test_each_page_is_in_the_site():
    listed = re.findall(r"- ([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))

"""Every command of the documentation is run, page by page, in a folder with the files and runs that the pages name.

What needs something that is not there says so in its line, `# needs SLURM`, or has a `<placeholder>`; a page all of
whose commands do says it in a sentence that begins with "The commands of this page need".
"""

import gzip
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ["README.md", "README.zh.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
_PROGRAM = re.compile(r"(?:\.|python|make|pip|docker|curl|tensorboard|srun|cd|echo|ssh|nmt-\w+)(?: |$)")
# Run by others: the first two by CI and tests/pipelines/test_quickstart.py, the environment by `make`, packages by
# tests/test_wheel.py.
_ELSEWHERE = re.compile(r"make (?:quickstart|test)|python -m pipelines\.quickstart|\. \.venv/bin/activate|pip install ")
_MARKED = re.compile(r"\s# needs |^[^#]*<[a-z][^>]*>")
_WHOLE_PAGE = "The commands of this page need"
_ADDRESSES = {
    "docker run": "http://127.0.0.1:8501/v1/models/mine",
    "pipelines.serve": "http://127.0.0.1:8501/v1/models/mine",
    "pipelines.demo": "http://127.0.0.1:8080",
    "tensorboard": "http://127.0.0.1:6006",
}
_RUNS = ("m30k", "a", "b", "base", "big", "teacher", "de-en", "ende", "other", "quickstart")
_SECONDS = 900
_SHORTER = ((r"max_steps=\d+", "max_steps=60"), (r"--exact=\d+", "--exact=50"))
_WORDS = {
    "a": ("ein", "一个"),
    "man": ("Mann", "男人"),
    "rides": ("reitet", "骑"),
    "horse": ("Pferd", "马"),
    "two": ("zwei", "两个"),
    "dogs": ("Hunde", "狗"),
    "play": ("spielen", "玩"),
    "in": ("in", "在"),
    "snow": ("Schnee", "雪"),
    "sees": ("sieht", "看见"),
    "child": ("Kind", "孩子"),
    "red": ("rotes", "红"),
}


def commands_of(text):
    """The commands of a page: lines of blocks of four spaces, with what goes on after a backslash."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?ms)^```.*?^```", "", text))
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith("    ") and _PROGRAM.match(line.strip()):
            while line.partition(" #")[0].count("'") % 2:  # a quotation over several lines
                line += " " + next(lines).strip()
            yield line.strip()


def is_run(page_text, command):
    """Whether a command can be run at all."""
    return not (_WHOLE_PAGE in page_text or _MARKED.search(command) or _ELSEWHERE.match(command))


def is_installed(command):
    """Whether what a command takes for granted is on this machine."""
    if "pytorch" in command or "model.py" in command:
        return importlib.util.find_spec("torch") is not None  # an extra, which `make test-pytorch` installs
    return not command.startswith("curl") or shutil.which("curl") is not None


def _sentences(language, count, first=0):
    words, column = list(_WORDS), {"en": None, "de": 0, "zh": 1}[language]
    for number in range(first, first + count):
        picked = [words[(number * step + step) % len(words)] for step in (1, 5, 7, 11)]
        picked += [words[number // 12 % len(words)], words[number // 144 % len(words)]]
        said = [word if column is None else _WORDS[word][column] for word in picked]
        yield ("" if language == "zh" else " ").join(said) + ("。" if language == "zh" else ".")


def _write(folder, name, lines):
    data = "".join(f"{line}\n" for line in lines).encode("utf-8")
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def _run(command, folder, seconds=_SECONDS):
    """Its output; the shell that runs it ends at the first failure. pytest's own folder of caches stays out of it."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _environment(folder):
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}


def _shorten(recipe):
    """As the page says: max_steps, warmup_steps, evaluate_every and checkpoint_every together."""
    text = recipe.read_text(encoding="utf-8")
    for field, value in (("max_steps", 60), ("warmup_steps", 5), ("evaluate_every", 60), ("checkpoint_every", 30)):
        text, count = re.subn(rf"{field}=[\d_]+", f"{field}={value}", text)
        assert count == 1, field
    recipe.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folders as the pages take them for granted, by the target language: text, a recipe, runs."""
    return {language: _world(tmp_path_factory.mktemp(language), language) for language in ("de", "zh")}


def _world(folder, language):
    for name, count, first in (("train", 1000, 0), ("val", 30, 1200), ("test", 30, 1300), ("news", 5, 1400)):
        for side in ("en", language):
            _write(folder, f"{name}.{side}", _sentences(side, count, first))
            _write(folder, f"{name}.{side}.gz", _sentences(side, count, first))
    both = zip(_sentences("en", 1000), _sentences(language, 1000))
    _write(folder, "pairs.tsv", ["en\t" + language, *(f"{source}\t{target}" for source, target in both)])
    _write(folder, "terms.tsv", ["horse\tPferd", "snow\tSchnee"])
    _write(folder, "begun.de", ["ein"] * 5)
    _write(folder, "pages.en", ["<b>a man</b> rides a horse.", "two dogs {name} play in snow https://example.org/"])
    _write(folder, "mono.de.gz", _sentences("de", 20, 1500))
    start = f"python -m pipelines.start --data=pairs.tsv --source=en --target={language} --run_dir=runs/mine"
    _run(f"{start} --notrain", folder)
    _shorten(folder / "runs" / "mine.py")
    _run(start, folder)
    _run("python -m pipelines.export --run_dir=runs/mine --output=saved_models/mine", folder)
    recipe = (folder / "runs" / "mine.py").read_text(encoding="utf-8")
    (folder / "my_recipe.py").write_text(recipe.replace(str(folder), ""), encoding="utf-8")  # of a folder's own text
    for name in _RUNS:
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / name)
    if language == "de":
        _write(folder, "theirs.de", _sentences("de", 30, 1201))
        _write(folder, "train.fr", _sentences("de", 1000))
        several = (
            "--config.data.train_source=\"('train.en', 'train.en')\" --config.data.train_languages=\"('de', 'fr')\" "
            "--config.data.train_target=\"('train.de', 'train.fr')\" --config.training.max_steps=2 "
            "--config.data.dev_pairs=0 --config.data.test_pairs=0 --config.data.on_findings=report "
            "--config.data.dev_source=\"('val.en',)\" --config.data.dev_target=\"('val.de',)\" "
            "--config.data.dev_languages=\"('de',)\""
        )
        _run(f"python -m pipelines.train --config=my_recipe.py --run_dir=runs/all {several}", folder)
    return folder


class _Server:
    """A command that serves until it is interrupted; in the place of a container, the module that behaves like it."""

    def __init__(self, command, folder):
        key = next(key for key in _ADDRESSES if key in command)
        if key == "docker run":
            command = "python -m pipelines.serve --saved_model=saved_models/mine"
        self._log = (folder / "server.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=_environment(folder),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's ignores it
        )
        end = time.monotonic() + _SECONDS
        while not self._answers(_ADDRESSES[key]):
            assert self._process.poll() is None and time.monotonic() < end, self._said(command)
            time.sleep(0.2)

    def _said(self, command):
        self._log.seek(0)
        return f"{command}\n{self._log.read()[-3000:]}"

    def _answers(self, address):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._log.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_its_commands_run(page, worlds, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = [command for command in commands_of(text) if is_run(text, command) and is_installed(command)]
    if not commands:
        pytest.skip("it has none that can be run here")
    folder, language = tmp_path / "world", "zh" if page.endswith(".zh.md") else "de"
    shutil.copytree(worlds[language], folder)
    if any("pipelines.start" in command for command in commands):  # what it makes must come from it
        shutil.rmtree(folder / "runs" / "mine")
    servers = []
    try:
        for command in commands:
            if any(key in command for key in _ADDRESSES):
                for server in servers:  # of another page's address
                    server.stop()
                servers = [_Server(re.sub(r"\s+#.*", "", command), folder)]
                continue
            for long, short in _SHORTER:
                command = re.sub(long, short, command)
            output = _run(command.replace("curl ", "curl --silent --show-error --fail-with-body "), folder)
            if command.startswith("curl"):
                assert "outputs" in output or '"AVAILABLE"' in output, f"{command}\n{output}"
            if f"--output=news.{language}" in command:
                assert (folder / f"news.{language}").read_bytes().count(b"\n") == 5
    finally:
        for server in servers:
            server.stop()
    if "README" in page:
        assert (folder / "runs" / "mine" / "report.html").exists()
    if "pipelines.export" in text and "pipelines.start" in text:
        assert len(list((folder / "saved_models" / "mine").glob("*/saved_model.pb"))) == 2  # with that of before


def test_what_runs_and_what_does_not_is_told_apart():
    text = (
        "Text.\n\n    python -m pipelines.train --config=a \\\n        --run_dir=b  # trains\n"
        "    srun x  # needs SLURM\n"
        "    python -m pipelines.train --data_dir=<folder of Multi30k>\n    make test\n    DataConfig(\n\n"
        "```python\n    python = 3\n```\n"
    )
    found = list(commands_of(text))
    assert [is_run(text, command) for command in found] == [True, False, False, False]
    assert found[0] == "python -m pipelines.train --config=a --run_dir=b  # trains"
    assert not is_run(f"{_WHOLE_PAGE} a GPU.\n{text}", found[0])


def test_each_page_has_commands_that_run_or_none():
    """So that a change of the pages' form, which would hide them all, is seen; what is not run says why."""
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    counts = {page: sum(is_run(text, each) for each in commands_of(text)) for page, text in texts.items()}
    assert counts["README.md"] > 7 and counts["docs/getting-started.md"] > 7 and counts["docs/quality.md"] > 9
    assert sum(counts.values()) > 40
    for text in texts.values():
        for command in commands_of(text):
            if _WHOLE_PAGE not in text and not is_run(text, command):
                assert "# needs " in command or "<" in command or _ELSEWHERE.match(command), command

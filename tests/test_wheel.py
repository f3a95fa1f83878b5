"""What is installed from a wheel: all that is needed, and nothing else."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of what git knows, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout
    if not files:
        pytest.skip("there is no git repository")
    for name in files.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", "./tree"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_has_jobs_recipes_the_page_and_word_lists_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (*(ROOT / "nmt_keras").rglob("*"), *(ROOT / "pipelines").rglob("*"), *(ROOT / "examples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names, path
    tops = {name.split("/")[0] for name in names}
    assert tops == {"nmt_keras", "pipelines", "examples", wheel.name.split("-py3")[0] + ".dist-info"}


@pytest.mark.slow
def test_the_quickstart_runs_from_a_wheel_in_an_empty_environment(wheel, tmp_path):
    """Installs everything anew, which takes a minute where the packages are at hand."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "pip", "install", "--quiet", "--no-compile"]
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    versions = "\n".join(re.findall(r"(?m)^[\w.\[\]-]+==\S+", locked))  # with hashes pip takes no wheel without one
    (tmp_path / "constraints.txt").write_text(versions + "\n", encoding="utf-8")
    subprocess.run([*pip, f"--constraint={tmp_path}/constraints.txt", wheel], check=True, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    program = tmp_path / "venv" / "bin" / "python"
    job = [program, "-m", "pipelines.quickstart", "--max_steps=20", "--run_dir=run", "--saved_model=saved"]
    done = subprocess.run(job, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"different": 0' in done.stdout and (tmp_path / "run" / "report.html").exists()
    asked = subprocess.run(
        [tmp_path / "venv" / "bin" / "nmt-translate", "--run_dir=run"],
        input="My older sister bought three books.\n",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0 and asked.stdout.count("\n") == 1, asked.stderr[-2000:]

"""The quickstart from end to end, cut short."""

import json
import pathlib
import re
import subprocess

import pytest

from pipelines import quickstart


@pytest.mark.slow
def test_the_quickstart_runs_to_its_end(tmp_path, capsys):
    assert quickstart.main([f"--run_dir={tmp_path}/run", f"--saved_model={tmp_path}/saved", "--max_steps=60"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.strip().split("\n")[-1])
    assert result["different"] == 0 and "tok:zh" in result["bleu_signature"] and "chrf" in result
    assert re.search("[一-鿿]", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "saved" / "1" / "saved_model.pb").exists()
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_next_commands_run_without_an_active_environment(tmp_path):
    translate, tensorboard, train = quickstart.next_commands(tmp_path / "my run")
    python = translate.partition("| ")[2].split()[0]
    assert train.startswith(python + " -m pipelines.train")
    version = subprocess.run([python, "-c", "import tensorboard"], capture_output=True, check=False)
    assert version.returncode == 0
    assert pathlib.Path(tensorboard.split()[0]).exists()
    assert f"--run_dir='{tmp_path}/my run'" in translate

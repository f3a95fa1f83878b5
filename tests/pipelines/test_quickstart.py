"""The quickstart from end to end, cut short."""

import json

import pytest

from pipelines import quickstart


@pytest.mark.slow
def test_the_quickstart_runs_to_its_end(tmp_path, capsys):
    assert quickstart.main([f"--run_dir={tmp_path}/run", f"--saved_model={tmp_path}/saved", "--max_steps=60"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.strip().split("\n")[-1])
    assert result["different"] == 0 and "tok:zh" in result["bleu_signature"] and "chrf" in result
    assert (tmp_path / "run" / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "saved" / "1" / "saved_model.pb").exists()
    assert output.err.count("python -m pipelines.") + output.err.count("tensorboard --logdir") == 3

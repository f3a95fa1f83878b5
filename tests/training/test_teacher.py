"""The teachers of a distillation: one or several, the same from the beginning to the end."""

import json
import shutil

import pytest

from nmt_keras.errors import UserError
from nmt_keras.experiment.train import train
from tests.pipelines import copy_recipe


@pytest.fixture
def config(trained_copy, tmp_path):
    """A student of the copy model, for two steps."""
    config = copy_recipe.get_config()
    config.data.data_dir, config.data.cache_dir = str(trained_copy / "text"), str(tmp_path / "cache")
    config.data.tokenizer_from = str(trained_copy / "run")
    config.model.d_model = 16
    config.training.loss, config.training.teacher = "distillation", (str(trained_copy / "run"),)
    config.training.max_steps = config.training.evaluate_every = config.training.log_every = 2
    return config


@pytest.mark.slow
def test_several_teachers_are_an_ensemble(config, trained_copy, tmp_path):
    config.training.teacher = (f"{trained_copy}/run",) * 2
    train(config, tmp_path / "run")
    config.training.teacher = (f"{trained_copy}/run",)
    train(config, tmp_path / "one")
    rows = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("run", "one")]
    assert rows[0]["divergence"] > 0
    assert rows[0]["divergence"] == pytest.approx(rows[1]["divergence"], rel=1e-4)  # twice the same is the one
    hashes = [json.loads((tmp_path / name / "teacher.json").read_text())["weights_sha256"] for name in ("run", "one")]
    assert len(hashes[0]) == 2 and hashes[0][0] == hashes[1][0]


def test_a_teacher_with_other_tokenizers_is_refused(config, tmp_path):
    config.data.tokenizer_from, config.data.tokenizer = "", "byte"
    with pytest.raises(UserError, match="has another source tokenizer than this run.*with data.tokenizer_from="):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_goes_on_with_the_teacher_it_had(config, trained_copy, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(trained_copy / "run", teacher)
    config.training.teacher = (str(teacher),)
    train(config, tmp_path / "run")
    config.training.max_steps = 4
    config.training.teacher_checkpoint = "ema"
    with pytest.raises(UserError, match="training.teacher_checkpoint"):
        train(config, tmp_path / "run")
    config.training.teacher_checkpoint = "best"
    shutil.copytree(teacher / "checkpoints" / "step-00000125", tmp_path / "older")
    (teacher / "checkpoints" / "best.json").write_text(json.dumps({"step": 125, "metric": "dev_bleu", "value": 1.0}))
    with pytest.raises(UserError, match="learned from other weights of the teacher"):
        train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", allow_change=True)

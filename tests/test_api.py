"""The public API: its names, what its import costs, and that its functions do what the jobs do."""

import importlib.metadata
import inspect
import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import nmt_keras
from nmt_keras.engine import load_tensorflow
from pipelines import translate

ROOT = pathlib.Path(__file__).parents[1]
RECIPE = ROOT / "tests" / "pipelines" / "copy_recipe.py"


def test_the_documentation_has_every_name_and_no_other():
    documented = re.findall(r"^## `(\w+)`$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(nmt_keras.__all__)
    assert all(getattr(nmt_keras, name).__doc__ for name in nmt_keras.__all__)
    assert set(nmt_keras.__all__) <= set(dir(nmt_keras))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        nmt_keras.nothing


@pytest.mark.parametrize("name", ["evaluate", "export", "load", "recipe", "train"])
def test_a_function_is_documented_with_its_arguments_and_their_defaults(name):
    parts = []
    for parameter in inspect.signature(getattr(nmt_keras, name)).parameters.values():
        if parameter.kind == parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        stars = "**" * (parameter.kind == parameter.VAR_KEYWORD)
        default = "..." if parameter.name == "report" else json.dumps(parameter.default, default=lambda _: "")
        default = {"false": "False", "null": "None"}.get(default, default)
        parts.append(f"{stars}{parameter.name}" + f"={default}" * (parameter.default is not parameter.empty))
    assert f"`{name}({', '.join(parts)})`" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_import_brings_nothing_with_it():
    program = "import sys, nmt_keras; print({name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "nmt_keras" in found
    assert not any(name in found for name in ("numpy", "tensorflow", "absl", "ml_collections", "json"))


def test_tensorflow_comes_without_its_remarks():
    program = (
        "from nmt_keras.engine import load_tensorflow as load; load(); import tensorflow as tf; tf.constant(1) + 1"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_tensorflow_that_was_imported_before_stays_as_it_was(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    level = logging.getLogger("tensorflow").level
    monkeypatch.setattr(logging.getLogger("tensorflow"), "level", logging.INFO)
    load_tensorflow()
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ and logging.getLogger("tensorflow").level == logging.INFO != level


@pytest.mark.slow
def test_a_program_that_translates_sees_nothing_of_tensorflow(trained_copy):
    program = (
        f"import nmt_keras; model = nmt_keras.load({str(trained_copy / 'run')!r}, report=lambda line: None)\n"
        "print(model.translate(['a b'])[0].text)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "a b\n", "")


def test_a_run_is_opened_as_the_jobs_open_it(trained_copy, tmp_path, capsys):
    run, texts = trained_copy / "run", ["a b c d", "d c b"]
    (tmp_path / "in.txt").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    assert translate.main([f"--run_dir={run}", f"--input={tmp_path}/in.txt"]) == 0
    expected = capsys.readouterr().out.split("\n")[:-1]
    with nmt_keras.load(run) as model:
        assert [translation.text for translation in model.translate(texts)] == expected
        [best, second] = model.translate(texts[:1], beam_size=3, num_hypotheses=2)[0].hypotheses
        assert best.score >= second.score and len(best.alignment) == len(best.pieces) - 1
        [row] = model.score(texts[:1], expected[:1])
        assert abs(row["log_prob"] - best.log_prob) < 1e-4
        assert np.ndim(model.encode(texts)[1]["vector"]) == 1
        [drawn] = model.attention(texts[:1])
        assert drawn.text == expected[0]
        assert drawn.best.attention_weights.shape == (len(drawn.best.pieces), len(drawn.source_pieces))
        np.testing.assert_allclose(drawn.best.attention_weights.sum(-1), 1.0, atol=1e-5)


@pytest.mark.slow
def test_an_export_says_what_its_run_says(trained_copy, tmp_path):
    said, texts = [], ["a b c d", "d c b"]
    found = nmt_keras.export(trained_copy / "run", tmp_path / "saved", beam_size=2, report=said.append)
    assert found["different"] == 0 < found["compared"] and any("comparing" in line for line in said)
    with nmt_keras.load(tmp_path / "saved") as export, nmt_keras.load(trained_copy / "run", beam_size=2) as run:
        for one, other in zip(export.attention(texts), run.attention(texts), strict=True):
            assert one.text == other.text and one.best.pieces == other.best.pieces
            np.testing.assert_allclose(one.best.attention_weights, other.best.attention_weights, atol=1e-5)


@pytest.mark.slow
def test_several_runs_are_an_ensemble_of_their_search(trained_copy):
    texts = ["a b c d", "d c b"]
    with nmt_keras.load(trained_copy / "run") as one, nmt_keras.load([trained_copy / "run"] * 2, beam_size=1) as two:
        assert [found.text for found in two.translate(texts)] == [found.text for found in one.translate(texts)]


def test_training_and_measuring(trained_copy, tmp_path):
    config = nmt_keras.recipe(RECIPE, **{"training.max_steps": 1, "training.evaluate_every": 1, "model.d_model": 16})
    said = []
    assert nmt_keras.train(config, tmp_path / "run", data_dir=trained_copy / "text", report=said.append)
    assert any("step 1" in line for line in said)
    assert nmt_keras.recipe(tmp_path / "run").model.d_model == 16
    scores = nmt_keras.evaluate(
        tmp_path / "run", "dev.src", "dev.tgt", data_dir=trained_copy / "text", beam_size=1, report=said.append
    )
    assert 0 <= scores["bleu"] <= 100 and "nrefs:1" in scores["bleu_signature"]


@pytest.mark.parametrize(
    "model, message",
    [
        (None, "^load needs a model: a run directory"),
        (
            "localhost:8500/mine",
            "^localhost:8500/mine is no folder; write the address of a server as grpc://localhost:8500/mi",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line(model, message):
    with pytest.raises(nmt_keras.UserError, match=message):
        nmt_keras.load(model)


@pytest.mark.parametrize(
    "runs, precision, message",
    [
        ([], "int8", "^export needs a run directory; give one"),
        (
            "grpc://localhost:8500/m",
            "int8",
            "^grpc://localhost:8500/m is the address of a server; give the run directory",
        ),
        ("run", "int4", "^precision must be one of float32, bfloat16, int8, int8_compute. Received: 'int4'$"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path, runs, precision, message):
    with pytest.raises(nmt_keras.UserError, match=message):
        nmt_keras.export(runs, tmp_path / "saved", precision=precision)


def test_mistakes_are_one_line(trained_copy, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "text.py").write_text("def get_config():\n    return 'text'\n")
    for call, message in (
        (lambda: nmt_keras.load([]), "load needs a model"),
        (lambda: nmt_keras.load("nowhere"), "There is no nowhere: give a run directory, an export, or the address"),
        (lambda: nmt_keras.load(""), "There is no '': give a run directory, an export, or the address"),
        (lambda: nmt_keras.load(tmp_path / "empty"), "is no export of this toolkit"),
        (lambda: nmt_keras.load("grpc://localhost:1/x", beam_size=5), "beam_size goes with a run directory"),
        (lambda: nmt_keras.load(["grpc://localhost:1/x", "runs/b"]), "an ensemble is of run directories"),
        (lambda: nmt_keras.load(trained_copy / "run", beam=5), "There is no field 'decoding.beam'"),
        (lambda: nmt_keras.recipe("nowhere.py"), "There is no recipe nowhere.py"),
        (lambda: nmt_keras.recipe(tmp_path / "none.py"), "has no get_config"),
        (lambda: nmt_keras.recipe(trained_copy / "text" / "dev.src"), "is no Python file: .*; a recipe is one with"),
        (lambda: nmt_keras.recipe(tmp_path / "text.py"), "must return an ExperimentConfig. Received: str"),
        (lambda: nmt_keras.recipe(f"{RECIPE}:x"), "takes no argument. Received: 'x'"),
        (lambda: nmt_keras.recipe(RECIPE, **{"data.languages_of_dev": 1}), "There is no field 'data.languages_of_dev'"),
        (lambda: nmt_keras.recipe(RECIPE, **{"training.steps": 1}), "There is no field 'training.steps'"),
        (
            lambda: nmt_keras.recipe(RECIPE, **{"training.max_steps": "9"}),
            "`training.max_steps` must be .*Received: '9'",
        ),
        (
            lambda: nmt_keras.evaluate(trained_copy / "run", "a", "b", glossary="none"),
            "Cannot read the glossary none: No",
        ),
        (lambda: nmt_keras.train(RECIPE, tmp_path / "run", data_dir=tmp_path), "Cannot read .*train.src"),
    ):
        with pytest.raises(nmt_keras.UserError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_each_job_is_a_console_command():
    commands = {
        entry.name.removeprefix("nmt-"): entry
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.value.startswith("pipelines.")
    }
    jobs = {path.stem for path in (ROOT / "pipelines").glob("[a-z]*.py")} - {"quickstart"}
    assert set(commands) == jobs
    for name, entry in commands.items():
        assert entry.value == f"pipelines.{name}:main" and callable(entry.load())

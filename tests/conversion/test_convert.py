"""The job refuses what it cannot convert, in a line."""

import importlib.util

import pytest

from nmt_keras.conversion import source
from nmt_keras.experiment.convert import CONVERTERS
from pipelines import convert

TRANSFORMER = {"encoder": "transformer", "decoder": "transformer", "d_model": 16, "num_heads": 4, "d_ff": 24}


def _refused(capsys, *arguments):
    assert convert.main(list(arguments)) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    return line


def test_what_must_be_given(capsys):
    line = _refused(capsys, "--run_dir=runs/a", "--to=ctranslate2")
    assert "--run_dir, --to and --output must be given, as in --run_dir=runs/m30k --to=ctranslate2" in line
    assert "--output" in line and "--to" in _refused(capsys, "--run_dir=runs/a", "--output=x", "--to=onnx")


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_missing_package_is_named_with_its_extra(name, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    line = _refused(capsys, "--run_dir=runs/a", f"--to={name}", "--output=x")
    assert f"--to={name} needs {' and '.join(CONVERTERS[name].packages)}: pip install 'nmt_keras[{name}]'" in line


@pytest.mark.parametrize("error", [ImportError("libgomp.so.1: no such file\nmore"), OSError("libgomp.so.1: no such")])
def test_a_package_that_is_broken_is_a_line(error, make_run, tmp_path, capsys, monkeypatch):
    def broken(package):
        raise error

    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    monkeypatch.setattr(source.importlib, "import_module", broken)
    line = _refused(capsys, f"--run_dir={make_run(TRANSFORMER)}", "--to=ctranslate2", f"--output={tmp_path}/x")
    assert "--to=ctranslate2 cannot import ctranslate2: libgomp.so.1: no such" in line
    assert line.endswith("install it anew: pip install --force-reinstall 'nmt_keras[ctranslate2]'")
    assert not (tmp_path / "x").exists()


def test_an_ensemble_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    line = _refused(capsys, "--run_dir=runs/a,runs/b", "--to=ctranslate2", "--output=x")
    assert "an ensemble cannot be converted: give one --run_dir. Received: runs/a, runs/b" in line


def test_all_reasons_come_at_once(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    run_dir = make_run({"d_model": 12, "encoder": "rnn", "decoder": "rnn"}, tokenizer="char")
    line = _refused(capsys, f"--run_dir={run_dir}", "--to=ctranslate2", f"--output={tmp_path}/x")
    assert "--to=ctranslate2 takes Transformers with SentencePiece tokenizers: give another run, or serve this" in line
    assert "Received: model.encoder rnn; model.decoder rnn; a source tokenizer that is not SentencePiece's" in line
    assert "(data.tokenizer char); a target tokenizer" in line and line.endswith(f", of {run_dir}")
    assert not (tmp_path / "x").exists()


def test_a_dev_set_of_blank_lines_proves_nothing(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    run_dir = make_run(TRANSFORMER)
    for side in ("src", "tgt"):
        (tmp_path / f"dev.{side}").write_text("\n\na\n", encoding="utf-8")
    arguments = (f"--run_dir={run_dir}", "--to=ctranslate2", f"--output={tmp_path}/x", "--proof_lines=2")
    assert "the first lines of the dev set are blank" in _refused(capsys, *arguments)

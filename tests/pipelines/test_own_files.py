"""A training, and what is measured, on a table of the user's own, whose dev and test pairs are taken out of it."""

import json
import pathlib

import pytest

from nmt_keras.doctor.cleaning import DROPPED
from pipelines import evaluate, report, train

RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")


@pytest.mark.slow
def test_one_table_is_trained_and_measured_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = [f"{letter * 3} {number}" for letter in "abcdefgh" for number in range(60)]
    rows = ["yy\txx", *(f"{word.upper()}\t{word}" for word in words), "no pair"]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    run_dir = tmp_path / "run"
    data = {"data_dir": tmp_path, "train_source": "pairs.tsv", "train_target": "()", "dev_source": "()"}
    data |= {"dev_target": "()", "dev_pairs": 20, "test_pairs": 10}
    arguments = [RECIPE, f"--run_dir={run_dir}", *(f"--config.data.{name}={value}" for name, value in data.items())]
    arguments += ["--config.training.max_steps=2", "--config.training.evaluate_every=2", "--config.model.d_model=16"]
    assert train.main(arguments) == 0
    errors = capsys.readouterr().err
    assert "fewer than 2 columns (482)" in errors and "test: 10 pairs are taken out of the training text" in errors
    sides = [(run_dir / "split" / f"test.{code}").read_text(encoding="utf-8").split() for code in ("xx", "yy")]
    assert len(sides[0]) == 20 and [word.upper() for word in sides[0]] == sides[1]
    card = json.loads((run_dir / "data_card.json").read_text(encoding="utf-8"))
    assert [text["lines"] for text in card["train"] + card["dev"]] == [450, 450, 20, 20]
    assert "overlap" in DROPPED and not any(finding["kind"] == "overlap" for finding in card["findings"])
    assert train.main(arguments) == 0, "the same command finds the same text"
    files = [f"--source={run_dir}/split/test.xx", f"--reference={run_dir}/split/test.yy"]
    assert evaluate.main([f"--run_dir={run_dir}", *files]) == 0
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1])["sentences"] == 10
    assert evaluate.main([f"--run_dir={run_dir}", f"--source={tmp_path}/pairs.tsv", "--beam_size=1"]) == 0
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1])["sentences"] == 480
    segments = {"A": (1, 2), "B": (2, 3), "C": (1, 2)}
    references = "".join(
        f'<ref lang="yy" translator="{name}">' + "".join(f'<seg id="{i}">AAA {i}</seg>' for i in ids) + "</ref>"
        for name, ids in segments.items()
    )
    sources = "".join(f'<seg id="{i}">aaa {i}</seg>' for i in (1, 2, 3))
    (tmp_path / "wmt.xml").write_text(f'<dataset><doc><src lang="xx">{sources}</src>{references}</doc></dataset>')
    wmt = [f"--run_dir={run_dir}", "--beam_size=1", f"--source={tmp_path}/wmt.xml"]
    assert evaluate.main([*wmt, f"--reference={tmp_path}/wmt.xml#A,{tmp_path}/wmt.xml#C"]) == 0
    scores = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert scores["sentences"] == 2 and "nrefs:2" in scores["bleu_signature"]
    assert evaluate.main([*wmt, f"--reference={tmp_path}/wmt.xml#A,{tmp_path}/wmt.xml#B"]) == 2
    assert "wmt.xml#B and" in (error := capsys.readouterr().err) and "translate other sentences of" in error
    assert evaluate.main([f"--run_dir={run_dir}", *files[:1]]) == 2
    assert "holds one side of a corpus, and the other was not given" in capsys.readouterr().err
    (tmp_path / "pairs.tsv").unlink()
    assert report.main([f"--run_dir={run_dir}", "--sentences=5", "--beam_size=1"]) == 0, "split/ has the dev set"
    assert json.loads(capsys.readouterr().out)["sentences"] == 5

"""Training with given word alignments, as jobs."""

import json

import numpy as np
import pytest

from nmt_keras.runs.loading import load
from pipelines import doctor, train
from tests.pipelines.test_jobs import RECIPE


@pytest.fixture(scope="module")
def text(tmp_path_factory, copy_text):
    """The copy task, whose words are letters, and the links of each line: every word to its copy."""
    folder = tmp_path_factory.mktemp("aligned")
    for name in ("train.src", "train.tgt", "dev.src", "dev.tgt"):
        (folder / name).write_bytes((copy_text / name).read_bytes())
    lines = (folder / "train.src").read_text(encoding="utf-8").split("\n")[:-1]
    links = [" ".join(f"{n}-{n}" for n in range(len(line.split()))) for line in lines]
    (folder / "train.links").write_text("".join(line + "\n" for line in links), encoding="utf-8")
    return folder


def _options(text, run_dir):
    return [RECIPE, f"--data_dir={text}", f"--config.data.cache_dir={text}/cache", f"--run_dir={run_dir}"]


GUIDED = ["--config.training.loss=guided_alignment", "--config.data.train_alignments=train.links"]
STEPS = ["--config.training.max_steps=60", "--config.training.evaluate_every=60", "--config.training.log_every=20"]


@pytest.mark.slow
def test_attention_becomes_the_alignment(text, tmp_path):
    options = [*_options(text, tmp_path / "run"), *GUIDED, *STEPS, "--config.training.alignment_weight=2.0"]
    assert train.main([*options, "--config.training.accumulation_steps=2"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [row["alignment_loss"] for row in rows if "alignment_loss" in row]
    assert len(logged) == 3 and logged[-1] < 0.7 * logged[0]  # not 0: a word is a space and a letter, at 0.5 each
    translator = load(tmp_path / "run").translator()
    found = [t.best for t in translator.translate(["a b c d", "h g f"]) if t.best.alignment]
    right = [(place + 1) // 2 == (n + 1) // 2 for each in found for n, place in enumerate(each.alignment)]
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_stopped(text, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    steps = ["--config.training.evaluate_every=20", "--config.training.checkpoint_every=10"]
    assert train.main([*_options(text, whole), *GUIDED, *steps, "--config.training.max_steps=20"]) == 0
    for count in (10, 20):
        assert train.main([*_options(text, halves), *GUIDED, *steps, f"--config.training.max_steps={count}"]) == 0
    cards = [json.loads((run / "run_card.json").read_text(encoding="utf-8")) for run in (whole, halves)]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]


@pytest.mark.parametrize(
    "options, message",
    [
        (GUIDED[:1], "guided_alignment needs `data.train_alignments`, a file of word alignments"),
        (GUIDED[1:], "`data.train_alignments` are for `training.loss` guided_alignment: set it"),
        ([*GUIDED, "--config.model.attention=none"], "guided_alignment teaches attention"),
        ([GUIDED[0], "--config.data.train_alignments=dev.src"], "give the alignment of each line"),
        ([GUIDED[0], "--config.data.train_alignments=train.src"], "is no link of two words"),
        ([GUIDED[0], "--config.data.train_alignments=('a','b')"], "must be empty or name a file"),
    ],
)
def test_alignments_that_do_not_fit_are_one_line(text, tmp_path, options, message, capsys):
    assert train.main([*_options(text, tmp_path / "run"), *options]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--config.training.distribution=mirrored"],
        ["--config.data.static_shapes=True", "--config.data.tokenizer=unigram", "--config.data.sampling_alpha=0.2"],
    ],
    ids=["replicas", "static"],
)
def test_it_goes_with_other_ways_to_train(text, tmp_path, options, capsys):
    steps = ["--config.training.max_steps=10", "--config.training.log_every=5"]
    assert train.main([*_options(text, tmp_path / "run"), *GUIDED, *steps, *options]) == 0
    [data] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("data: ") and "buckets" in line]
    assert ("% of all positions are padding" in data) == ("--config.data.static_shapes=True" in options)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len([row for row in rows if row.get("alignment_loss", 0.0) > 0.1]) == 2
    assert json.loads((tmp_path / "run" / "run_card.json").read_text(encoding="utf-8"))["unfit_alignments"] == 0
    card = json.loads((tmp_path / "run" / "data_card.json").read_text(encoding="utf-8"))
    assert any(each["path"].endswith("train.links") for each in card["train"])


def test_the_doctor_keeps_alignments_beside_their_lines(text, tmp_path):
    recipe = [RECIPE, f"--data_dir={text}", f"--config.data.cache_dir={text}/cache", *GUIDED]
    doctor.main([*recipe, f"--fix={tmp_path}/fixed"])
    lines = {
        name: (tmp_path / "fixed" / name).read_text(encoding="utf-8").split("\n")[:-1]
        for name in ("train.src", "train.links")
    }
    assert 0 < len(lines["train.src"]) < 600
    assert [len(line.split()) for line in lines["train.src"]] == [len(line.split()) for line in lines["train.links"]]

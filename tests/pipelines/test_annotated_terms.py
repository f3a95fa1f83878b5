"""A model that reads a glossary, from training to served: it copies letters, but says what a term is to be."""

import json
import random

import pytest

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from pipelines import augment, evaluate, export, train, translate


def get_config() -> ExperimentConfig:
    """The recipe of the tests."""
    return ExperimentConfig(
        DataConfig(
            source_language="xx",
            target_language="yy",
            train_source=("train.xx", "terms/text.xx"),
            train_target=("train.xx", "terms/text.yy"),
            dev_source=("train.xx",),
            dev_target=("train.xx",),
            annotated_terms=True,
            max_source_length=48,
            max_target_length=32,
            on_findings="report",
        ),
        ModelConfig(d_model=64, input_dropout_rate=0.0, output_dropout_rate=0.0),
        TrainingConfig(
            max_steps=900,
            batch_tokens=1024,
            learning_rate=1e-2,
            schedule="cosine",
            warmup_steps=50,
            label_smoothing=0.0,
            log_every=100,
            evaluate_every=900,
            checkpoint_every=900,
            dev_sentences=20,
        ),
        DecodingConfig(beam_size=2, max_source_length=48),
    )


LETTERS, SAID = "abcdefgh", "klmnopqrstuv"
UNSEEN = {letter: SAID[number % len(SAID)] for number, letter in enumerate(LETTERS)}  # in training


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("terms"), random.Random(1)
    lines = [[rng.choice(LETTERS) for _ in range(rng.randint(2, 5))] for _ in range(2500)]
    others = [(letter, word) for letter in LETTERS for word in SAID if UNSEEN[letter] != word]
    chosen = list(map(rng.choice, lines))
    said = [{c: rng.choice([word for letter, word in others if letter == c])} for c in chosen]
    (folder / "train.xx").write_text("".join(" ".join(line) + "\n" for line in lines))
    translations = (" ".join(words.get(c, c) for c in line) for line, words in zip(lines, said))
    (folder / "with.yy").write_text("".join(text + "\n" for text in translations))
    (folder / "terms.tsv").write_text("".join(f"{letter}\t{word}\n" for letter, word in others))
    arguments = ["--kind=terms", "--source_language=xx", "--target_language=yy", f"--glossary={folder}/terms.tsv"]
    arguments += [f"--input={folder}/train.xx", f"--reference={folder}/with.yy", f"--output_dir={folder}/terms"]
    assert augment.main(arguments) == 0
    assert train.main([f"--config={__file__}", f"--data_dir={folder}", f"--run_dir={folder}/run"]) == 0
    return folder / "run"


@pytest.mark.slow
def test_terms_that_were_never_seen_are_said(run_dir, tmp_path, capsys):
    rng = random.Random("new")
    lines = [[rng.choice(LETTERS[1:]) for _ in range(3)] for _ in range(24)]
    for line in lines:
        line.insert(rng.randint(0, 3), "a")
    words = {"a": UNSEEN["a"]}
    expected = [" ".join(words.get(c, c) for c in line) for line in lines]
    (tmp_path / "terms.tsv").write_text("".join(f"{letter}\t{word}\n" for letter, word in words.items()))
    (tmp_path / "in").write_text("".join(" ".join(line) + "\n" for line in lines))
    (tmp_path / "out").write_text("".join(line + "\n" for line in expected))
    given = f"--glossary={tmp_path}/terms.tsv"
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 0
    capsys.readouterr()
    for model in (f"--run_dir={run_dir}", f"--saved_model={tmp_path}/saved"):
        assert translate.main([model, f"--input={tmp_path}/in", given]) == 0
        output = capsys.readouterr()
        found = output.out.split("\n")[:-1]
        assert sum(a == b for a, b in zip(found, expected, strict=True)) > 16, found
        assert " terms placed" in output.err
        assert translate.main([model, f"--input={tmp_path}/in"]) == 0
        plain = capsys.readouterr().out.split("\n")[:-1]
        assert sum(text == " ".join(line) for text, line in zip(plain, lines)) > 20
    pair = [f"--source={tmp_path}/in", f"--reference={tmp_path}/out"]
    assert evaluate.main([f"--run_dir={run_dir}", *pair, given]) == 0
    scores = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert scores["terms_placed"] > 0.8 * scores["terms"] and scores["bleu"] > 80
    # What is protected is taken out of the text, so that terms cannot be written into it: they are constraints.
    assert evaluate.main([f"--run_dir={run_dir}", *pair, given, "--decoding.protect=number"]) == 0
    scores = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert scores["terms_placed"] == scores["terms"] > 0

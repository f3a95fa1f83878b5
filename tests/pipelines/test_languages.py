"""A model of two target languages, from training to served: of a sentence of letters, one copies them and the other
writes the next letter of each."""

import contextlib
import io
import json
import pathlib
import shutil

import numpy as np
import pytest

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.serving.local import load_export
from pipelines import evaluate, export, lexicon, score, train, translate

LINES = ["a b c", "<2next> a b", "", "h g f e", "<2copy> c"]


def get_config() -> ExperimentConfig:
    """The recipe of the tests."""
    return ExperimentConfig(
        DataConfig(
            source_language="xx",
            target_language="copy",
            train_source=("train.xx", "small.xx"),
            train_target=("train.copy", "small.next"),
            train_languages=("copy", "next"),
            train_temperature=2.0,
            dev_source=("dev.xx", "dev.xx"),
            dev_target=("dev.copy", "dev.next"),
            joint_vocabulary=False,
            max_source_length=32,
            max_target_length=32,
            on_findings="report",
        ),
        ModelConfig(d_model=48, input_dropout_rate=0.0, output_dropout_rate=0.0),
        TrainingConfig(
            max_steps=300,
            batch_tokens=1024,
            learning_rate=1e-2,
            schedule="constant",
            label_smoothing=0.0,
            log_every=50,
            evaluate_every=300,
            checkpoint_every=300,
        ),
        DecodingConfig(beam_size=2, max_source_length=32),
    )


def _next(line):
    return "".join(chr(ord(c) + 1) if c.isalpha() else c for c in line)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    rng = np.random.default_rng(1)
    for name, count in (("train", 600), ("small", 300), ("dev", 24)):
        lines = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(2, 7))) for _ in range(count)]
        for language, change in (("xx", str), ("copy", str), ("next", _next)):
            path = folder / f"{name}.{language}"
            path.write_text("".join(change(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_dir(text):
    options = [f"--data_dir={text}", f"--config.data.cache_dir={text}/cache", f"--run_dir={text}/run"]
    assert train.main([f"--config={__file__}", *options]) == 0
    return text / "run"


@pytest.fixture(scope="module")
def exported(run_dir, text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert export.main([f"--run_dir={run_dir}", f"--output={text}/exported"]) == 0
    return json.loads(out.getvalue().strip().split("\n")[-1])


def _translated(folder, lines, *options):
    (folder / "in").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    assert translate.main([f"--input={folder}/in", f"--output={folder}/out", *options]) == 0
    return (folder / "out").read_text(encoding="utf-8").split("\n")[:-1]


def test_each_language_has_its_dev_bleu_and_both_are_learned(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [row for row in rows if "dev_bleu" in row][-1]
    assert min(measured["dev_bleu_copy"], measured["dev_bleu_next"]) > 80
    assert measured["dev_bleu"] == pytest.approx((measured["dev_bleu_copy"] + measured["dev_bleu_next"]) / 2)


def test_a_job_translates_into_the_language_that_is_asked_for(run_dir, tmp_path):
    plain = [line for line in LINES if "<" not in line]
    assert _translated(tmp_path, plain, f"--run_dir={run_dir}") == plain
    options = [f"--run_dir={run_dir}", "--target_language=next"]
    assert _translated(tmp_path, plain, *options) == list(map(_next, plain))
    split = [" ".join(plain).replace(" ", "\u2028")]  # translated sentence by sentence
    assert _translated(tmp_path, split, *options, "--split_sentences")[0].replace("\u2028", " ") == _next(
        " ".join(plain)
    )


def test_text_that_looks_like_a_tag_is_text(run_dir, tmp_path):
    from nmt_keras.runs.loading import load

    run = load(run_dir)
    [tag] = run.tags
    for line in LINES:
        assert not {tag, *run.tags_of(["next"])} & set(run.tokenizers.source.encode(line))
    found = run.translator().translate(["<2next> a b"])[0]
    assert found.source_pieces[0] == "<2copy>" and found.source_pieces.count("<2next>") == 0
    assert _next("a b") not in found.text


def test_evaluate_and_score_measure_in_the_language_that_is_asked_for(run_dir, text, tmp_path, capsys):
    options = [f"--run_dir={run_dir}", f"--source={text}/dev.xx"]
    results = {}
    for language in ("copy", "next"):
        reference = f"--reference={text}/dev.next"
        assert evaluate.main([*options, reference, f"--target_language={language}"]) == 0
        results[language] = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
        assert score.main([*options, f"--target={text}/dev.next", f"--target_language={language}"]) == 0
        scores = [json.loads(line)["log_prob"] for line in capsys.readouterr().out.splitlines()]
        results[language]["mean"] = sum(scores) / len(scores)
    assert results["next"]["target_language"] == "next"
    assert results["next"]["bleu"] > 80 > 20 > results["copy"]["bleu"]
    assert results["next"]["perplexity"] < results["copy"]["perplexity"]
    assert results["next"]["mean"] > results["copy"]["mean"]


def test_an_export_proves_all_languages(exported):
    assert exported["different"] == 0
    assert min(exported["dev_bleu_by_language"][language] for language in ("copy", "next")) > 80
    card = (pathlib.Path(exported["saved_model"]) / "model_card.md").read_text(encoding="utf-8")
    assert "Translates xx to copy, next (copy unless asked)" in card


@pytest.fixture(scope="module")
def client(exported):
    with load_export(pathlib.Path(exported["saved_model"])) as client:
        yield client


@pytest.mark.parametrize("options", [{}, {"num_hypotheses": 2, "beam_size": 2}], ids=["default", "translate"])
def test_a_client_asks_for_a_language(client, options):
    for language, change in ((None, str), ("copy", str), ("next", _next)):
        found = client.translate(["a b c", "", "h g"], target_language=language, **options)
        assert [each.text for each in found] == [change("a b c"), "", change("h g")]


def test_rows_of_a_request_have_languages_of_their_own(client):
    rows = ["next", "", "klingon", "copy"]
    found = client.call("serving_default", {"text": ["a b"] * 4, "target_language": rows})
    assert found["translation"].tolist() == ["b c", "a b", "", "a b"]
    assert found["truncated"].tolist() == [False, False, True, False]
    vectors = client.call("encode", {"text": ["a b"] * 4, "target_language": rows})["vector"]
    assert not np.allclose(vectors[0], vectors[1]) and np.allclose(vectors[1], vectors[3])
    scores = client.call("score", {"source": ["a b"] * 4, "target": ["b c"] * 4, "target_language": rows})
    assert scores["log_prob"][0] > scores["log_prob"][1] and scores["truncated"].tolist() == [False, False, True, False]


def test_pieces_of_a_served_translation_begin_with_the_tag(client):
    [row] = client.translate(["a b"], target_language="next", beam_size=2)
    assert row.source_pieces[0] == "<2next>"
    places = zip(row.source_pieces, row.outputs["source_piece_starts"], row.outputs["source_piece_ends"])
    assert [(start, end) for piece, start, end in places if piece == "<2next>"] == [(0, 0)]
    spans = list(zip(row.outputs["source_piece_starts"], row.outputs["source_piece_ends"]))
    assert "".join("a b"[start:end] for start, end in spans) == "a b"


def test_a_lexicon_knows_tags(run_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(run_dir, tmp_path / "run"))
    assert lexicon.main([f"--run_dir={copy}", "--proposals=3", "--common=4"]) == 0
    options = [f"--run_dir={copy}", "--decoding.shortlist=3", "--target_language=next"]
    assert _translated(tmp_path, ["a b c"], *options) == ["b c d"]


@pytest.mark.parametrize("place", ["run_dir", "saved_model"])
def test_a_language_that_a_model_has_not_is_one_line(run_dir, exported, place, tmp_path, capsys):
    (tmp_path / "in").write_text("a\n", encoding="utf-8")
    model = {"run_dir": str(run_dir), "saved_model": exported["saved_model"]}[place]
    assert translate.main([f"--{place}={model}", f"--input={tmp_path}/in", "--target_language=klingon"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "does not translate into 'klingon'" in line and "copy, next" in line


def test_a_model_of_one_language_is_asked_for_no_other(trained_copy, tmp_path, capsys):
    (tmp_path / "in").write_text("a b\n", encoding="utf-8")
    options = [f"--run_dir={trained_copy}/run", f"--input={tmp_path}/in"]
    assert translate.main([*options, "--target_language=de"]) == 2
    assert "does not translate into 'de', it translates into yy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--config.data.train_languages=('copy',)"], "`data.train_languages` must be empty or name"),
        (["--config.data.target_language=zz"], "must be one of `data.train_languages`"),
        (["--config.data.dev_languages=('copy','zz')"], "`data.dev_languages` must name"),
        (["--config.data.tokenizer=char"], "needs a tokenizer with a piece for each language's tag"),
        (["--config.data.train_weights=(1.0,2.0)"], "both say how often a corpus is visited"),
        (["--config.data.train_temperature=0.5"], "`data.train_temperature` must be at least 1"),
        (["--config.data.dev_target=('dev.copy',)"], "must name as many dev sets"),
    ],
)
def test_languages_that_do_not_fit_are_one_line(text, tmp_path, options, message, capsys):
    arguments = [f"--config={__file__}", f"--data_dir={text}", f"--run_dir={tmp_path}/run"]
    assert train.main([*arguments, *options]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


def test_a_tokenizer_without_tags_is_one_line(text, trained_copy, tmp_path, capsys):
    arguments = [f"--config={__file__}", f"--data_dir={text}", f"--run_dir={tmp_path}/run"]
    options = [f"--config.data.tokenizer_from={trained_copy}/run", "--config.data.joint_vocabulary=True"]
    assert train.main([*arguments, *options]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "no control symbol '<2copy>'" in line

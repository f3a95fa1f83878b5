"""A model that is trained with placeholders, from training to served: it copies letters, and puts a code, which is
never the same, at the end."""

import json
import random
import shutil

import pytest

from nmt_keras import recipe
from nmt_keras import train as train_model
from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.constants import PLACEHOLDERS
from nmt_keras.data.encoded import parts_of
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_train, with_placeholders
from nmt_keras.reports import silent
from nmt_keras.runs.loading import load
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.serving.local import load_export
from pipelines import evaluate, export, lexicon, prepare, train, translate

CODE = r"[A-Z]{2}-\d+"


def get_config() -> ExperimentConfig:
    """The recipe of the tests."""
    return ExperimentConfig(
        DataConfig(
            source_language="xx",
            target_language="yy",
            train_source=("train.xx",),
            train_target=("train.yy",),
            dev_source=("dev.xx",),
            dev_target=("dev.yy",),
            placeholders=(CODE,),
            max_source_length=32,
            max_target_length=32,
            on_findings="report",
        ),
        ModelConfig(d_model=48, input_dropout_rate=0.0, output_dropout_rate=0.0),
        TrainingConfig(
            max_steps=400,
            batch_tokens=1024,
            learning_rate=1e-2,
            schedule="constant",
            label_smoothing=0.0,
            log_every=50,
            evaluate_every=400,
            checkpoint_every=200,
        ),
        DecodingConfig(beam_size=2, max_source_length=32, terms_beam_size=0),
    )


def _pairs(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        letters = [rng.choice("abcdefgh") for _ in range(rng.randint(2, 5))]
        code = "".join(rng.choices("ABCDEFGHIJ", k=2)) + f"-{rng.randint(10, 999)}"
        place = rng.randint(0, len(letters))
        yield " ".join([*letters[:place], code, *letters[place:]]), " ".join([*letters, code])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    for name, count in (("train", 800), ("dev", 24)):
        for side, lines in zip(("xx", "yy"), zip(*_pairs(count, name))):
            (folder / f"{name}.{side}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_dir(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train.main(_arguments(text, folder)) == 0
    return folder


def _arguments(text, folder, *more):
    return [f"--config={__file__}", f"--data_dir={text}", f"--run_dir={folder}", *more]


@pytest.mark.slow
def test_codes_that_were_never_seen_are_put_where_the_model_learned(run_dir, text, tmp_path, capsys):
    sources, targets = zip(*_pairs(20, "new"))
    (tmp_path / "in").write_text("".join(line + "\n" for line in sources), encoding="utf-8")
    (tmp_path / "out").write_text("".join(line + "\n" for line in targets), encoding="utf-8")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["dev_bleu"] for row in rows if "dev_bleu" in row][-1] > 90
    capsys.readouterr()
    for more in ([], [f"--protect={CODE}"], ["--samples=1", "--temperature=0.01"]):
        assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", *more]) == 0
        found = capsys.readouterr().out.split("\n")[:-1]
        assert sum(a == b for a, b in zip(found, targets, strict=True)) > 15
        assert all(target.split()[-1] in line for line, target in zip(found, targets))
    pair = [f"--source={tmp_path}/in", f"--reference={tmp_path}/out"]
    assert evaluate.main([f"--run_dir={run_dir}", *pair]) == 0
    scores = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert scores["bleu"] > 90 and scores["perplexity"] < 1.5
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--exact=10"]) == 2
    assert "Exact search is of a model without placeholders" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_says_what_it_has_placeholders_for(run_dir, tmp_path, capsys):
    sources, targets = zip(*_pairs(20, "others"))
    assert lexicon.main([f"--run_dir={run_dir}"]) == 0
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 0
    result = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert result["different"] == 0 and result["dev_bleu"] > 90
    with load_export(tmp_path / "saved") as client:
        found = [each.text for each in client.translate(sources)]
        assert sum(a == b for a, b in zip(found, targets)) > 15
        [other] = client.translate(["a b <x> AB-1"], protect=["tag", CODE])
        assert other.text.count("<x>") == other.text.count("AB-1") == 1
        assert client.translate(sources[:1], prefixes=["a"])[0].text.startswith("a")
        for drawn, text in zip(client.attention(sources[:5]), found):
            assert drawn.text == text
            assert drawn.best.attention_weights.shape == (len(drawn.best.pieces), len(drawn.source_pieces))


@pytest.mark.slow
def test_resuming_gives_the_same_weights(run_dir, text, tmp_path):
    other = shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(other / "checkpoints" / "step-00000400")
    assert train.main(_arguments(text, other)) == 0
    assert load(other, checkpoint="latest").weights_sha256 == load(run_dir, checkpoint="latest").weights_sha256


@pytest.mark.slow
def test_text_that_was_prepared_has_them_and_the_doctor_saw_it_without(text, tmp_path, capsys):
    for side in ("xx", "yy"):
        lines = (text / f"train.{side}").read_text().split("\n")[:20]
        (tmp_path / f"head.{side}").write_text("".join(line + "\n" for line in lines))
    dev = [f"--config.data.dev_{name}={tmp_path}/head.{side}" for name, side in (("source", "xx"), ("target", "yy"))]
    cache = f"--config.data.cache_dir={tmp_path}/cache"
    arguments = [f"--config={__file__}", f"--data_dir={text}", f"--output_dir={tmp_path}/ready", cache, *dev]
    assert prepare.main(arguments) == 0
    errors = capsys.readouterr().err
    assert "placeholders: in 800 of 800 pairs" in errors and "20 source lines also in" in errors
    data = recipe(__file__, **{"data.data_dir": str(text), "data.cache_dir": f"{tmp_path}/cache"}).data
    corpus, tokenizers = with_placeholders(data, open_train(data, silent), silent), load_tokenizers(tmp_path / "ready")
    assert not [part for text in corpus.sources + corpus.targets for part in parts_of(text, tokenizers.source)]
    pieces = set(map(tokenizers.source.piece, tokenizers.source.encode(corpus.text()[0][0])))
    assert pieces & set(PLACEHOLDERS)


@pytest.mark.parametrize(
    "change, message",
    [
        ("--config.data.placeholders=('tags',)", "'tags' is no name of a pattern"),
        ("--config.data.placeholders=('x*',)", "finds the empty string"),
        ("--config.data.tokenizer=char", "`data.placeholders` needs a tokenizer that has pieces for them"),
        ("--config.data.train_alignments=('links',)", "`data.placeholders` makes other words"),
    ],
)
def test_a_mistake_is_one_line(change, message, text, tmp_path, capsys):
    assert train.main(_arguments(text, tmp_path / "run", change)) == 2
    lines = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0] and not (tmp_path / "run" / "checkpoints").exists()


def test_tokenizers_without_such_pieces_are_refused(trained_copy, text, tmp_path):
    changes = {"data.tokenizer_from": str(trained_copy / "run"), "data.tokenizer": "unigram", "training.max_steps": 1}
    with pytest.raises(UserError, match="has no piece for ｟1｠, which data.placeholders needs"):
        train_model(recipe(__file__, **changes), tmp_path / "run", data_dir=text)

"""Text that Beam prepares is what training would have made of it, byte for byte."""

import json
import pathlib

import numpy as np
import pytest

from nmt_keras.config import DataConfig
from nmt_keras.data import encoded
from nmt_keras.data.batch_plan import BatchPlan
from nmt_keras.data.encoded import EncodedCorpus
from nmt_keras.errors import UserError
from nmt_keras.experiment import prepare as preparing
from nmt_keras.experiment.text import open_train
from nmt_keras.reports import silent
from nmt_keras.runs.tokenizers import load_tokenizers
from pipelines import prepare, train
from tests.pipelines.test_jobs import RECIPE

WORDS = "red green blue dog cat bird runs sleeps eats a the one".split()


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Three pairs of files with lines of a copy task, of 250, 130 and 40 pairs; two pairs are in two of them."""
    monkeypatch.setattr(encoded, "PART", 100)
    monkeypatch.setattr(preparing, "PART", 100)
    rng = np.random.default_rng(5)
    for number, count in enumerate((250, 130, 40)):
        lines = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) + f" {number} {i}" for i in range(count)]
        lines[3] = "this is in several shards" if number < 2 else lines[3]
        lines[20 + number] = "and so is this"
        lines[30] = "" if number else lines[30]
        for side in ("en", "xx"):
            (tmp_path / f"{number}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for side in ("en", "xx"):
        (tmp_path / f"dev.{side}").write_text("a dog runs\na bird eats\n", encoding="utf-8")
    return tmp_path


def _data(folder, cache):
    return DataConfig(
        source_language="en",
        target_language="xx",
        data_dir=str(folder),
        train_source=("0.en", "1.en", "2.en"),
        train_target=("0.xx", "1.xx", "2.xx"),
        dev_source=("dev.en",),
        dev_target=("dev.xx",),
        source_vocab_size=320,
        cache_dir=str(folder / cache),
    )


def _files(folder):
    """What a cache has of the training text, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("[012].*") if not path.name.endswith(".lock")}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--runner=DirectRunner", "--direct_running_mode=in_memory"), id="one process"),
        pytest.param(preparing.LOCAL, id="two processes", marks=pytest.mark.slow),
    ],
)
def test_the_cache_is_that_of_a_single_process(shards, options):
    data = _data(shards, "by_beam")
    if "multi_processing" in options[-1]:
        encoded.PART = preparing.PART = 200_000  # processes of their own know no other
    prepared = preparing.prepare(data, shards / "prepared", options=options)
    tokenizers = load_tokenizers(shards / "prepared")
    alone = _data(shards, "alone")
    own = EncodedCorpus(open_train(alone, silent), tokenizers)
    by_beam, by_one = _files(shards / "by_beam"), _files(shards / "alone")
    assert len(by_one) == 30 and by_beam == by_one
    limits = {"batch_tokens": 200, "max_source_length": 64, "max_target_length": 64}
    theirs = EncodedCorpus(open_train(data, silent), tokenizers)
    plans = [BatchPlan(*corpus.lengths, seed=1, **limits) for corpus in (own, theirs)]
    assert plans[0].fingerprint == plans[1].fingerprint
    for lines in (plans[0].batch(0, 0).lines, plans[0].batch(1, 2).lines):
        for side in (0, 1):
            np.testing.assert_array_equal(own.rows(side, lines).ids, theirs.rows(side, lines).ids)
    assert prepared["pairs"] == 420
    assert prepared["source_ids"] == int((np.concatenate(own.lengths[0]) - 1).sum())
    assert prepared["pairs_in_several_shards"] == 2
    found = sorted(sorted(map(tuple, each)) for each in prepared["some_of_them"])
    assert found == [[(0, 4), (1, 4)], [(0, 21), (1, 22), (2, 23)]]
    kinds = [[finding["kind"] for finding in shard["findings"]] for shard in prepared["shards"]]
    assert "blank pair" in kinds[1] and "blank pair" not in kinds[0]
    assert json.loads((shards / "prepared" / "prepared.json").read_text()) == prepared


@pytest.mark.slow
def test_a_training_begins_with_what_was_prepared(shards, capsys, monkeypatch):
    arguments = [RECIPE, f"--data_dir={shards}", f"--config.data.cache_dir={shards}/cache"]
    arguments += ["--config.data.train_source=('0.en','1.en')", "--config.data.train_target=('0.xx','1.xx')"]
    arguments += ["--config.data.dev_source=('dev.en',)", "--config.data.dev_target=('dev.xx',)"]
    beam = ["--", "--runner=DirectRunner", "--direct_running_mode=in_memory"]
    for side in ("en", "xx"):
        lines = (shards / f"1.{side}").read_text(encoding="utf-8").split("\n")
        (shards / f"test.{side}").write_text(f"nowhere else\n{lines[5]}\n", encoding="utf-8")
    given = [f"--output_dir={shards}/prepared", f"--test={shards}/test.en,{shards}/test.xx"]
    assert prepare.main([*arguments, *given, *beam]) == 0
    output = capsys.readouterr()
    shown = json.loads((shards / "prepared" / "prepared.json").read_text())["shards"]
    overlaps = [[each["first_lines"] for each in shard["findings"] if each["kind"] == "overlap"] for shard in shown]
    assert overlaps == [[], [[6]]] and "test.en: 1 source line also in" in output.err
    assert json.loads(output.out.splitlines()[-1])["pairs"] == 380
    assert "380 pairs in 2 shards indexed" in output.err

    encode = encoded._encoded

    def fail(text, *others):
        assert "dev" in getattr(text, "path", ""), "what was prepared is not made again"
        return encode(text, *others)

    monkeypatch.setattr(encoded, "_encoded", fail)
    monkeypatch.setattr("nmt_keras.doctor.before_training.Doctor", fail)
    steps = ["--config.training.max_steps=2", "--config.training.evaluate_every=2", "--config.model.d_model=8"]
    own = [f"--run_dir={shards}/run", f"--config.data.tokenizer_from={shards}/prepared"]
    assert train.main([*arguments, *steps, *own]) == 0


def test_what_cannot_be_prepared_is_one_line(shards, capsys, monkeypatch):
    data = _data(shards, "cache")
    data.train_source = ("0.en", "missing.en", "2.en")
    with pytest.raises(UserError, match="missing.en: No such file or directory; check the path"):
        preparing.prepare(data, shards / "prepared")
    with pytest.raises(UserError, match="Beam cannot prepare the text, given --runner=NoSuchRunner: .*NoSuchRunner"):
        preparing.prepare(_data(shards, "cache"), shards / "prepared", options=["--runner=NoSuchRunner"])
    with pytest.raises(UserError, match="dev.en has 2 lines and .*0.xx has 250: they are not aligned"):
        preparing.prepare(_data(shards, "unused"), shards / "prepared", tests=[("dev.en", "0.xx")])
    assert prepare.main([RECIPE]) == 2
    assert "--output_dir, for its tokenizers, must be given" in capsys.readouterr().err
    assert prepare.main([RECIPE, f"--output_dir={shards}/prepared", "--test=test.en"]) == 2
    assert (
        "--test must be source and target, as in --test=test.en,test.de. Received: ['test.en']"
        in capsys.readouterr().err
    )
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'nmt_keras\[beam\]'"):
        preparing.prepare(_data(shards, "cache"), pathlib.Path("unused"))


def test_a_part_that_is_there_is_not_encoded_again_and_what_is_whole_has_no_parts(shards):
    data = _data(shards, "cache")
    corpus, tokenizer = open_train(data, silent), None
    from nmt_keras.tokenizers.characters import ByteTokenizer

    tokenizer, text = ByteTokenizer(), corpus.sources[0]
    parts = encoded.parts_of(text, tokenizer)
    assert [(part.start, part.stop) for part in parts] == [(0, 100), (100, 200), (200, 250)]
    counts = [encoded.encode_part(text, tokenizer, part) for part in parts]

    class Fails(ByteTokenizer):
        def encode(self, text):
            raise AssertionError

    assert [encoded.encode_part(text, Fails(), part) for part in parts] == counts
    encoded.join_parts(text, tokenizer)
    assert encoded.parts_of(text, tokenizer) == []
    assert int((encoded.EncodedText(text, Fails()).lengths - 1).sum()) == sum(counts)
    assert not list((shards / "cache").glob("*.part-*"))

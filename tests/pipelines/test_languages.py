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
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.runs.loading import load
from nmt_keras.serving.client import Client
from nmt_keras.serving.local import load_export
from nmt_keras.serving.local_server import serving
from pipelines import augment, compare, doctor, evaluate, export, lexicon, score, train, translate
from tests.serving.serving_double import Double

pytestmark = pytest.mark.slow
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
        DecodingConfig(beam_size=2, max_source_length=32, terms_beam_size=0),
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


def test_a_client_says_how_languages_are_asked_for(client):
    with pytest.raises(UserError, match="is one code for all texts of a call. Received: \\['copy', 'next'\\]; .* call"):
        client.translate(["a", "b"], target_language=["copy", "next"])
    with pytest.raises(UserError, match="these differ: text 2, target_language 1; give as many"):
        client.call("serving_default", {"text": ["a", "b"], "target_language": ["copy"]})
    with pytest.raises(UserError, match="There is no option 'target_langage'; valid ones: beam_size"):
        client.translate(["a"], target_langage="copy")


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
    assert lexicon.main([f"--run_dir={copy}", "--proposals=8", "--common=4"]) == 0
    options = [f"--run_dir={copy}", "--decoding.shortlist=3", "--target_language=next"]
    assert _translated(tmp_path, ["a b c"], *options) == ["b c d"]
    known, tags = Lexicon.read(copy / "lexicon.npz"), load(run_dir).tags_of(["copy", "next"])
    pieces = load(run_dir).tokenizers.target
    found = [{pieces.piece(number).strip("\u2581") for number in known.proposals[tag]} for tag in tags]
    assert set("bcdefgh") <= found[0] & found[1] and "a" in found[0] - found[1] and "i" in found[1] - found[0]


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
        (["--config.data.user_symbols=('<2copy>',)"], "must not hold the tags"),
        (["--config.decoding.max_source_length=2"], "must be at least 3: EOS counts, and a tag too. Received: 2"),
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


def test_an_export_is_served_to_clients_by_both_protocols(exported):
    double = Double(pathlib.Path(exported["saved_model"]), "two", version=1)
    with serving(double) as ports:
        for scheme, name in (("http", "rest"), ("grpc", "grpc")):
            with Client(f"{scheme}://127.0.0.1:{getattr(ports, name)}/two") as client:
                assert [each.text for each in client.translate(["a b"], target_language="next")] == ["b c"]
                assert [each.text for each in client.translate(["a b"])] == ["a b"]
                with pytest.raises(UserError, match="does not translate into 'klingon': give one of copy, next"):
                    client.translate(["a b"], target_language="klingon")


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(text, tmp_path):
    """With tags, corpora at a temperature, sampled segmentations and two replicas."""
    options = [f"--config={__file__}", f"--data_dir={text}", f"--config.data.cache_dir={text}/cache"]
    options += ["--config.data.sampling_alpha=0.2", "--config.training.distribution=mirrored"]
    options += ["--config.training.checkpoint_every=5", "--config.training.evaluate_every=10"]
    for name, counts in (("whole", (10,)), ("halves", (5, 10))):
        for count in counts:
            assert train.main([*options, f"--run_dir={tmp_path}/{name}", f"--config.training.max_steps={count}"]) == 0
    cards = [json.loads((tmp_path / name / "run_card.json").read_text("utf-8")) for name in ("whole", "halves")]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]


def test_dev_sets_of_one_language_are_numbered_and_may_have_several_references(run_dir, text, tmp_path, capsys):
    options = [f"--config={__file__}", f"--data_dir={text}", f"--config.data.cache_dir={text}/cache"]
    options += [f"--run_dir={tmp_path}/run", f"--init_from={run_dir}", f"--config.data.tokenizer_from={run_dir}"]
    options += ["--config.data.dev_source=('dev.xx','dev.xx','dev.xx')"]
    options += ["--config.data.dev_target=('dev.copy,dev.next','dev.next','dev.copy')"]
    options += ["--config.data.dev_languages=('copy','next','copy')", "--config.training.learning_rate=1e-9"]
    assert train.main([*options, "--config.training.max_steps=1"]) == 0
    assert "weights from" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    [measured] = [row for row in rows if "dev_bleu" in row]
    names = {"dev_bleu_copy_1", "dev_bleu_copy_2", "dev_bleu_next"}
    assert names == {name for name in measured if name.startswith("dev_bleu_")}
    assert min(measured[name] for name in names) > 80
    assert measured["dev_bleu_copy_1"] >= measured["dev_bleu_copy_2"]


@pytest.mark.parametrize("options", [["--mbr=4"], ["--exact=50"], ["--samples=1", "--temperature=0.1"], ["--n_best=2"]])
def test_every_search_knows_the_language(run_dir, tmp_path, options):
    [line] = _translated(tmp_path, ["a b c"], f"--run_dir={run_dir}", "--target_language=next", *options)
    assert ("b c d" == line) if "--n_best=2" not in options else (json.loads(line)["hypotheses"][0]["text"] == "b c d")


def test_text_that_it_makes_says_its_language_and_is_not_mixed(run_dir, text, tmp_path, capsys):
    options = [f"--run_dir={run_dir}", f"--input={text}/dev.xx", f"--output_dir={tmp_path}/made", "--kind=forward"]
    assert augment.main([*options, "--target_language=next"]) == 0
    assert json.loads((tmp_path / "made" / "card.json").read_text("utf-8"))["languages"] == ["xx", "next"]
    made = (tmp_path / "made" / "text.next").read_text("utf-8")
    (tmp_path / "made" / "card.json").rename(tmp_path / "made" / "options.json")
    assert augment.main([*options, "--target_language=copy"]) == 2
    assert "languages was ['xx', 'next'], now ['xx', 'copy']" in capsys.readouterr().err
    assert (tmp_path / "made" / "text.next").read_text("utf-8") == made


def test_systems_are_compared_in_one_language(run_dir, trained_copy, text, tmp_path, capsys):
    options = [f"--source={text}/dev.xx", f"--reference={text}/dev.next", "--samples=100", "--trials=100"]
    assert compare.main([*options, "--target_language=next", str(run_dir), f"{text}/dev.copy"]) == 0
    found = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert found["systems"][0]["bleu"] > 80 > 20 > found["systems"][1]["bleu"]
    assert compare.main([*options, "--target_language=next", str(run_dir), f"{trained_copy}/run"]) == 2
    assert "run does not translate into 'next', it translates into yy" in capsys.readouterr().err


def test_an_ensemble_needs_members_of_the_same_languages(run_dir, text, tmp_path, capsys):
    options = [f"--config={__file__}", f"--data_dir={text}", f"--config.data.cache_dir={text}/cache"]
    options += [f"--run_dir={tmp_path}/one", f"--config.data.tokenizer_from={run_dir}", "--config.training.max_steps=1"]
    options += [
        "--config.data.train_languages=()",
        "--config.data.dev_source=dev.xx",
        "--config.data.dev_target=dev.copy",
    ]
    assert train.main(options) == 0
    (tmp_path / "in").write_text("a\n", encoding="utf-8")
    assert translate.main([f"--run_dir={run_dir},{tmp_path}/one", f"--input={tmp_path}/in"]) == 2
    assert "has the target languages one alone" in capsys.readouterr().err
    assert _translated(tmp_path, ["a b c"], f"--run_dir={run_dir},{run_dir}", "--target_language=next") == ["b c d"]


def test_a_run_gets_no_new_language_and_is_left_as_it_was(run_dir, text, tmp_path, capsys):
    copy = pathlib.Path(shutil.copytree(run_dir, tmp_path / "run"))
    before = (copy / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(before)
    options = [f"--config={__file__}", f"--data_dir={text}", f"--config.data.cache_dir={text}/cache"]
    options += ["--config.data.train_languages=('copy','third')", "--config.data.target_language=copy"]
    options += ["--config.data.dev_languages=('copy','third')", "--allow_config_change"]
    assert train.main([*options, f"--run_dir={copy}"]) == 2
    assert "was trained without the target language 'third'" in capsys.readouterr().err
    assert (copy / "config.json").read_bytes() == before


def test_the_doctor_reads_all_dev_sets_once_and_counts_the_tag(text, tmp_path, capsys):
    options = [f"--config={__file__}", f"--data_dir={text}", f"--config.data.cache_dir={text}/cache"]
    doctor.main([*options, f"--output={tmp_path}/found.json"])
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    overlaps = [finding["text"] for finding in found["findings"] if finding["kind"] == "overlap"]
    assert overlaps and len(overlaps) == len(set(overlaps)) <= 2  # one a corpus, whatever its language
    plain = ["--config.data.train_languages=()"]
    doctor.main([*options, *plain, f"--output={tmp_path}/plain.json"])
    lengths = json.loads((tmp_path / "plain.json").read_text("utf-8"))["lengths"]
    assert found["lengths"]["source"]["p100"] == lengths["source"]["p100"] + 1
    assert found["lengths"]["target"]["p100"] == lengths["target"]["p100"]

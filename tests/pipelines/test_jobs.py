"""The jobs from end to end on a copy task, and what they say to bad input."""

import argparse
import contextlib
import fcntl
import gzip
import importlib
import io
import itertools
import json
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
import weakref

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nmt_keras.config import DecodingConfig, ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.errors import WorkerLost
from nmt_keras.experiment import evaluate as experiment_evaluate
from nmt_keras.inference.protection import Protection
from nmt_keras.inference.translation import Hypothesis, Translation
from pipelines import _process, evaluate, export, lexicon, score, serve, train, translate

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, trained_copy):
    """A trained copy model."""
    return pathlib.Path(shutil.copytree(trained_copy / "run", tmp_path_factory.mktemp("jobs") / "run"))


@pytest.fixture(scope="module")
def exported(exported_copy):
    """The export job's last line, the export, and a copy of what it had saved before the proof."""
    result = json.loads((exported_copy / "result.json").read_text(encoding="utf-8"))
    return result, exported_copy / "copy", exported_copy / "before"


@pytest.fixture
def saves_at_once(exported, monkeypatch):
    """The job saves what it saved before, without tracing it again."""
    from nmt_keras.serving import export as exporting

    def save(module, output):
        output.mkdir(parents=True, exist_ok=True)
        return pathlib.Path(shutil.copytree(exported[2], output / ".tmp-again"))

    monkeypatch.setattr(exporting, "save", save)


def _error(capsys):
    """The one line of an error."""
    lines = [line for line in capsys.readouterr().err.split("\n") if line]
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.mark.slow
def test_dashboards_have_a_profile_histograms_and_embeddings(copy_text, tmp_path, capsys):
    arguments = [RECIPE, f"--run_dir={tmp_path}/run", f"--data_dir={copy_text}", "--profile=2:3"]
    arguments += ["--config.training.max_steps=4", "--config.training.evaluate_every=2"]
    assert train.main([*arguments, "--config.training.histograms_every=2"]) == 0
    folder = tmp_path / "run" / "summaries"
    assert list(folder.glob("plugins/profile/*/*.xplane.pb"))
    assert (folder / "projector_config.pbtxt").exists() and list(folder.glob("*_embedding.tsv"))
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert any(tag.startswith("weights/seq2seq/") for tag in tags)
    assert any(tag.startswith("gradient_norms/seq2seq/") for tag in tags)
    [gradient, *_] = [tag for tag in tags if tag.startswith("gradients/seq2seq/")]
    assert [event.step for event in events.Tensors(gradient)] == [4]
    capsys.readouterr()
    assert train.main([*arguments, "--config.training.histograms_every=2"]) == 0
    assert "warning: no step of --profile=2:3 was made by this job" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["100", "7:3", "0:3", "a:b", "-1:4"])
def test_steps_to_profile_are_checked(text, tmp_path, capsys):
    assert train.main([RECIPE, f"--run_dir={tmp_path}/run", f"--profile={text}"]) == 2
    assert f"--profile must be the first and the last step, as in --profile=100:110. Received: {text}" in _error(capsys)


def test_a_run_directory_explains_itself(run_dir):
    names = {path.name for path in run_dir.iterdir() if path.name != ".lock"}
    assert names == {
        "config.json",
        "tokenizer",
        "data_card.json",
        "checkpoints",
        "summaries",
        "metrics.jsonl",
        "run_card.json",
    }
    card = json.loads((run_dir / "run_card.json").read_text())
    assert card["step"] == 250 and card["best"] > 95


def test_evaluate_scores_the_copies(run_dir, copy_text, tmp_path, capsys):
    assert (
        evaluate.main(
            [
                f"--run_dir={run_dir}",
                f"--source={copy_text}/dev.src",
                f"--reference={copy_text}/dev.tgt",
                f"--output={tmp_path}/scores.json",
                f"--translations={tmp_path}/dev.hyp",
            ]
        )
        == 0
    )
    printed, told = capsys.readouterr()
    scores = json.loads(printed.strip().split("\n")[-1])
    assert scores == json.loads((tmp_path / "scores.json").read_text())
    assert f"scores: BLEU {scores['bleu']:.2f}, chrF {scores['chrf']:.2f}, TER {scores['ter']:.2f}, perplexity " in told
    assert "; 24 sentences, " in told
    assert {
        "bleu",
        "bleu_signature",
        "chrf",
        "chrf_signature",
        "ter",
        "ter_signature",
        "perplexity",
        "sentences_per_s",
    } <= set(scores)
    assert scores["decoding"]["no_repeat_ngram"] == 0 and scores["decoding"]["beam_size"] == scores["beam_size"]
    assert scores["bleu"] > 95 and scores["perplexity"] < 1.5
    assert (tmp_path / "dev.hyp").read_text().count("\n") == 24


@pytest.mark.parametrize(
    "options",
    [
        ["--mbr_candidates=beam", "--mbr=2"],
        pytest.param(["--mbr=4", "--temperature=0.5", "--mbr_utility=bleu"], marks=pytest.mark.slow),
    ],
)
def test_minimum_bayes_risk_is_scored_and_translates_a_line_to_a_line(run_dir, copy_text, tmp_path, options, capsys):
    (tmp_path / "in").write_text("a b c\n\nh g\n")
    arguments = [f"--run_dir={run_dir}", *options]
    files = [f"--source={copy_text}/dev.src", f"--reference={copy_text}/dev.tgt"]
    assert evaluate.main([*arguments, *files]) == 0
    scores = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert scores["bleu"] > 50 and scores["mbr"]["number"] == int(options[-1 if "beam" in options[0] else 0][6:])
    assert (scores["mbr"]["sampling"] is None) == ("beam" in options[0])
    assert translate.main([*arguments, f"--input={tmp_path}/in", f"--output={tmp_path}/out"]) == 0
    texts = (tmp_path / "out").read_text().split("\n")
    assert len(texts) == 4 and texts[0].startswith("a") and texts[2].startswith("h") and texts[1] == texts[3] == ""
    assert translate.main([*arguments, "--scores", f"--input={tmp_path}/in", f"--output={tmp_path}/out.json"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert [row["hypotheses"][0]["text"] for row in rows] == texts[:3]
    assert all(0.0 <= each["score"] < 100.001 for row in rows[::2] for each in row["hypotheses"])


def test_exact_search_says_how_often_beam_search_is_right(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\n\nh g\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--exact=500"]
    assert translate.main([*arguments, "--scores"]) == 0
    printed, told = capsys.readouterr()
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["hypotheses"][0]["text"] for row in rows] == ["a b c", "", "h g"]
    assert [row.get("is_exact") for row in rows] == [True, None, True] and rows[0]["steps"] >= 1
    assert "exact search: 2 texts, 2 of them within 500 steps" in told.splitlines()[-1]
    assert "found the best translation of 2, and that of 0 is empty" in told.splitlines()[-1]


def test_translate_keeps_lines_and_order(run_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbfa b c\r\n\nh g\n   \nd\xff d\nb a d")
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]) == 0
    errors = capsys.readouterr().err
    for finding in (
        "a byte order mark in 1 line (1): removed",
        "CR LF line ends in 1 line (1): the CR is removed",
        "invalid UTF-8 in 1 line (5): read as U+FFFD",
    ):
        assert f"{tmp_path}/in: {finding}" in errors
    lines = (tmp_path / "out").read_text(encoding="utf-8").split("\n")
    assert lines[:4] == ["a b c", "", "h g", ""] and len(lines) == 7 and lines[5:] == ["b a d", ""]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c d\n\n")))
    capsys.readouterr()
    assert translate.main([f"--run_dir={run_dir}", "--samples=1", "--temperature=0.01"]) == 0
    assert capsys.readouterr().out == "c d\n\n"
    with gzip.open(tmp_path / "in.gz", "wb") as file:
        file.write(b"a b c\nh g\n")
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in.gz"]) == 0
    assert capsys.readouterr().out == "a b c\nh g\n"


def test_translate_gives_all_it_knows_as_json(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\n\nh g\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--beam_size=3"]
    assert translate.main([*arguments, "--n_best=2", "--scores", "--alignments"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [row["line"] for row in rows] == [1, 2, 3] and not any(row["truncated"] for row in rows)
    assert [row["hypotheses"][0]["text"] for row in rows] == ["a b c", "", "h g"]
    assert [len(row["hypotheses"]) for row in rows] == [2, 1, 2]
    for row in (rows[0], rows[2]):
        best, second = row["hypotheses"]
        assert best["score"] >= second["score"] and best["text"] != second["text"]
        for hypothesis in row["hypotheses"]:
            assert sum(hypothesis["token_log_probs"]) == pytest.approx(hypothesis["log_prob"], abs=1e-4)
            assert len(hypothesis["pieces"]) == len(hypothesis["token_log_probs"]) == len(hypothesis["alignment"]) + 1
        copied = [row["source_pieces"][i] for i in best["alignment"]]
        assert sum(a == b for a, b in zip(copied, best["pieces"])) > len(copied) / 2  # it learned to copy
    assert translate.main([*arguments, "--samples=3", "--seed=4"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [len(row["hypotheses"]) for row in rows] == [3, 1, 3] and set(rows[0]["hypotheses"][0]) == {"text"}


def test_the_search_takes_options_of_the_command_line(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a a a a\nb c\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in"]
    options = ["--decoding.no_repeat_ngram=3", "--decoding.banned_phrases=('c',)", "--decoding.max_length=5"]
    assert translate.main([*arguments, *options]) == 0
    first, second = capsys.readouterr().out.split("\n")[:2]
    assert first not in ("a a a a", "") and "c" not in second and max(len(first), len(second)) <= 4


@pytest.mark.slow
def test_a_shortlist_is_learned_and_searched(run_dir, copy_text, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\n\nh g\n")
    shutil.copytree(run_dir, tmp_path / "run")
    arguments = [f"--run_dir={tmp_path}/run", f"--input={tmp_path}/in", "--decoding.shortlist=1"]
    assert translate.main(arguments) == 2 and "python -m pipelines.lexicon --run_dir=" in capsys.readouterr().err
    scored = [f"--source={tmp_path}/in", f"--target={tmp_path}/in", f"--output={tmp_path}/scores"]
    assert score.main([arguments[0], *scored]) == 0  # does not search
    assert lexicon.main([f"--run_dir={tmp_path}/run", f"--data_dir={copy_text}", "--common=0", "--proposals=3"]) == 0
    result = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert result["common"] == 0 and result["dev_coverage"]["3"] > 0.99  # every letter is its own translation
    assert translate.main(arguments) == 0 and capsys.readouterr().out == "a b c\n\nh g\n"
    assert translate.main([*arguments[:2], "--decoding.shortlist=4"]) == 2
    assert f"--run_dir={tmp_path}/run --proposals=4" in capsys.readouterr().err
    assert export.main([*arguments[::2], f"--output={tmp_path}/out"]) == 0
    exported = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert exported["different"] == 0 and exported["shortlist"] == 1
    card = (pathlib.Path(exported["saved_model"]) / "model_card.md").read_text(encoding="utf-8")
    assert "a shortlist of 1 pieces a source piece" in card
    asked = [f"--saved_model={exported['saved_model']}", arguments[1]]
    assert translate.main(asked) == 0 and capsys.readouterr().out == "a b c\n\nh g\n"


def test_an_interrupted_translation_goes_on(run_dir, tmp_path, monkeypatch, capsys):
    lines = ["a b c", "", "h g", "d e", "b", "c c d"]
    (tmp_path / "in").write_text("".join(line + "\n" for line in lines))
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    real = translate._opened

    @contextlib.contextmanager
    def interrupted(values):
        with real(values) as (translate_lines, about):

            def stop_after_three(lines, given, done):
                for number, result in enumerate(translate_lines(lines, given, done)):
                    if number == 3:
                        raise KeyboardInterrupt
                    yield result

            yield stop_after_three, about

    monkeypatch.setattr(translate, "_opened", interrupted)
    assert translate.main(arguments) == 130
    monkeypatch.undo()
    assert "interrupted after line 3; the same command with --resume goes on from there" in capsys.readouterr().err
    partial = tmp_path / "out.partial"
    assert partial.read_text() == "a b c\n\nh g\n" and not (tmp_path / "out").exists()
    assert translate.main(arguments) == 2
    assert "out.partial holds what an interrupted job wrote: give --resume" in _error(capsys)
    assert translate.main([*arguments, "--resume", "--scores", "--decoding.min_length=2"]) == 2
    message = _error(capsys)
    assert (
        "out.partial was made otherwise: scores was False, now True; min_length was 0, now 2; give the same" in message
    )
    partial.write_text(partial.read_text() + "half a li")
    assert translate.main([*arguments, "--resume"]) == 0
    assert "resuming after line 3" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert translate.main([*arguments, "--resume"]) == 2
    assert "out is whole already, there is nothing to resume" in _error(capsys)


def test_an_interruption_before_the_first_line_leaves_nothing(run_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").write_text("a\n")
    real = translate._opened

    @contextlib.contextmanager
    def interrupted(values):
        def stop(lines, given, done):
            raise KeyboardInterrupt

        with real(values) as (_, about):
            yield stop, about

    monkeypatch.setattr(translate, "_opened", interrupted)
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert "interrupted after line 0" in capsys.readouterr().err


def test_a_resumed_translation_needs_the_text_it_had(run_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").write_text("a b c\nd e\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    real = translate._opened

    @contextlib.contextmanager
    def interrupted(values):
        def stop(lines, given, done):
            yield Translation([Hypothesis("a b c", 0.0, 0.0)], False)
            raise KeyboardInterrupt

        with real(values) as (_, about):
            yield stop, about

    monkeypatch.setattr(translate, "_opened", interrupted)
    assert translate.main(arguments) == 130
    monkeypatch.undo()
    (tmp_path / "in").write_text("")
    capsys.readouterr()
    assert translate.main([*arguments, "--resume"]) == 2
    assert "the interrupted --output has 1 lines, --input only 0" in _error(capsys)
    assert (tmp_path / "out.partial").read_text() == "a b c\n"


def test_a_quiet_job_tells_no_progress(run_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").write_text("a b\n" + "a b " * 40 + "\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in"]
    assert translate.main([*arguments, "--quiet"]) == 0
    told = capsys.readouterr().err.strip().split("\n")
    assert len(told) == 1 and told[0].startswith("warning: line 2 is longer")
    assert translate.main(arguments) == 0
    assert "checkpoint: best" in capsys.readouterr().err and "TQDM_DISABLE" not in os.environ
    monkeypatch.setenv("TQDM_DISABLE", "yes")  # the user's own
    assert translate.main([*arguments, "--quiet"]) == 0 and os.environ["TQDM_DISABLE"] == "yes"
    with _process.quiet(True):
        for line in (
            "step 5  loss 1",
            "doctor, serious: x",
            "the proof failed: y",
            "checkpoint of step 4 is not used: z",
        ):
            _process.report(line)
    assert capsys.readouterr().err.split("\n")[-4:-1] == [
        "doctor, serious: x",
        "the proof failed: y",
        "checkpoint of step 4 is not used: z",
    ]


def test_translations_begin_as_a_file_says(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\nd e\n\nf g\n")
    (tmp_path / "prefixes").write_text("h\n\na\nf \n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in"]
    given = f"--prefixes={tmp_path}/prefixes"
    assert translate.main(arguments) == 0
    plain = capsys.readouterr().out.split("\n")
    assert translate.main([*arguments, given]) == 0
    found = capsys.readouterr().out.split("\n")
    assert found[0].startswith("h") and found[1:3] == plain[1:3] and found[3].startswith("f ") and len(found) == 5
    for text, name in (("h\n", "--prefixes ends before line 2"), ("\n" * 5, "--input ends before line 5")):
        (tmp_path / "prefixes").write_text(text)
        assert translate.main([*arguments, given]) == 2
        assert f"{name}, and --" in (message := _error(capsys)) and "goes on: give a line of prefixes" in message
    (tmp_path / "prefixes").write_text("\n\n \nf 😀\n")
    assert translate.main([*arguments, given, "--scores"]) == 0
    output = capsys.readouterr()
    assert "warning: line 4: its translation does not begin with all of its line of --prefixes" in output.err
    assert [json.loads(row)["is_prefix_kept"] for row in output.out.strip().split("\n")] == [True, True, False, False]
    assert translate.main([*arguments, given, f"--output={tmp_path}/prefixes"]) == 2
    assert "prefixes is read, and would be lost: give another path" in _error(capsys) and (
        tmp_path / "prefixes"
    ).read_text().startswith("\n")
    (tmp_path / "prefixes.gz").write_bytes(gzip.compress(bytes(range(97, 120)) * 9)[:20])
    assert translate.main([*arguments, f"--prefixes={tmp_path}/prefixes.gz"]) == 2
    assert "Cannot unpack --prefixes" in _error(capsys)
    assert translate.main([*arguments, given, "--mbr=4"]) == 2
    assert "--prefixes goes with a search or samples of sentences: leave out --mbr" in _error(capsys)
    assert translate.main([*arguments, "--prefixes=nowhere"]) == 2
    assert "Cannot read nowhere: No such file or directory; check --prefixes" in _error(capsys)


def test_translations_have_the_terms_of_a_glossary(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\nd e\n\nf g\n" + " ".join(f"x{number}" for number in range(17)) + "\n")
    terms = "".join(f"x{number}\ta{number}\n" for number in range(17))
    (tmp_path / "terms.tsv").write_text("b c\th g\nd\tc\nd\th\nf\t😀\n" + terms)
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--decoding.terms_beam_size=10"]
    given = f"--glossary={tmp_path}/terms.tsv"
    assert translate.main([*arguments, given, "--scores"]) == 0
    output = capsys.readouterr()
    rows = [json.loads(row) for row in output.out.strip().split("\n")]
    found = [row["hypotheses"][0]["text"] for row in rows]
    assert "h g" in found[0] and ("c" in found[1] or "h" in found[1]) and found[2] == "" and len(found) == 5
    assert "glossary: 2 of 20 terms placed; line 4 lacks '😀'; line 5 lacks 'a0', 'a1'" in output.err
    assert "warning: line 5 has 17 terms of the glossary: 16 are looked at" in output.err
    assert rows[1]["hypotheses"][0]["terms"] == [{"term": "c | h", "is_placed": True}]
    assert rows[2]["hypotheses"][0]["terms"] == [] and not rows[3]["hypotheses"][0]["terms"][0]["is_placed"]
    for more, message in (
        (["--samples=2"], "--glossary goes with beam search: leave out --samples"),
        (["--split_sentences"], "--glossary goes with a sentence a line: leave out --split_sentences"),
        (["--decoding.recombine=2"], "--glossary goes with plain beam search"),
        (["--decoding.terms_beam_size=0"], "--glossary goes with plain beam search"),
        ([f"--output={tmp_path}/terms.tsv"], "terms.tsv is read, and would be lost: give another path"),
    ):
        assert translate.main([*arguments, given, *more]) == 2
        assert message in _error(capsys)
    (tmp_path / "terms.tsv").write_text("a b\n")
    assert translate.main([*arguments, given]) == 2
    assert "Line 1 of the glossary" in _error(capsys)


def test_terms_that_are_placed_are_a_score(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\nd e\n")
    (tmp_path / "reference").write_text("a h g\nd e\n")
    (tmp_path / "terms.tsv").write_text("b c\th g\ne\t😀\n")
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/in", f"--reference={tmp_path}/reference"]
    given = f"--glossary={tmp_path}/terms.tsv"
    arguments.append("--decoding.terms_beam_size=10")
    assert evaluate.main([*arguments, given, f"--translations={tmp_path}/hyp"]) == 0
    output = capsys.readouterr()
    scores = json.loads(output.out)
    assert (scores["terms"], scores["terms_placed"]) == (2, 1) and "greedy_bleu" not in scores
    assert "h g" in (tmp_path / "hyp").read_text().split("\n")[0]
    assert "glossary: 1 of 2 terms placed; line 2 lacks '😀'\n" in output.err
    for more, message in (
        (["--mbr=2"], "--glossary goes with beam search of sentences: leave out --mbr"),
        (["--decoding.split_sentences=true"], "leave out decoding.split_sentences"),
        (["--decoding.recombine=2"], "--glossary goes with plain beam search"),
        (["--glossary=nowhere"], "Cannot read the glossary nowhere"),
    ):
        assert evaluate.main([*arguments, *([] if "=nowhere" in more[0] else [given]), *more]) == 2
        assert message in _error(capsys)


@pytest.mark.parametrize("has_glossary", [False, True])
def test_lines_that_are_translated_are_forgotten(has_glossary, run_dir, tmp_path, monkeypatch, capsys):
    """However many come: none is kept for a glossary that is not there, or has been looked at."""

    class Line(str):
        pass

    kept, most = weakref.WeakSet(), 0

    def lines(*_):
        for number in range(2000):
            line = Line(f"a {number}")
            kept.add(line)
            yield line

    @contextlib.contextmanager
    def opened(values):
        def stream(texts, given, done):
            nonlocal most
            for text, _ in zip(texts, given.get("terms", itertools.repeat(None))):
                most = max(most, len({id(each) for each in kept}))
                yield Translation([Hypothesis(str(text), 0.0, 0.0)], False)

        yield stream, {}

    monkeypatch.setattr(translate._text, "lines", lines)
    monkeypatch.setattr(translate, "_opened", opened)
    (tmp_path / "in").write_text("\n")
    (tmp_path / "terms.tsv").write_text("x\ty\n")
    given = [f"--glossary={tmp_path}/terms.tsv", "--decoding.terms_beam_size=10"] * has_glossary
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", *given]) == 0
    assert capsys.readouterr().out.count("\n") == 2000 and 0 < most < 200  # tee keeps 57 at a time


@pytest.mark.slow
def test_translations_have_what_is_protected(run_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "in").write_text("a <b>b c</b>\n\n<i>d</i> AB-1 e\nh https://x.y/z\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--protect=tag,url", r"--protect=[A-Z]{2}-\d"]
    with_terms = [*arguments, "--decoding.terms_beam_size=10", f"--glossary={tmp_path}/terms.tsv"]
    assert translate.main([*arguments, "--n_best=2"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.strip().split("\n")]
    for row, marks in zip(rows, (["<b>", "</b>"], [], ["<i>", "</i>", "AB-1"], ["https://x.y/z"])):
        for hypothesis in row["hypotheses"]:
            assert [hypothesis["text"].count(mark) for mark in marks] == [1] * len(marks)
            assert hypothesis["text"].count("<") == sum(mark.startswith("<") for mark in marks)
    assert translate.main([*arguments, "--samples=3", "--temperature=4"]) == 0
    samples = [json.loads(row)["hypotheses"] for row in capsys.readouterr().out.strip().split("\n")]
    assert [len(each) for each in samples] == [3, 1, 3, 3] and len({each["text"] for each in samples[2]}) > 1
    assert all("AB-1" in each["text"] and "<i>" in each["text"] for each in samples[2])
    (tmp_path / "terms.tsv").write_text("b\tg\nAB-1\th\nx\th\n")
    searched, take_out = [], Protection.take_out
    monkeypatch.setattr(Protection, "take_out", lambda self, text: searched.append(text) or take_out(self, text))
    assert translate.main(with_terms) == 0
    assert "glossary: 1 of 1 terms placed" in capsys.readouterr().err  # what is protected is no text
    assert set(searched) == set((tmp_path / "in").read_text().split("\n")[:-1])
    for more in (["--mbr=4"], ["--samples=20", "--top_k=5"], ["--decoding.protect=('tag', 'url', '[A-Z]+-1')"]):
        assert translate.main([*arguments[: 4 - 2 * ("--decoding" in more[0])], *more]) == 0
        for line, marks in zip(capsys.readouterr().out.split("\n"), (["<b>", "</b>"], [], ["<i>", "</i>", "AB-1"])):
            assert [line.count(mark) for mark in marks] == [20 if "--samples=20" in more else 1] * len(marks)
    protected = "--decoding.protect=('tag',)"
    for more in (["--protect="], ["--protect=", f"--prefixes={tmp_path}/none"], ["--split_sentences", "--protect=tag"]):
        (tmp_path / "none").write_text("\n" * 4)
        assert translate.main([*arguments[:2], protected, *more]) == 0
        assert ("<b>" in capsys.readouterr().out) == ("--split_sentences" in more)
    (tmp_path / "long").write_text("a <b>g</b> " + "h" * 5000 + "\n")
    assert (
        translate.main([arguments[0], f"--input={tmp_path}/long", "--protect=tag", r"--protect=(?:(?:h|hh)+)+\d"]) == 0
    )
    output = capsys.readouterr()
    assert output.out.count("<b>") == output.out.count("</b>") == 1
    assert "warning: line 1: the regular expressions of what is to be protected took over 1 s, and only" in output.err
    for more, message in (
        (["--protect=tag", "--exact=4"], "--protect does not go with --exact: leave out one of them"),
        (["--decoding.protect=('tag',)", "--exact=4"], "Exact search protects nothing: give --decoding.protect='()'"),
        (["--decoding.protect=('tags',)"], "'tags' is no name of a pattern"),
        (["--decoding.protect=('tag',)", "--split_sentences"], "give `--decoding.protect='()'`, and `--protect` to"),
        (["--decoding.split_sentences", "--protect=tag", f"--glossary={tmp_path}/terms.tsv"], "--glossary goes with a"),
        (
            ["--decoding.split_sentences", "--protect=tag", f"--prefixes={tmp_path}/in"],
            "--prefixes goes with a sentence",
        ),
        (["--protect=a("], "'a(' is neither the name of a pattern"),
        (["--protect=x*"], "'x*' finds the empty string"),
        (["--protect=tags"], "'tags' is no name of a pattern"),
        (["--protect=tag,link"], "'link' is no name of a pattern: give some of "),
    ):
        assert translate.main([*arguments[:2], *more]) == 2
        assert message in _error(capsys)


@pytest.mark.slow
def test_what_is_protected_goes_over_the_ends_of_sentences(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a. <b>B c! D</b> e\n\nH https://x.y/z g " + "h g " * 30 + "\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--split_sentences"]
    assert translate.main([*arguments, "--protect=tag,url"]) == 0
    output = capsys.readouterr()
    lines = output.out.split("\n")
    assert lines[0].index("<b>") < lines[0].index("</b>") and lines[1] == "" and lines[2].count("https://x.y/z") == 1
    (tmp_path / "in").write_text("a. B c! D e\n\nH g " + "h g " * 3 + "\n")
    assert translate.main(arguments) == 0
    plain = capsys.readouterr().out.split("\n")
    assert lines[0].replace("<b>", "").replace("</b>", "") == plain[0]
    assert len(lines[2]) > 2 * 32 and "limit" not in output.err  # all of it


def test_a_long_line_is_cut_with_a_warning_or_refused(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b\n" + "a b " * 40 + "\nb\n")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    assert translate.main(arguments) == 0
    assert "warning: line 2 is longer than the model's limit and was translated in part" in capsys.readouterr().err
    assert (tmp_path / "out").read_text().count("\n") == 3
    (tmp_path / "out").unlink()
    assert translate.main([*arguments, "--on_long=refuse"]) == 2
    message = _error(capsys)
    assert (
        "Line 2 is longer than the model's limit; shorten it, or give --on_long=truncate; the same command with "
        in message
    )
    assert "--resume goes on after line 1" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.partial", "out.partial.json"]
    (tmp_path / "in").write_text("a b\nb a\nb\n")  # the long line is mended
    assert translate.main([*arguments, "--on_long=refuse", "--resume"]) == 0
    assert (tmp_path / "out").read_text() == "a b\nb a\nb\n"
    (tmp_path / "in").write_text("a b " * 40 + "\n")
    (tmp_path / "out").unlink()
    assert translate.main([*arguments, "--on_long=refuse"]) == 2 and "or raise --decoding.max_source" in _error(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_scores_that_were_interrupted_go_on(run_dir, tmp_path, capsys):
    (tmp_path / "source").write_text("a b\n" * 70)
    (tmp_path / "target").write_text("b a\n" * 66)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/source", f"--target={tmp_path}/target"]
    output = f"--output={tmp_path}/link"
    assert score.main([*arguments, output]) == 2 and "target has 66 lines, the other more" in _error(capsys)
    assert 0 < (tmp_path / "out.partial").read_text().count("\n") < 70
    with open(tmp_path / "target", "a") as file:
        file.write("b a\n" * 4)
    assert score.main([*arguments, output]) == 2 and "give --resume to go on with it" in _error(capsys)
    assert score.main([*arguments, output, "--resume"]) == 0
    resumed = capsys.readouterr().err.strip().split("\n")[-1]
    assert score.main([*arguments, f"--output={tmp_path}/whole"]) == 0
    assert capsys.readouterr().err.strip().split("\n")[-1] == resumed and resumed.startswith("70 pairs, ")
    assert [json.loads(line)["line"] for line in (tmp_path / "out").read_text().split("\n")[:-1]] == list(range(1, 71))


@pytest.mark.slow
def test_a_translation_that_is_lost_is_reported_with_its_line(run_dir, tmp_path, monkeypatch, capsys):
    from nmt_keras.inference.translator import Translator

    (tmp_path / "in").write_text("a\n \u200b\nb\n", encoding="utf-8")
    real = Translator._hypothesis
    monkeypatch.setattr(Translator, "_hypothesis", lambda *arguments: real(*arguments)._replace(text=" "))
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in"]) == 0
    errors = capsys.readouterr().err
    lost = [number for number in (1, 2, 3) if f"line {number} has text, and its translation is empty" in errors]
    assert lost == [1, 3]
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/in", f"--reference={tmp_path}/in"]
    assert evaluate.main(arguments) == 0
    out = capsys.readouterr()
    assert json.loads(out.out.strip().split("\n")[-1])["empty"] == 2
    assert "warning: text, but an empty translation: 2 lines (1, 3)" in out.err


@pytest.mark.slow
def test_evaluation_takes_references_and_says_what_it_scored(run_dir, copy_text, tmp_path, monkeypatch, capsys):
    assert experiment_evaluate._TUNED == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
    monkeypatch.setattr(experiment_evaluate, "_TUNED", (0.2, 1.5))
    sources = (copy_text / "dev.src").read_text().split("\n")[:8]
    sources[3] = "a b " * 40
    (tmp_path / "source").write_text("".join(line + "\n" for line in sources))
    (tmp_path / "bad").write_text("".join("h h h h\n" for _ in sources))
    (tmp_path / "good").write_text("".join(line + "\n" for line in sources))
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/source"]
    found = {}
    for name, references in {
        "bad": [f"--reference={tmp_path}/bad"],
        "both": [f"--reference={tmp_path}/bad", f"--reference={tmp_path}/good"],
        "commas": [f"--reference={tmp_path}/bad,{tmp_path}/good", "--tune_search"],
    }.items():
        assert evaluate.main([*arguments, *references]) == 0
        out = capsys.readouterr()
        found[name] = json.loads(out.out.strip().split("\n")[-1])
        assert "warning: longer than the model's limit, and translated and scored in part: 1 line (4)" in out.err
        assert "BLEU: the language 'yy' is in no table, so tok:13a is used" in out.err
        assert (found[name]["truncated"], found[name]["empty"]) == (1, 0)
    assert "nrefs:2" in found["both"]["bleu_signature"] and found["both"]["bleu"] > found["bad"]["bleu"] + 50
    assert found["commas"]["bleu"] == found["both"]["bleu"] and "greedy_bleu" in found["both"]
    rows = found["commas"]["tuned"]
    assert [row["length_penalty"] for row in rows] == [0.0, 0.2, 1.5]
    assert rows[0]["beam_size"] == 1 and "(best)" in out.err
    assert evaluate.main([*arguments, f"--reference={tmp_path}/good", "--bleu_tokenizer=char"]) == 0
    assert "tok:char" in json.loads(capsys.readouterr().out.strip().split("\n")[-1])["bleu_signature"]


def test_a_beam_that_is_worse_than_greedy_search_is_said(monkeypatch):
    scores = iter([50.0, 40.0])

    class Metric:
        def corpus_score(self, hypotheses, references):
            return argparse.Namespace(score=next(scores))

    trained = argparse.Namespace(config=argparse.Namespace(decoding=DecodingConfig(beam_size=5, length_penalty=0.6)))
    monkeypatch.setattr(
        experiment_evaluate, "_bleu_of", lambda *_, **options: Metric.corpus_score(None, None, None).score
    )
    said = []
    found = experiment_evaluate._compared_with_greedy(trained, [], [], [], Metric(), said.append)
    assert found == {"greedy_bleu": 50.0}
    assert "greedy search has BLEU 50.00, more than 40.00 of 5 beams with length penalty 0.6" in said[0]


@pytest.mark.slow
def test_an_export_says_what_comes_next(run_dir, saves_at_once, tmp_path, capsys):
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 0
    said = capsys.readouterr().err
    assert f"Next:\n   python -m pipelines.serve --saved_model={tmp_path}/saved " in said
    assert f"{tmp_path}/saved/1/model_card.md, for TensorFlow Serving" in said


def test_the_penalty_in_use_is_the_best_among_equals(monkeypatch):
    trained = argparse.Namespace(config=argparse.Namespace(decoding=DecodingConfig(beam_size=5, length_penalty=1.0)))
    monkeypatch.setattr(experiment_evaluate, "_bleu_of", lambda *_, **options: 50.0)
    said = []
    experiment_evaluate._tuned(trained, [], [], None, said.append, {})
    assert [line for line in said if "(best)" in line] == ["length penalty 1.0   BLEU 50.00  (best)"]


def test_an_empty_file_and_the_keyboard_are_said(exported, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").write_text("")
    assert translate.main([f"--saved_model={exported[1]}", f"--input={tmp_path}/in"]) == 0
    assert f"{tmp_path}/in has no lines: nothing was translated" in capsys.readouterr().err
    both = [f"--{side}={tmp_path}/in" for side in ("source", "target")]
    assert score.main([f"--saved_model={exported[1]}", *both]) == 0
    assert capsys.readouterr() == ("", f"{tmp_path}/in has no lines: nothing was scored\n")
    typed = io.TextIOWrapper(io.BytesIO(b"a b\n"))
    typed.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", typed)
    assert translate.main([f"--saved_model={exported[1]}"]) == 0
    out = capsys.readouterr()
    assert out.out == "a b\n" and "reading from the keyboard, a sentence a line; Ctrl-D ends" in out.err


@pytest.mark.slow
def test_a_configuration_of_a_run_is_a_recipe(run_dir, copy_text, tmp_path, capsys):
    for number, recipe in enumerate((run_dir, run_dir / "config.json")):
        arguments = [f"--config={recipe}", f"--run_dir={tmp_path}/run{number}", f"--data_dir={copy_text}"]
        assert train.main([*arguments, "--config.training.max_steps=1"]) == 0
        assert json.loads((tmp_path / f"run{number}" / "config.json").read_text())["model"]["d_model"] == 48
    (tmp_path / "a.yaml").write_text("model: 1\n")
    assert train.main(["--config", f"{tmp_path}/a.yaml", f"--run_dir={tmp_path}/r"]) == 2
    assert f"--config={tmp_path}/a.yaml is no recipe: give a Python file" in _error(capsys)


def test_a_flag_that_is_given_twice_is_refused_and_an_override_said(run_dir, copy_text, tmp_path, capsys):
    (tmp_path / "in").write_text("a\n")
    given = [f"--run_dir={run_dir}", f"--input={tmp_path}/in"]
    assert translate.main([*given, f"--input={tmp_path}/other"]) == 2
    assert f"--input is given 2 times ({tmp_path}/in, {tmp_path}/other): give it once" in _error(capsys)
    assert translate.main([*given, "--input", f"{tmp_path}/other"]) == 2
    assert "--input is given 2 times" in _error(capsys)
    assert translate.main([*given, f"--run_dir={tmp_path}"]) == 2
    assert "give it as a list, with commas" in _error(capsys)
    assert translate.main([*given, given[1], "--decoding.beam_size=1", "--decoding.beam_size=2"]) == 0
    assert "--decoding.beam_size is given 2 times: the last one is taken, 2" in capsys.readouterr().err


def test_text_in_wide_characters_is_refused_with_the_command(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c\nd e\nf g\n", encoding="utf-16")
    said = f"looks like UTF-16LE: .*iconv -f UTF-16LE -t UTF-8 {tmp_path}/in > {tmp_path}/in.utf8"
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]) == 2
    assert re.search(said.replace(".*", ""), _error(capsys)) and not (tmp_path / "out").exists()
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/in", f"--reference={tmp_path}/in"]
    assert evaluate.main(arguments) == 2 and re.search(said, _error(capsys))


def test_a_version_of_an_export_is_no_place_for_versions(run_dir, exported, capsys):
    assert export.main([f"--run_dir={run_dir}", f"--output={exported[1]}/1"]) == 2
    assert f"1 is a version of an export: give the folder of all versions, --output={exported[1]}" in _error(capsys)
    assert not (exported[1] / "1" / "1").exists()


def test_what_does_not_search_takes_no_options_of_the_search(tmp_path, capsys):
    from pipelines import encode

    for job in (encode, score):
        assert job.main(["--help"]) == 0
        assert "beam_size" not in capsys.readouterr().out
        assert job.main(["--decoding.beam_size=3"]) == 2
        assert "--decoding.beam_size is of searches: this job takes max_source_length" in _error(capsys)


def test_text_may_come_through_pipes(run_dir, copy_text, tmp_path, capsys):
    for name in ("source", "target"):
        os.mkfifo(tmp_path / name)

    def feed(name, text):
        with open(tmp_path / name, "w") as pipe:
            pipe.write(text)

    text = (copy_text / "dev.src").read_text()
    threads = [threading.Thread(target=feed, args=(name, text)) for name in ("source", "target")]
    for thread in threads:
        thread.start()
    arguments = [f"--run_dir={run_dir}", f"--source={tmp_path}/source", f"--reference={tmp_path}/target"]
    assert evaluate.main(arguments) == 0
    for thread in threads:
        thread.join()
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1])["bleu"] > 95


@pytest.mark.slow
def test_a_system_that_tells_nothing_of_memory_trains_without_a_plan(copy_text, tmp_path, monkeypatch, capsys):
    from nmt_keras.training import memory

    def nothing(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(memory, "_lines", nothing)
    for number, budget in enumerate(("--config.training.batch_tokens=1024", "--config.training.batch_tokens=0")):
        arguments = [RECIPE, f"--run_dir={tmp_path}/run{number}", f"--data_dir={copy_text}", budget]
        options = [f"--config.data.cache_dir={tmp_path}/cache", "--config.training.max_steps=1"]
        assert train.main([*arguments, *options]) == 0
        errors = capsys.readouterr().err
        assert "memory and time are not planned: this system does not tell (Linux does, in /proc)" in errors
        assert ("training.batch_tokens: 4096; what fits is not known" in errors) == (number == 1)


@pytest.mark.slow
def test_a_run_from_before_goes_on_as_it_was(run_dir, copy_text, tmp_path, capsys):
    """What runs of before have not, is taken away: the fields, the mark of folding, what was measured."""
    old = tmp_path / "run"
    shutil.copytree(run_dir, old)
    config = json.loads((old / "config.json").read_text())
    del config["data"]["bleu_tokenizer"]
    config["data"]["character_coverage"], config["decoding"]["length_penalty"] = 1.0, 0.6
    (old / "config.json").write_text(json.dumps(config))
    card = json.loads((old / "data_card.json").read_text())
    del card["findings"]
    (old / "data_card.json").write_text(json.dumps(card))
    [tokenizer] = (old / "tokenizer").glob("*/tokenizer.json")
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    del content["folds_white_space"]
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    for manifest in (old / "checkpoints").glob("step-*/manifest.json"):
        content = json.loads(manifest.read_text())
        del content["state"]["measured"]
        manifest.write_text(json.dumps(content))
    before = json.loads((old / "checkpoints" / "best.json").read_text())
    cache = f"--config.data.cache_dir={config['data']['cache_dir']}"
    steps = f"--config.training.max_steps={config['training']['max_steps'] + 1}"
    assert train.main([RECIPE, f"--run_dir={old}", f"--data_dir={copy_text}", cache, steps]) == 0
    errors = capsys.readouterr().err
    assert f"resuming at step {config['training']['max_steps']}" in errors and "begin anew" not in errors
    assert json.loads((old / "config.json").read_text())["data"]["character_coverage"] == 1.0
    assert json.loads((old / "checkpoints" / "best.json").read_text())["value"] >= before["value"]


def test_an_error_of_the_system_is_told_as_far_as_it_is_known(monkeypatch, capsys):
    from pipelines import _cli

    def job(error):
        def run(values):
            raise error

        return run

    for error, said in (
        (
            FileNotFoundError(2, "No such file or directory", "/proc/self/status"),
            "/proc/self/status: No such file or direc",
        ),
        (
            OSError(28, "No space left on device", "/a/b"),
            "/a/b: No space left on device; free the disk or give another",
        ),
        (OSError("something odd"), "something odd"),
    ):
        assert _cli.run(lambda values, argv: None, job(error), "", []) == 2
        line = _error(capsys)
        assert said in line and ("free the disk" in line) == (error.errno == 28)


@pytest.mark.slow
def test_a_run_that_measures_on_another_dev_set_chooses_anew(run_dir, copy_text, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    for side in ("src", "tgt"):
        lines = (copy_text / f"train.{side}").read_text().split("\n")[:12]
        (tmp_path / f"new.{side}").write_text("".join(line + "\n" for line in lines))
    config = json.loads((run_dir / "config.json").read_text())
    arguments = [
        f"--config={run_dir}",
        f"--run_dir={tmp_path}/run",
        f"--data_dir={config['data']['data_dir']}",
        f"--config.data.dev_source={tmp_path}/new.src",
        f"--config.data.dev_target={tmp_path}/new.tgt",
        f"--config.training.max_steps={config['training']['max_steps'] + 2}",
        "--config.training.evaluate_every=1",
    ]
    assert train.main(arguments) == 2 and "--allow_config_change" in _error(capsys)
    assert train.main([*arguments, "--allow_config_change"]) == 0
    assert (
        "what is measured has changed (dev text, training.dev_sentences): the best checkpoint and the patience begin"
        in (capsys.readouterr().err)
    )
    best = json.loads((tmp_path / "run" / "checkpoints" / "best.json").read_text())
    assert best["step"] >= config["training"]["max_steps"] and best["value"] > 50


def test_export_proves_itself_and_translate_takes_it(exported, tmp_path):
    result, output, _ = exported
    assert result["different"] == 0 and result["compared"] > 24 and result["saved_model"] == str(output / "1")
    proof = json.loads((output / "1" / "parity.json").read_text())
    assert proof["compared"] == result["compared"] and proof["different"] == 0 and proof["step"] == 250
    assert 0 <= proof["largest_log_prob_difference"] <= 1e-5
    card = (output / "1" / "model_card.md").read_text(encoding="utf-8")
    assert "# copy\n" in card and "tok:13a" in card and "http://localhost:8501/v1/models/copy:predict" in card
    assert "max_batch_size { value: 64 }" in (output / "1" / "batching_parameters.txt").read_text()
    (tmp_path / "in").write_text("a b c\n\nh g\n")
    for place in (output / "1", output):  # a version, or the newest of a folder of them
        assert translate.main([f"--saved_model={place}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]) == 0
        assert (tmp_path / "out").read_text() == "a b c\n\nh g\n"


@pytest.mark.slow
def test_a_second_export_is_the_next_version(exported, run_dir, saves_at_once, tmp_path, capsys):
    shutil.copytree(exported[1], tmp_path / "copy")
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/copy"]) == 0
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1])["saved_model"] == f"{tmp_path}/copy/2"


@pytest.mark.slow
def test_an_export_that_a_server_cannot_run_is_not_kept(run_dir, saves_at_once, tmp_path, monkeypatch, capsys):
    from nmt_keras.serving import proof

    monkeypatch.setattr(proof, "functions_that_must_compile", lambda folder: ["one", "two"])
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 1
    assert "the proof failed: a server cannot run one, two" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_export_that_differs_is_not_kept(run_dir, saves_at_once, tmp_path, monkeypatch, capsys):
    from nmt_keras.serving import proof

    real = proof.FreshProcess.ask

    def off_by_a_little(self, signature, inputs):
        reply = real(self, signature, inputs)
        if signature == "serving_default":
            reply["log_prob"] = [value + 1e-3 for value in reply["log_prob"]]
        return reply

    monkeypatch.setattr(proof.FreshProcess, "ask", off_by_a_little)
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 1
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1])["saved_model"] is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_export_that_puts_tags_elsewhere_is_not_kept(run_dir, saves_at_once, tmp_path, monkeypatch, capsys):
    from nmt_keras.serving import proof

    real = proof.FreshTransport.predict

    def reads_the_first(self, signature, inputs):
        outputs = real(self, signature, inputs)
        return outputs | {"alignment": 0 * outputs["alignment"]} if "alignment" in outputs else outputs

    monkeypatch.setattr(proof.FreshTransport, "predict", reads_the_first)
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 1
    result = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert result["saved_model"] is None and 0 < result["different"] <= 4


def test_the_same_command_resumes(run_dir, copy_text, capsys):
    config = json.loads((run_dir / "config.json").read_text())
    arguments = [
        RECIPE,
        f"--run_dir={run_dir}",
        f"--data_dir={copy_text}",
        f"--config.data.cache_dir={config['data']['cache_dir']}",
    ]
    assert train.main(arguments) == 0
    assert "resuming at step 250" in capsys.readouterr().err
    assert train.main([*arguments, "--config.training.max_steps=252"]) == 0
    rows = [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]]
    assert rows[-1]["step"] == 252 and len({(row["step"], "loss" in row) for row in rows}) == len(rows)


def test_a_corrupt_checkpoint_gives_way_to_the_one_before(run_dir, tmp_path, capsys):
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    data = next(newest.glob("variables.data*"))
    content = data.read_bytes()
    data.write_bytes(content[:100])
    try:
        (tmp_path / "in").write_text("a b\n")
        arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
        assert translate.main([*arguments, "--checkpoint=latest"]) == 0
        assert "does not match its checksum" in capsys.readouterr().err
    finally:
        data.write_bytes(content)


BAD = [
    (train, [RECIPE], "--config and --run_dir must be given"),
    (train, ["--config=nowhere.py", "--run_dir={tmp}/r"], "--config=nowhere.py is no readable recipe"),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.model.heads=8"],
        "unknown field 'heads'.*did you mean num_heads\\?",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.modle.cell=gru"],
        "unknown section 'modle'.*valid ones: data, model",
    ),
    (train, [RECIPE, "--run_dir={tmp}/r", "--config.model.cell=gruu"], "`model.cell` must be one of lstm, gru, rnn"),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.model.d_model=x"],
        "--config.model.d_model must be a whole number. R",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.model.tie_output=x"],
        "--config.model.tie_output must be true or f",
    ),
    (
        train,
        [f"--config={ROOT}/pipelines/recipes/multi30k_en_de.py:gnt", "--run_dir={tmp}/r"],
        "^error: There is no preset 'gnt'; valid ones: rnn_luong, ",
    ),
    (train, ["--config={tmp}/none.py", "--run_dir={tmp}/r"], "none.py has no get_config.. that returns an Exp"),
    (train, ["--config={tmp}/without.py", "--run_dir={tmp}/r"], "without.py has no get_config.. that returns an Exp"),
    (
        train,
        ["--config={tmp}/typo.py", "--run_dir={tmp}/r"],
        "'d_modle' in the recipe is no field of ModelConfig; valid",
    ),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--output={tmp}/x"],
        "/x is read, and would be lost: give another path",
    ),
    (train, [RECIPE, "--run_dir={tmp}/r", "--data_dir=/nowhere"], "Cannot read /nowhere/train.src: No such file"),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--data_dir={tmp}/short"],
        "has 3 lines and .*train.tgt has 2; they must be aligned",
    ),
    (train, [RECIPE, "--run_dir={tmp}", "--data_dir={copy}"], "exists and is no run directory"),
    (
        train,
        [RECIPE, "--run_dir={run}", "--data_dir={copy}", "--config.data.cache_dir={cache}", "--config.model.cell=gru"],
        "belongs to another configuration: model.cell was 'lstm', now 'gru'",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--data_dir={copy}", "--config.training.distribution=tpu"],
        "`training.distribution` tpu runs the step as one program of static shapes",
    ),
    (
        train,
        [
            RECIPE,
            "--run_dir={tmp}/r",
            "--data_dir={copy}",
            "--config.training.distribution=tpu",
            "--config.data.static_shapes=True",
        ],
        "needs a TPU, and TensorFlow finds none here",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--data_dir={copy}", "--config.training.distribution=multi_worker"],
        "TF_CONFIG",
    ),
    (
        train,
        [RECIPE + ":big", "--run_dir={tmp}/r"],
        "What follows the colon of --config is a preset; this recipe has none, leave it out",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--data_dir={copy}", "--config.training.weight_decay=0.1"],
        "`training.weight_decay` needs `training.optimizer` adamw. Received: 0.1 and 'adam'",
    ),
    (train, [RECIPE, "--run_dir={tmp}/r", "--data_dir={tmp}/empty"], "train.src is empty: a parallel text needs"),
    (train, [RECIPE, "--run_dir={tmp}/r", "--data_dir={tmp}/blank"], "dev.src and .*dev.tgt have no pair with text"),
    (train, ["--config.x=1"], "--config.x changes a recipe: give --config, the recipe, too"),
    (evaluate, ["--target=x"], "Unknown command line flag --target: did you mean --reference. --help lists all"),
    (translate, ["--source=x"], "Unknown command line flag --source: did you mean --input. --help lists all"),
    (score, ["--reference=x"], "Unknown command line flag --reference: did you mean --target. --help lists all"),
    (train, ["--max_steps=5"], "did you mean --config.training.max_steps. --help lists all"),
    (
        train,
        ["--run_dir={run}"],
        "--config and --run_dir must be given, for instance --config=.*/run --run_dir=.*/run$",
    ),
    (translate, ["--zzzz=1"], "Unknown command line flag --zzzz; --help lists all"),
    (serve, ["--prot=1"], "--prot: did you mean --grpc_port or --rest_port. --help lists all"),
    (train, ["--confg=x"], "Unknown command line flag --confg: did you mean --config. --help lists all"),
    (train, ["stray"], "Unexpected argument 'stray'"),
    (evaluate, [], "--run_dir must be given"),
    (
        evaluate,
        ["--run_dir={tmp}", "--source=a", "--reference=b"],
        "is no run directory: it has no readable config.json",
    ),
    (evaluate, ["--run_dir={run}", "--source={tmp}", "--reference=b"], "is a directory; give a text file"),
    (
        evaluate,
        ["--run_dir={run}", "--source={tmp}/x", "--reference={tmp}/x", "--output=/proc/x/scores.json"],
        "Cannot write /proc/x/scores.json: No such file or directory",
    ),
    (evaluate, ["--run_dir={run}", "--source={tmp}/blank/dev.src", "--reference={tmp}/x"], "no pair with text"),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--top_k=5"],
        "--top_k belongs to sampling: give --samples=1 or --mbr=16 too",
    ),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--exact=9", "--mbr=4"], "--exact gives one translation"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--mbr=1"], "at least 2. Received: 1"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--mbr=4", "--n_best=2"], "--mbr gives one translation of each"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--mbr_utility=bleu"], "belongs to --mbr: give --mbr=16 too"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--mbr=4", "--mbr_each"], "--mbr_each is for several runs"),
    (
        evaluate,
        ["--run_dir={run}", "--source={tmp}/x", "--reference={tmp}/x", "--mbr=9", "--mbr_candidates=beam"],
        "needs as many beams: give --beam_size=9",
    ),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--samples=2", "--n_best=2"],
        "--n_best is of a search, and --samples says how many",
    ),
    (
        translate,
        ["--run_dir={run}", "--decoding.beams=2"],
        "unknown field 'beams' in '--decoding.beams=2'; did you mean beam_size",
    ),
    (
        translate,
        ["--run_dir={run}", "--decoding.min_length=x"],
        "--decoding.min_length must be a whole number. Received: 'x'",
    ),
    (
        evaluate,
        ["--run_dir={run}", "--source={tmp}/x", "--reference={tmp}/x", "--decoding.min_length=-1"],
        "must not be",
    ),
    (translate, ["--saved_model={run}", "--checkpoint=latest"], "--checkpoint goes with --run_dir: an export keeps"),
    (translate, ["--run_dir={run}", "--beam_size=2", "--decoding.beam_size=3"], "are one option: give one of them"),
    (
        translate,
        ["--saved_model={run}", "--decoding.min_length=2"],
        "--decoding.min_length goes with --run_dir: an export keeps what it was made with",
    ),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--resume"], "give the --output of the interrupted job"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--n_best=9"], "--n_best must be at most the beam size"),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--samples=1", "--seed=3000000000"],
        "to 2,147,483,647. Received",
    ),
    (
        translate,
        ["--run_dir={run}", "--samples=3", "--temperature=0"],
        "must be a number, at least 0.001. Received: '0'",
    ),
    (translate, ["--run_dir={run}", "--top_p=2"], "--top_p must be a number from 0.0 to 1.0. Received: '2'"),
    (translate, ["--run_dir={run}", "--mbr_utility=ter"], "--mbr_utility must be one of chrf, bleu. Received: 'ter'"),
    (translate, ["--run_dir={run}", "--length_penalty=a: b"], "--length_penalty must be a number. Received: 'a: b'"),
    (translate, ["--run_dir={run}", "--quiet=maybe"], "--quiet must be true or false. Received: 'maybe'"),
    (translate, ["--run_dir={run}", "--beam_size=0"], "--beam_size must be a whole number, at least 1. Received: '0'"),
    (translate, ["--run_dir={run}", "--input={tmp}/no.gz"], "Cannot unpack --input: "),
    (translate, [], "--saved_model and --server must be given: give a model, as in --run_dir=runs/m30k"),
    (translate, ["--run_dir={run}", "--input=/nowhere"], "Cannot read /nowhere: No such file"),
    (translate, ["--run_dir={run}", "--input={tmp}/x", "--output=/proc/x/y"], "Cannot write /proc/x/y: No such file"),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--checkpoint=77"],
        "step 77 .* cannot be used: there is none; there are: ",
    ),
    (
        translate,
        ["--run_dir={run}", "--input={tmp}/x", "--checkpoint=worst"],
        "; give best, latest, averaged, ema or a step",
    ),
    (
        translate,
        ["--saved_model={tmp}", "--input={tmp}/x"],
        "is no export of this toolkit; give saved_models/<name>, or a ver",
    ),
    (translate, ["--saved_model={tmp}/none", "--input={tmp}/x"], "There is no folder {tmp}/none; give an export"),
    (export, ["--run_dir={run}"], "--run_dir and --output must be given"),
    (export, ["--run_dir={run}", "--output={run}"], "is a run directory: give another folder for the export"),
    (
        translate,
        ["--saved_model={run}", "--input={tmp}/x"],
        "it is a run directory; export it, or give it as --run_dir to a",
    ),
    (lexicon, [], "--run_dir must be given"),
    (lexicon, ["--run_dir={run}", "--data_dir={tmp}/blank"], "have no pair with text on both sides"),
    (
        export,
        ["--run_dir={run}", "--output={tmp}/s", "--data_dir={tmp}/gone"],
        "Cannot read {tmp}/gone/dev.src: No such file or directory; check the path",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.training.learning_rate=inf"],
        "`training.learning_rate` must be a f",
    ),
    (
        train,
        [RECIPE, "--run_dir={tmp}/r", "--config.training.seed=3000000000"],
        "`training.seed` must be at least 0 and",
    ),
    (train, [RECIPE, "--run_dir={tmp}/r", "--config.data.train_source=5"], "`data.train_source` must be several texts"),
]


@pytest.mark.usefixtures("within_a_minute")
@pytest.mark.parametrize("job, arguments, message", BAD, ids=[b[2][:40] for b in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(job, arguments, message, run_dir, copy_text, tmp_path, capsys):
    (tmp_path / "short").mkdir()
    for name, lines in (("train.src", 3), ("train.tgt", 2), ("dev.src", 1), ("dev.tgt", 1)):
        (tmp_path / "short" / name).write_text("a\n" * lines)
    for name in ("empty", "blank"):
        (tmp_path / name).mkdir()
        for file in ("train.src", "train.tgt", "dev.src", "dev.tgt"):
            (tmp_path / name / file).write_text("" if name == "empty" else "\n" if "dev" in file else "a b\n" * 40)
    (tmp_path / "x").write_text("a\n")
    (tmp_path / "none.py").write_text("def get_config():\n    pass\n")
    (tmp_path / "without.py").write_text("config = 1\n")
    (tmp_path / "typo.py").write_text(
        "from nmt_keras.config import ModelConfig\n\n\ndef get_config():\n    return ModelConfig(d_modle=3)\n"
    )
    (tmp_path / "no.gz").write_text("a\n")
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    places = {"tmp": tmp_path, "run": run_dir, "copy": copy_text, "cache": run_dir.parent / "cache"}
    config = (run_dir / "config.json").read_bytes()
    assert job.main([argument.format(**places) for argument in arguments]) == 2
    assert re.search(message.replace("{tmp}", str(tmp_path)), _error(capsys))
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before
    assert (run_dir / "config.json").read_bytes() == config


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("config.json", b"[]", "The configuration is no JSON object"),
        ("config.json", b"\xff\xfe", "is no run directory: it has no readable config.json"),
        ("config.json", b'{"model": 3}', "Section model of the configuration is no object"),
        (
            "config.json",
            b'{"training": {"max_steps": "x"}}',
            "`training.max_steps` must be a whole number. Received: 'x'",
        ),
        ("tokenizer/joint/tokenizer.json", b"[]", "holds no complete tokenizer"),
        ("tokenizer/joint/tokenizer.json", b"\xff\xfe", "holds no complete tokenizer"),
    ],
)
def test_a_damaged_run_directory_is_one_line(run_dir, tmp_path, capsys, file, content, message):
    shutil.copytree(run_dir, tmp_path / "run")
    assert (tmp_path / "run" / file).exists()
    (tmp_path / "run" / file).write_bytes(content)
    (tmp_path / "in").write_text("a\n")
    assert translate.main([f"--run_dir={tmp_path}/run", f"--input={tmp_path}/in"]) == 2
    assert message in _error(capsys)


def test_a_damaged_data_card_is_one_line(run_dir, copy_text, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "data_card.json").write_text("{}")
    cache = json.loads((run_dir / "config.json").read_text())["data"]["cache_dir"]
    arguments = [RECIPE, f"--run_dir={tmp_path}/run", f"--data_dir={copy_text}", f"--config.data.cache_dir={cache}"]
    assert train.main(arguments) == 2
    assert "data_card.json cannot be read" in _error(capsys)


def test_output_to_a_pipe_or_through_a_link(run_dir, tmp_path):
    (tmp_path / "in").write_text("a b c\n")
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/link"]) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "old").read_text() == "a b c\n"
    assert translate.main([f"--run_dir={run_dir}", f"--input={tmp_path}/in", "--output=/dev/null"]) == 0
    assert pathlib.Path("/dev/null").is_char_device()


@pytest.mark.slow  # tests/training/test_trainer.py asks the same of the trainer
def test_mirrored_training_on_two_devices_gives_the_losses_of_one(copy_text, tmp_path, capsys):
    program = (
        "import sys, tensorflow as tf; from pipelines import train; cpu = tf.config.list_physical_devices('CPU')[0]; "
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2); "
        "sys.exit(train.main(sys.argv[1:]))"
    )
    rows = {}
    for distribution in ("one_device", "mirrored"):
        arguments = [
            RECIPE,
            f"--run_dir={tmp_path}/{distribution}",
            f"--data_dir={copy_text}",
            f"--config.data.cache_dir={tmp_path}/cache",
            f"--config.training.distribution={distribution}",
            "--config.training.max_steps=6",
            "--config.training.log_every=2",
            "--config.training.accumulation_steps=2",
            "--config.training.batch_tokens=240",
            "--config.model.input_dropout_rate=0.0",
            "--config.model.output_dropout_rate=0.0",
        ]
        if distribution == "one_device":  # the plan of two replicas with two parts each
            arguments[-4] = "--config.training.accumulation_steps=4"
            assert train.main(arguments) == 0 and "1 replica" in capsys.readouterr().err
        else:
            command = [sys.executable, "-c", program, *arguments]
            result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            assert result.returncode == 0 and "2 replicas" in result.stderr, result.stderr
        rows[distribution] = [
            json.loads(row) for row in (tmp_path / distribution / "metrics.jsonl").read_text().split("\n")[:-1]
        ]
    for one, two in zip(*rows.values(), strict=True):
        assert one["step"] == two["step"]
        for name in set(one) & {"loss", "gradient_norm", "dev_loss"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.parametrize(
    "name",
    ["train", "evaluate", "translate", "score", "encode", "export", "lexicon", "quickstart", "compare", "augment"],
)
def test_help_is_short_and_needs_no_tensorflow(name):
    program = (
        "import sys; from pipelines import {0}; status = {0}.main(['--help']); "
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    ).format(name)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert importlib.import_module(f"pipelines.{name}").__doc__.split("\n")[0] in result.stdout
    assert result.stdout.count("\n") < 40


def test_the_full_help_lists_every_field_of_a_recipe(capsys):
    assert train.main(["--helpfull"]) == 0
    out = capsys.readouterr().out
    for field in fields_of(ExperimentConfig):
        assert f"  --config.{field.path}: {field.spec.help}" in out
    assert translate.main(["--helpfull"]) == 0 and "--config." not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["evaluate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("translate", "export"))]
)
def test_a_mistake_is_one_line_on_the_whole_of_stderr(name, tmp_path):
    arguments = [f"--run_dir={tmp_path}", "--source=a", "--reference=b", f"--input={__file__}", "--output=o"]
    wanted = {"evaluate": arguments[:3], "translate": arguments[::3], "export": arguments[::4]}[name]
    program = f"import sys; from pipelines import {name}; sys.exit({name}.main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", program, *wanted], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "is no run directory" in result.stderr


@pytest.mark.slow
def test_odd_lines_of_the_corpus_are_reported_by_number(tmp_path, copy_text, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.src", "train.tgt", "dev.src", "dev.tgt"):
        (folder / name).write_bytes((copy_text / name).read_bytes())
    lines = (folder / "train.src").read_bytes().split(b"\n")
    lines[0] = b"\xef\xbb\xbf" + lines[0]
    lines[2] += b"\r"
    lines[4] = b"a \xe2\x80\xa8 b"
    lines[6] = b"a \xff b"
    lines[8] = b"a \0 b"
    (folder / "train.src").write_bytes(b"\n".join(lines))
    assert (
        train.main(
            [
                RECIPE,
                f"--run_dir={tmp_path}/run",
                f"--data_dir={folder}",
                f"--config.data.cache_dir={tmp_path}/cache",
                "--config.training.max_steps=1",
            ]
        )
        == 0
    )
    errors = capsys.readouterr().err
    for finding in (
        "a byte order mark in 1 line (1): removed",
        "CR LF line ends in 1 line (3): the CR is removed",
        "U+2028 line separators in 1 line (5): read as",
        "invalid UTF-8 in 1 line (7): read as U+FFFD",
        "NUL characters in 1 line (9): removed",
    ):
        assert finding in errors


@pytest.mark.parametrize(
    "cpuinfo, expected",
    [("amx_bf16", "mixed_bfloat16"), ("avx512f avx512_bf16", "mixed_bfloat16"), ("avx2", "float32")],
)
def test_auto_precision_is_bfloat16_where_it_is_fast(monkeypatch, cpuinfo, expected):
    import builtins

    from nmt_keras.config import TrainingConfig
    from nmt_keras.training.precision import resolve_precision

    real = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda path, *a, **k: io.StringIO(cpuinfo) if path == "/proc/cpuinfo" else real(path, *a, **k)
    )
    config = TrainingConfig(precision="auto")
    resolve_precision(config)
    assert config.precision == expected


@pytest.mark.usefixtures("within_a_minute")
@pytest.mark.parametrize(
    "tf_config",
    ["{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'],
)
def test_a_malformed_cluster_is_one_line(monkeypatch, copy_text, tmp_path, capsys, tf_config):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    arguments = [RECIPE, f"--run_dir={tmp_path}/r", f"--data_dir={copy_text}"]
    assert train.main([*arguments, "--config.training.distribution=multi_worker"]) == 2
    assert "TF_CONFIG must be like" in _error(capsys)
    assert not list(tmp_path.iterdir())


def test_a_lost_worker_is_one_line(capsys):
    from pipelines import _cli

    def job(values):
        raise WorkerLost("worker 2 (b:1) stopped or cannot be reached")

    assert _cli.run(lambda values, argv: None, job, "", []) == 75
    assert "worker 2 (b:1) stopped or cannot be reached" in _error(capsys)


@pytest.mark.slow
def test_a_terminal_of_80_columns_shows_bars_that_fit_and_nothing_of_libraries(copy_text, tmp_path):
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [RECIPE, f"--run_dir={tmp_path}/run", f"--data_dir={copy_text}", "--config.training.max_steps=6"]
    command = [sys.executable, "-m", "pipelines.train", *arguments, "--config.data.tokenizer=unigram"]
    command += ["--config.data.source_vocab_size=8000", "--config.data.target_vocab_size=8000"]
    environment = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "TQDM_DISABLE", "COLUMNS")}
    process = subprocess.Popen(command, stdout=side, stderr=side, cwd=ROOT, env=environment)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(main, 1 << 16):
            shown += part
    os.close(main)
    assert process.wait() == 0, shown
    text = shown.decode("utf-8")
    bars = [part for part in re.split(r"[\r\n]", text) if "%|" in part]
    assert any("step/s" in bar or "s/step" in bar for bar in bars) and max(map(len, bars)) <= 80
    for remark in ("normalizer.cc", "oneDNN", "cuda", "W0000", "WARNING", "trainer_interface"):
        assert remark not in text

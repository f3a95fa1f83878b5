"""The job that compares systems, and its page."""

import json
import re
import shutil

import pytest

from pipelines import compare
from tests.page_checks import Page


@pytest.fixture
def text(tmp_path):
    """Files of 40 sentences, their reference, and translations of which every fourth is wrong."""
    sources = [f"der hund {i} rennt <schnell>" for i in range(40)]
    references = [f"the dog {i} runs <fast>" for i in range(40)]
    wrong = [line if i % 4 else f"a cat & {i}" for i, line in enumerate(references)]
    for name, lines in (("src", sources), ("ref", references), ("good", references), ("bad", wrong)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def _arguments(text, *more):
    return [f"--source={text}/src", f"--reference={text}/ref", "--samples=200", "--trials=200", *more]


def test_files_of_translations_are_compared(text, capsys):
    files = [f"{text}/bad", f"{text}/good"]
    options = ["--target_language=en", f"--output={text}/out.json", f"--page={text}/page.html"]
    assert compare.main(_arguments(text, *options, *files)) == 0
    printed, told = capsys.readouterr()
    result = json.loads(printed)
    assert result == json.loads((text / "out.json").read_text())
    assert [row["name"] for row in result["systems"]] == files
    assert result["systems"][1]["bleu"] == pytest.approx(100.0) and result["systems"][0]["bleu"] < 90
    assert result["tests"]["bleu"][1]["randomisation_p"] < 0.05
    assert result["most_different"][0]["translations"][0].startswith("a cat")
    assert (result["most_different"][0]["line"] - 1) % 4 == 0
    assert re.search(r"100\.00 +0\.0\d\d, 0\.0\d\d +100\.00 .*good$", told, re.MULTILINE)
    assert "BLEU by words of the source" in told and "F1 of words by their frequency" in told


def test_p_values_of_a_few_lines_are_warned_of(text, capsys):
    lines = (text / "good").read_text(encoding="utf-8").replace("dog 7 ", "cat 7 ")
    (text / "one").write_text(lines, encoding="utf-8")
    assert (
        compare.main(_arguments(text, "--target_language=en", *(f"{text}/{name}" for name in ("good", "one", "bad"))))
        == 0
    )
    told = capsys.readouterr().err
    assert "one differs from " in told and "in 1 line: p-values of so few say nothing" in told
    assert told.count("p-values of so few") == 1


def test_the_page_needs_no_network_and_shows_text_as_text(text, capsys):
    files = [f"{text}/bad", f"{text}/good"]
    assert (
        compare.main(
            _arguments(text, "--source_language=ar", "--target_language=zho_Hans", f"--page={text}/page.html", *files)
        )
        == 0
    )
    page = (text / "page.html").read_text(encoding="utf-8")

    seen = Page(page)
    assert not {"schnell", "fast"} & {tag for tag, _ in seen.tags}
    shown = [attributes["lang"] for tag, attributes in seen.tags if tag == "dd" and attributes["dir"] == "auto"]
    assert shown[:4] == ["ar", "zho-Hans", "zho-Hans", "zho-Hans"]
    assert "&lt;schnell&gt;" in page and "<mark>" in page
    capsys.readouterr()


@pytest.mark.slow
def test_names_are_runs_with_a_checkpoint_and_ensembles(trained_copy, tmp_path, monkeypatch, capsys):
    run = tmp_path / "data@v2" / "run"
    shutil.copytree(trained_copy / "run", run)
    monkeypatch.chdir(trained_copy / "text")
    arguments = ["--data_dir=.", "--source=dev.src", "--reference=dev.tgt", "--frequencies=train.tgt"]
    arguments += ["--samples=100", "--trials=100", "--beam_size=1"]
    assert compare.main([*arguments, str(run), f"{run}@latest", f"{run},{trained_copy}/run"]) == 0
    printed, told = capsys.readouterr()
    result = json.loads(printed)
    assert len(result["systems"]) == 3 and result["by_word_frequency"][-1]["from"] == 100
    assert (
        f"checkpoint: latest, step 250 of {run}" in told and f"checkpoint: best, step 250 of {trained_copy}/run" in told
    )


def test_runs_are_translated_and_compared_with_a_file(trained_copy, tmp_path, capsys):
    folder = trained_copy / "text"
    arguments = [f"--source={folder}/dev.src", f"--reference={folder}/dev.tgt", "--samples=100", "--trials=100"]
    systems = [f"{trained_copy}/run", f"{trained_copy}/run@ema", f"{folder}/dev.tgt"]
    assert compare.main([*arguments, "--beam_size=1", *systems]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["bleu"] > 90 for row in result["systems"]] == [True] * 3
    assert result["systems"][2]["bleu"] == pytest.approx(100.0)


def test_a_later_run_that_cannot_be_used_is_found_before_the_first_translates(trained_copy, tmp_path, capsys):
    folder, other = trained_copy / "text", tmp_path / "run"
    shutil.copytree(trained_copy / "run", other, ignore=shutil.ignore_patterns("checkpoints"))
    arguments = [f"--source={folder}/dev.src", f"--reference={folder}/dev.tgt", f"{trained_copy}/run", str(other)]
    assert compare.main(arguments) == 2
    told = capsys.readouterr().err
    assert "translating 24 lines" not in told and f"{other}/checkpoints has no best checkpoint" in told


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{text}/bad"], "At least two systems must be given"),
        (["{text}/bad", "{text}/good"], "--target_language must be given where all systems are files"),
        (["--target_language=en", "{text}/bad", "{text}/short"], "short has 1 lines and the source 40"),
        (["--target_language=en", "{text}/bad", "{text}"], "is no run directory, which has a config.json, and no file"),
        (["--target_language=en", "{text}/bad", "{text}/none"], "none is no run directory"),
        (["--target_language=en", "{text}/bad", "{text}/good", "--page=/proc/x/a.html"], "Cannot write /proc/x/a.html"),
    ],
)
def test_what_cannot_be_compared_is_one_line(text, arguments, message, capsys):
    (text / "short").write_text("one\n")
    assert compare.main(_arguments(text, *(each.format(text=text) for each in arguments))) == 2
    printed, told = capsys.readouterr()
    assert printed == "" and message in told.splitlines()[-1]
    assert "Traceback" not in told

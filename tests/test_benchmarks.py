"""What the benchmarks say to a mistake, before they install or measure anything."""

import collections
import gzip
import itertools
import json
import pathlib
import signal
import sys
import time

import pytest

from benchmarks import (
    ablation,
    fine_tuning,
    formats,
    glossary_file,
    gpu,
    measure,
    prepare,
    serving,
    speedrun,
    speedrun_peers,
    training_quality,
    training_speed,
    translation_quality,
    translation_speed,
)
from nmt_keras.errors import UserError


@pytest.mark.parametrize(
    "benchmark, arguments, message",
    [
        (training_speed, [], "--data_dir must be given: the folder of Multi30k"),
        (
            translation_speed,
            ["--data_dir={tmp}"],
            "--data_dir must be the folder of Multi30k; {tmp} has no train.en.gz",
        ),
        (training_speed, ["--data_dir={tmp}", "--only=("], "--only must be a regular expression. Received: '('"),
        (training_speed, ["--worker=x"], "--worker is for processes that this one starts: leave it out. Received: x"),
        (ablation, ["--data_dir={tmp}", "--rows=none"], "--rows has no none; valid ones: base, greedy"),
        (ablation, ["--data_dir={tmp}"], "--mono must be given, German text for 'back-translation'; or --rows without"),
        (fine_tuning, ["--data_dir={tmp}", "--domain=("], "--domain must be a regular expression. Received: '('"),
        (training_quality, [], "--data_dir must be given: the folder of Multi30k"),
        (speedrun, [], "--data_dir must be given: the folder of Multi30k"),
        (speedrun, ["--data_dir={tmp}", "--toolkit=joeynmt"], "folder of Multi30k; {tmp} has no train.en.gz"),
        (translation_quality, ["--run_dir={tmp}"], "--run_dir, --source and --reference must be given"),
        (
            translation_quality,
            ["--run_dir={tmp}", "--source=a", "--reference=b"],
            "There is no lexicon {tmp}/lexicon.npz, which `decoding.shortlist` needs; make it with",
        ),
        (serving, ["--run_dir={tmp}", "--input=a", "--saved_model={tmp}"], "{tmp} is no export of this toolkit; give"),
    ],
)
def test_a_mistake_is_one_line(benchmark, arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)  # of this process
    work = [f"--work={tmp_path}/work"] if benchmark in (training_speed, translation_speed, speedrun) else []
    assert benchmark.main([a.format(tmp=tmp_path) for a in arguments] + work) == 2
    [line] = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    assert message.format(tmp=tmp_path) in line
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("model", ["rnn", pytest.param("transformer", marks=pytest.mark.slow)])
def test_the_rows_of_a_gpu_run_on_a_cpu(model, tmp_path, capsys):
    given = ["--tiny", f"--models={model}", "--tokens=512", "--ways=off", f"--output={tmp_path}/rows.jsonl"]
    assert gpu.main(given) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["name"].split()[0] for row in rows] == ["train", "translate"], rows
    assert not any("failed" in row for row in rows) and rows[1]["sentences_per_s"] > 0


def test_results_of_other_settings_are_not_taken(tmp_path):
    measure.require_same(tmp_path / "new", {"steps": 1, "seeds": ["1"]})
    measure.require_same(tmp_path / "new", {"seeds": ["1"], "steps": 1})
    with pytest.raises(UserError, match=r'holds results of \{"seeds": \["1"\], "steps": 1\}: give these, or another'):
        measure.require_same(tmp_path / "new", {"steps": 2, "seeds": ["1"]})


def test_what_an_earlier_run_prepared_is_not_measured(tmp_path, capsys):
    (tmp_path / "beam").mkdir()
    assert prepare.main(["--pairs=1000", f"--folder={tmp_path}"]) == 2
    assert f"error: {tmp_path}/beam is there already, of an earlier run; remove it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["beam"]


def test_caches_with_different_files_are_told(tmp_path):
    for name, text in (("one", b"a"), ("beam", b"b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_bytes(b"x")
        (tmp_path / name / f"{name}.lock").touch()
        (tmp_path / name / "ids").write_bytes(text)
    with pytest.raises(UserError, match="different files, or one lacks them: ids; this is a bug"):
        prepare.require_same_files(tmp_path / "one", tmp_path / "beam")
    (tmp_path / "beam" / "ids").write_bytes(b"a")
    assert prepare.require_same_files(tmp_path / "one", tmp_path / "beam") == 2


def test_an_export_is_measured_against_the_run_it_was_made_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    (tmp_path / "parity.json").write_text('{"run_dirs": ["runs/other"], "precision": "float32", "shortlist": 0}')
    arguments = [f"--run_dir={tmp_path}", "--input=a", f"--saved_model={tmp_path}"]
    assert serving.main(arguments) == 2
    assert f"--run_dir must be what was exported, runs/other. Received: {tmp_path}" in capsys.readouterr().err


def test_a_clock_that_does_not_begin_at_the_text_is_refused(tmp_path, capsys):
    for name in ("train.en", "train.de", "val.en", "val.de"):
        (tmp_path / f"{name}.gz").touch()
    assert speedrun.main([f"--data_dir={tmp_path}", f"--run_dir={tmp_path}", "--toolkit=opennmt"]) == 2
    assert f"error: {tmp_path} is not empty: the clock runs from the raw text on" in capsys.readouterr().err


def test_evaluations_of_a_peer_are_taken_when_they_are_whole(tmp_path):
    (tmp_path / "eval").mkdir()
    texts = {"100": "▁Ein ▁Hund ▁rennt .\n▁a b\n", "20": "▁Ein\n\n", "300": "▁Ein\n▁Hu", "400": "▁Ein\n", "x": "a\nb\n"}
    for step, text in texts.items():
        (tmp_path / "eval" / f"predictions.txt.{step}").write_text(text, encoding="utf-8")
    found = list(speedrun_peers.evaluations(tmp_path, r"predictions\.txt\.(\d+)", 2))
    assert found == [(20, ["Ein", ""]), (100, ["Ein Hund rennt.", "ab"])]


_PEER = """
import pathlib, time
folder = pathlib.Path({folder!r})
folder.mkdir()
for step, text in ((60, "x"), (120, "▁Ein ▁kleiner ▁Hund ▁rennt .")):
    (folder / f"{{step}}.hyps").write_text(text + "\\n", encoding="utf-8")
time.sleep({seconds})
raise SystemExit({status})
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "target, seconds, status, is_reached", [(33, 60, 0, True), (101, 0, 0, False), (101, 0, 3, None)]
)
def test_a_peer_is_stopped_at_the_bleu_that_is_asked_for(
    target, seconds, status, is_reached, tmp_path, capsys, monkeypatch
):
    text = "Ein kleiner Hund rennt."
    for name in ("train.en", "train.de", "val.en", "val.de"):
        with gzip.open(tmp_path / f"{name}.gz", "wt", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def write_text(_, __, folder):
        for name in ("val.en", "val.de"):
            (folder / name).write_text("▁Ein ▁kleiner ▁Hund ▁rennt .\n", encoding="utf-8")

    def command(_, __, folder, ___):
        return [sys.executable, "-c", _PEER.format(folder=str(folder / "model"), seconds=seconds, status=status)]

    monkeypatch.setattr("benchmarks.peers.install", lambda *_: tmp_path)
    monkeypatch.setattr("benchmarks.peers.write_text", write_text)
    monkeypatch.setattr("benchmarks.speedrun_peers._command", command)
    given = [f"--data_dir={tmp_path}", f"--target={target}", "--toolkit=joeynmt"]
    assert speedrun.main(given) == (2 if is_reached is None else 0)
    out, err = capsys.readouterr()
    if is_reached is None:
        assert "error: joeynmt ended with status 3; read " in err
        return
    result = json.loads(out.strip().split("\n")[-1])
    assert (result["toolkit"], result["is_reached"], result["step"]) == ("joeynmt", is_reached, 120)
    assert [row["dev_bleu"] for row in result["curve"]] == [0.0, 100.0]


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_the_clock_of_a_peer_counts_its_children(tmp_path):
    work = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    program = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}]); print(1, flush=True)"
    with open(tmp_path / "log", "w") as log:
        process = measure.start_pinned([sys.executable, "-c", f"{program}; time.sleep(60)"], 1, log, has_session=True)
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    seconds = speedrun_peers.session_seconds(process.pid)
    speedrun_peers.end(process)
    assert 0.3 <= seconds < 30.0
    assert process.returncode == -signal.SIGTERM
    assert speedrun_peers.session_seconds(process.pid) == 0.0


def test_what_a_process_says_to_its_user_is_said_again():
    program = "import sys; print('at work'); sys.exit('error: no lexicon; make it')"
    with pytest.raises(UserError, match="^no lexicon; make it$"):
        measure.run_pinned([sys.executable, "-c", program], threads=1)
    with pytest.raises(UserError, match="ended with status 1; read .*log$"):
        measure.run_pinned([sys.executable, "-c", "raise ValueError"], threads=1)


@pytest.mark.parametrize("ours, expected", [(100, 2.0), (98, 2.0), (97, None), (150, 2.0)])
def test_a_model_of_fewer_weights_gets_no_ratio(ours, expected):
    assert measure.ratio(20.0, 10.0, (ours, 100)) == expected


@pytest.mark.parametrize("is_random", [False, True])
def test_a_glossary_has_words_that_are_translations_of_each_other(is_random):
    words = {"dog": "Hund", "cat": "Katze", "horse": "Pferd", "street": "Straße", "house": "Haus"}
    pairs = list(itertools.permutations(words, 3))
    sources = [f"The {' '.join(each)} runs." for each in pairs]
    targets = [f"Das {' '.join(words[word] for word in each)} rennt." for each in pairs]
    extra = (["The wild boar dog."] * 9, ["Das Wildschwein Hund."] * 9)
    entries = glossary_file.drawn(sources, targets, sources + extra[0], targets + extra[1], is_random)
    known = {**words, "wild boar": "Wildschwein", "The": "Das", "runs": "rennt"}
    assert entries and all(known[source] == target for source, target in entries)
    assert is_random or ("wild boar", "Wildschwein") in entries


def test_files_in_the_shapes_of_real_projects_are_read_and_bad_ones_refused(capsys):
    assert formats.main(["--pairs=20"]) == 0
    rows = json.loads(capsys.readouterr().out.strip().rpartition("\n")[2])["rows"]
    counts = collections.Counter(row["pairs"] for row in rows)  # a tenth of XLIFF is new, two of PO, which has a plural
    assert counts == {20: 22, 18: 2, 17: 1, "refused": 10}
    assert all("; " in row["said"] or ": " in row["said"] for row in rows if row["pairs"] == "refused")

"""The doctor as a job, and before a training."""

import json
import pathlib

import pytest

from examples.quickstart.corpus import demo_corpus
from pipelines import doctor, train

RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """{train,dev}.{en,zh}: clean text of the project's own; and a target that lacks line 701."""
    place = tmp_path_factory.mktemp("text")
    pairs = [pair for pair in demo_corpus(num_train=2000).train if len(pair[0]) > 12][:1500]
    for side, language in enumerate(("en", "zh")):
        lines = [pair[side] + "\n" for pair in pairs]
        for name, part in (("train", lines[:1400]), ("dev", lines[1400:])):
            (place / f"{name}.{language}").write_text("".join(part), encoding="utf-8")
        (place / f"shifted.{language}").write_text("".join(lines[:700] + lines[701:1401] if side else lines[:1400]))
    return place


def _run(folder, tmp_path, capsys, *arguments, train_text="train"):
    replaced = {argument.partition("=")[0] for argument in arguments}
    given = [
        f"--source={folder}/{train_text}.en",
        f"--target={folder}/{train_text}.zh",
        "--source_language=en",
        "--target_language=zh",
    ]
    given = [argument for argument in given if argument.partition("=")[0] not in replaced] + list(arguments)
    status = doctor.main(given)
    out = capsys.readouterr()
    return status, json.loads(out.out.strip().split("\n")[-1]) if out.out else None, out.err


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_clean_text_ends_with_status_0_and_suggestions(folder, tmp_path, capsys):
    dev = [f"--dev_source={folder}/dev.en", f"--dev_target={folder}/dev.zh"]
    status, report, errors = _run(folder, tmp_path, capsys, *dev, f"--output={tmp_path}/report.json")
    assert (status, report["serious"], report["findings"]) == (0, 0, [])
    assert report == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["lines"].values()) == {1400}
    assert (
        report["lengths"]["source"]["p50"] <= report["lengths"]["source"]["p99"] <= report["lengths"]["source"]["p100"]
    )
    assert set(report["suggested"]) == {"max_source_length", "max_target_length", "batch_tokens"}
    assert report["unknown_pieces"].keys() == {f"{folder}/dev.en", f"{folder}/dev.zh"}
    assert "nothing found" in errors and "suggested: max_source_length=" in errors


def test_a_serious_finding_ends_with_status_1(folder, tmp_path, capsys):
    status, report, errors = _run(folder, tmp_path, capsys, train_text="shifted")
    assert (status, report["serious"]) == (1, 1)
    [finding] = report["findings"]
    assert finding["kind"] == "shift" and finding["first_lines"][0] == 701
    assert "serious: " in errors and "from line 701 to the end the source is shifted by 1 line" in errors


def test_what_was_examined_is_not_examined_again(folder, tmp_path, capsys, monkeypatch):
    first = _run(folder, tmp_path, capsys, train_text="shifted")
    monkeypatch.setattr("nmt_keras.doctor.examination.Doctor.examine", lambda *_: pytest.fail("examined again"))
    assert _run(folder, tmp_path, capsys, train_text="shifted")[:2] == first[:2]


def test_other_counts_are_reported_and_not_only_refused(folder, tmp_path, capsys):
    lines = (folder / "train.zh").read_text(encoding="utf-8").split("\n")
    (tmp_path / "short.zh").write_text("\n".join(lines[:300] + lines[301:]), encoding="utf-8")
    status, report, errors = _run(folder, tmp_path, capsys, f"--target={tmp_path}/short.zh")
    assert status == 1 and {finding["kind"] for finding in report["findings"]} == {"line count", "shift"}
    assert "from line 301 to the end" in errors and "lengths" not in report


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--source=", "--target="],
            "must be given in one way, as --source=train.en --target=train.de, as --data=pairs",
        ),
        (
            ["--data=pairs.tsv"],
            "--source and --data are; leave one out, and give the codes of languages as --source_language",
        ),
        (["--source=", "--target=", "--data=a", RECIPE], "--config: --config and --data are; leave one out"),
        (["--source=", "--target=", "--data=a,b,c"], "--data is one file of pairs, or two with a comma, source first"),
        (["--dev_target=x"], "--dev_source and --dev_target must be given together"),
        (["--test_target=x"], "--test_source and --test_target must be given together"),
        (["--source=/nowhere/x"], "Cannot read /nowhere/x: No such file or directory"),
        (["--source=", "--target=", "--config=nowhere.py"], "nowhere.py"),
    ],
)
def test_a_mistake_is_one_line(folder, tmp_path, capsys, arguments, message):
    status, report, errors = _run(folder, tmp_path, capsys, *arguments)
    assert status == 2 and report is None
    assert errors.strip().startswith("error: ") and message in errors and errors.count("\n") == 1


def _train(folder, tmp_path, *arguments):
    texts = [f"--config.data.{name}={value}" for name, value in (("source_language", "en"), ("target_language", "zh"))]
    for side, language in (("source", "en"), ("target", "zh")):
        texts += [f"--config.data.train_{side}=('shifted.{language}',)", f"--config.data.dev_{side}=dev.{language}"]
    common = [f"--run_dir={tmp_path}/run", f"--data_dir={folder}", "--config.training.max_steps=1"]
    return train.main([RECIPE, *common, *texts, "--config.model.d_model=8", *arguments])


def test_training_refuses_text_with_serious_faults_and_writes_nothing(folder, tmp_path, capsys):
    assert _train(folder, tmp_path, "--config.data.on_findings=refuse") == 1
    errors = capsys.readouterr().err
    assert "doctor, serious: " in errors and "from line 701 to the end" in errors
    error = errors.strip().split("\n")[-1]
    assert error == (
        "error: The training text has serious faults, listed above: shift; mend it, or go on with "
        "--config.data.on_findings=report"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("choice", ["report", pytest.param("ignore", marks=pytest.mark.slow)])
def test_training_goes_on_where_it_is_told_to(folder, tmp_path, capsys, choice):
    rising = ["--config.training.schedule=cosine", "--config.training.warmup_steps=100"]
    assert _train(folder, tmp_path, f"--config.data.on_findings={choice}", *rising) == 0
    errors = capsys.readouterr().err
    assert ("doctor, serious: " in errors) == (choice == "report")
    assert "warning: the learning rate rises until step 100 (training.warmup_steps), and training ends at" in errors


def test_all_lines_are_in_the_file_and_a_clean_copy_is_written(folder, tmp_path, capsys):
    source, target = ((folder / f"train.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("en", "zh"))
    dev = [(folder / f"dev.{side}").read_text(encoding="utf-8").split("\n")[0] for side in ("en", "zh")]
    for line in range(100, 1300, 60):
        target[line] = ""
    source[300], target[300] = source[200], target[200]
    source[410] = dev[0].upper()
    for side, lines in (("en", source), ("zh", target)):
        (tmp_path / f"dirty.{side}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    status, report, errors = _run(
        folder,
        tmp_path,
        capsys,
        f"--source={tmp_path}/dirty.en",
        f"--target={tmp_path}/dirty.zh",
        f"--dev_source={folder}/dev.en",
        f"--dev_target={folder}/dev.zh",
        f"--output={tmp_path}/report.json",
        f"--fix={tmp_path}/clean",
    )
    whole = {f["kind"]: f for f in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["findings"]}
    assert whole["empty side"]["lines"] == list(range(101, 1301, 60)) and "lines" not in report["findings"][0]
    assert report["fixed"] == [{"kept": 1400 - 22, "empty side": 20, "duplicate": 1, "overlap": 1}]
    assert "fixed: 1,378 pairs are in" in errors
    kept = [line for line in range(1400) if line not in (*range(100, 1300, 60), 300, 410)]
    assert (tmp_path / "clean" / "dirty.zh").read_text(encoding="utf-8").split("\n")[:-1] == [target[i] for i in kept]
    dropped = (tmp_path / "clean" / "dropped.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(dropped) == 23 and any(line.startswith("411\toverlap\t") for line in dropped)
    again = [f"--source={tmp_path}/clean/dirty.en", f"--target={tmp_path}/clean/dirty.zh"]
    assert _run(folder, tmp_path, capsys, *again)[:2][1]["findings"] == []


def test_a_language_that_is_not_given_is_not_called_unknown(folder, tmp_path, capsys):
    assert doctor.main([f"--source={folder}/train.en", f"--target={folder}/train.zh"]) == 0
    assert "is not known" not in capsys.readouterr().err
    assert doctor.main([f"--source={folder}/train.en", f"--target={folder}/train.zh", "--source_language=qq"]) == 0
    assert "the script of language 'qq' is not known" in capsys.readouterr().err


def test_a_table_is_examined_by_the_lines_of_its_file(folder, tmp_path, capsys):
    sides = [(folder / f"train.{side}").read_text(encoding="utf-8").split("\n")[:300] for side in ("en", "zh")]
    rows = ["\t".join(pair) for pair in zip(*sides)]
    rows[100:100] = ["broken", rows[50]]
    (tmp_path / "pairs.tsv").write_text("\n".join(["en\tzh", *rows]) + "\n", encoding="utf-8")
    _, report, errors = _run(folder, tmp_path, capsys, "--source=", "--target=", f"--data={tmp_path}/pairs.tsv")
    finding = next(finding for finding in report["findings"] if finding["kind"] == "duplicate")
    assert "103 repeats 52" in finding["text"] and finding["first_lines"] == ["103"]
    assert report["lines"] == {f"{tmp_path}/pairs.tsv": 301}

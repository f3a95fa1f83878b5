"""No job writes over a file that it reads."""

import pytest

from pipelines import augment, compare, doctor, encode, evaluate, score, translate


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a text, its translation, and links to both."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.src", "a.tgt", "text.yy", "terms.tsv"):
        (tmp_path / name).write_text("a\tb\n" if name == "terms.tsv" else "a b\nb a\n")
    (tmp_path / "link").symlink_to("a.tgt")
    return tmp_path


@pytest.mark.parametrize(
    "job, arguments",
    [
        (evaluate, "--source=a.src --reference=a.tgt --translations=link"),
        (evaluate, "--source=a.src --reference=a.tgt --output=a.src"),
        (evaluate, "--data_dir={folder} --source=a.src#1 --reference=text.yy,a.tgt --output=a.tgt"),
        (evaluate, "--source=a.src --reference=a.tgt --glossary=terms.tsv --output=terms.tsv"),
        (compare, "--target_language=en --source=a.src --reference=a.tgt --page=a.src link text.yy"),
        (compare, "--target_language=en --source=a.src --reference=a.tgt --output=text.yy link text.yy"),
        (
            compare,
            "--target_language=en --source=a.src --reference=a.src --frequencies=a.tgt --page=link a.src text.yy",
        ),
        (score, "--source=a.src --target=a.tgt --output=link"),
        (score, "--source=a.src --target=a.tgt --output=a.src"),
        (encode, "--input=a.src --output=a.src"),
        (translate, "--input=a.tgt --output=link"),
        (augment, "--input=text.yy --output_dir=."),
        (doctor, "--source=a.src --target=a.tgt --source_language=xx --target_language=yy --output=link"),
    ],
)
def test_what_is_read_is_not_written(folder, trained_copy, capsys, job, arguments):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    given = arguments.format(folder=folder).split()
    if job not in (compare, doctor):
        given.append(f"--run_dir={trained_copy}/run")
    assert job.main(given) == 2
    [line] = capsys.readouterr().err.strip().split("\n")
    assert "is read, and would be lost: give another path to write to" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

"""Documents that people take for text files."""

import gzip
import os
import zipfile

import pytest

from nmt_keras.data.sources import open_pair
from nmt_keras.errors import UserError
from pipelines import translate


@pytest.fixture(params=["pairs.xlsx", "pairs.csv", "old.xls", "text.pdf", "text.rtf"])
def document(request, tmp_path):
    path = tmp_path / request.param
    if request.param.startswith("pairs"):  # a workbook keeps its form under another name
        with zipfile.ZipFile(path, "w") as workbook:
            workbook.writestr("[Content_Types].xml", "<Types/>")
            workbook.writestr("xl/workbook.xml", "<workbook/>")
    else:
        beginning = {"old.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "text.pdf": b"%PDF-1.7\n", "text.rtf": b"{\\rtf1"}
        path.write_bytes(beginning[request.param] + bytes(range(256)) * 9)
    return path


def test_a_document_is_no_corpus(document, tmp_path):
    (tmp_path / "plain.de").write_text("eins\n")
    for names in (
        (str(document), ""),
        (str(document), f"{tmp_path}/plain.de"),
        (f"{tmp_path}/plain.de", str(document)),
    ):
        with pytest.raises(UserError, match="is no text file, it is .*: save its text as plain text") as error:
            open_pair(*names, ("en", "de"), str(tmp_path / "cache"))
        assert str(error.value).startswith(str(document)) and "\n" not in str(error.value)
    assert not os.path.exists(tmp_path / "cache")


def test_a_document_is_not_translated(document, trained_copy, tmp_path, capsys):
    arguments = [f"--run_dir={trained_copy}/run", f"--output={tmp_path}/out"]
    assert translate.main([*arguments, f"--input={document}"]) == 2
    [line] = capsys.readouterr().err.strip().split("\n")
    assert f"{document} is no text file" in line and not (tmp_path / "out").exists()


def test_text_that_begins_so_later_and_packed_text_is_text(tmp_path):
    (tmp_path / "a.en").write_text("PK is a name\n%PDF-1.7\n")
    with gzip.open(tmp_path / "a.de.gz", "wt") as file:
        file.write("eins\nzwei\n")
    source, target = open_pair(f"{tmp_path}/a.en", f"{tmp_path}/a.de.gz", ("en", "de"), str(tmp_path / "cache"))
    assert len(source) == len(target) == 2

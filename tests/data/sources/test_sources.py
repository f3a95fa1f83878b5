"""Parallel text out of every format: what is read, what is left out, and what is wrong with a file, in one line."""

import bz2
import gzip
import json
import lzma
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
import zstandard

from nmt_keras.data.sources import open_pair
from nmt_keras.doctor.cleaning import write_clean_copy
from nmt_keras.doctor.examination import Doctor
from nmt_keras.errors import UserError

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header creationtool="test" srclang="en" segtype="sentence"/><body>
<tu tuid="1"><prop type="x">not text</prop>
  <tuv xml:lang="en-GB"><seg>Press <bpt i="1" type="bold">&lt;b&gt;</bpt>Save<ept i="1">&lt;/b&gt;</ept> &amp; go<ph
   x="2">{0}</ph>.</seg></tuv>
  <tuv xml:lang="de"><seg>Drücken Sie <bpt i="1">&lt;b&gt;</bpt>Sichern<ept i="1">&lt;/b&gt;</ept> und
 los<ph x="2">{0}</ph>.</seg></tuv>
  <tuv xml:lang="fr"><seg>Oui</seg></tuv>
</tu>
<tu><tuv xml:lang="en"><seg>Only English</seg></tuv></tu>
<tu><tuv lang="DE-de"><seg>Hund</seg></tuv><tuv lang="EN"><seg>dog</seg></tuv></tu>
</body></tmx>
"""
XLIFF1 = """<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
<file source-language="en" target-language="de-DE" datatype="plaintext" original="a"><body>
<trans-unit id="1"><source>Open <g id="1">it</g></source><target state="translated">Öffne <g id="1">es</g></target>
<alt-trans><source>Open</source><target>Auf</target></alt-trans></trans-unit>
<trans-unit id="2"><source>New</source><target state="needs-translation">New</target></trans-unit>
<trans-unit id="3"><source>None</source></trans-unit>
<trans-unit id="4"><source>Two<x id="a"/></source><target>Zwei<x id="a"/></target></trans-unit>
</body></file></xliff>
"""
XLIFF2 = """<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" trgLang="de">
<file id="f"><unit id="1">
<segment state="final"><source>One</source><target>Eins</target></segment>
<segment state="initial"><source>Two</source><target>Two</target></segment>
</unit></file></xliff>
"""
PO = r"""# translators
msgid ""
msgstr ""
"Language: de\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: a.c:1
msgid "Open the "
"file"
msgstr "Öffne die Datei"

#, fuzzy
msgid "Close"
msgstr "Schluss"

msgid "Later"
msgstr ""

msgid "%d line"
msgid_plural "%d lines"
msgstr[0] "%d Zeile"
msgstr[1] "%d Zeilen"

#~ msgid "Old"
#~ msgstr "Alt"
"""
SGM = """<srcset setid="t" srclang="en">
<doc docid="1">
<p>
<seg id="1">Tom &amp; Ann</seg>
<seg id="2"> two
lines </seg>
</p>
</doc></srcset>
"""
REFERENCES = """<refset setid="t" srclang="en" trglang="de">
<DOC sysid="A" docid="1"><seg id="1">Tom und Anna</seg><seg id="2">zwei Zeilen</seg></DOC>
<DOC sysid="B" docid="1"><seg id="1">Tom &amp; Anna</seg><seg id="2">2 Zeilen</seg></DOC></refset>
"""
WMT = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="wmt"><doc origlang="en" id="d1">
<src lang="en"><p><seg id="1">One.</seg><seg id="2">Two.</seg></p></src>
<ref lang="de" translator="A"><p><seg id="1">Eins.</seg><seg id="2">Zwei.</seg></p></ref>
<ref lang="de" translator="B"><p><seg id="1">1.</seg><seg id="2">2.</seg></p></ref>
<hyp system="x" language="de"><p><seg id="1">Falsch.</seg><seg id="2">Falsch.</seg></p></hyp>
</doc><doc origlang="en" id="d2"><src lang="en"><p><seg id="1">Three.</seg></p></src></doc></dataset>
"""


@pytest.fixture
def read(tmp_path):
    """Writes files, opens a pair, and gives its texts with the places of its lines and the remarks."""

    def read(source, target="", languages=("en", "de"), keep_tags=False, **content):
        for name, data in content.items():
            path = tmp_path / name.replace("__", ".")
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        names = (str(tmp_path / source), target and str(tmp_path / target))
        pair = open_pair(*names, languages, str(tmp_path / "cache"), keep_tags=keep_tags)
        return pair

    return read


def _pairs(pair):
    return list(zip(*(text.lines(range(len(text))) for text in pair)))


def _places(pair):
    return [pair[0].place(index) for index in range(len(pair[0]))]


def _remarks(pair):
    return " ".join(pair[0].origin.remarks)


def test_columns_of_a_table_are_found_by_language_role_name_or_number(read):
    plain = read("a.tsv", a__tsv='dog\t"Hund"\nhalf\n\ncat\tKatze\tmore\r\n')
    assert _pairs(plain) == [("dog", '"Hund"'), ("cat", "Katze")] and _places(plain) == ["1", "4"]
    assert "fewer than 2 columns (2)" in _remarks(plain) and "an empty line (3)" in _remarks(plain)
    assert _pairs(read("b.tsv", b__tsv="id\tDE\ten\n1\tHund\tdog\n")) == [("dog", "Hund")]
    assert _pairs(read("c.csv", c__csv="id;source;target\n1;dog;Hund\n")) == [("dog", "Hund")]
    numbered = read("d.tsv#3", "d.tsv#1", d__tsv="Hund\tx\tdog\n")
    assert _pairs(numbered) == [("dog", "Hund")]
    text = "source;target\n" + "a dog, a cat, and | a pig;ein Hund, eine Katze und | ein Schwein\n" * 3
    assert _pairs(read("f.csv", f__csv=text))[0] == (
        "a dog, a cat, and | a pig",
        "ein Hund, eine Katze und | ein Schwein",
    )
    text = "Hello, you, there;Hallo, du, da\n" * 3  # no header; as many commas in each row
    assert _pairs(read("g.csv", g__csv="One, two;Eins\n" + text))[1] == ("Hello, you, there", "Hallo, du, da")
    named = read("e.csv#english text", "e.csv#german", e__csv="german,english text\nHund,dog\n")
    assert _pairs(named) == [("dog", "Hund")] and _places(named) == ["2"]


def test_quotes_and_line_ends_in_csv(read):
    pair = read("a.csv", a__csv='en,de\n"He said ""no"",\nand left.",Er ging.\nyes,ja\n')
    assert _pairs(pair) == [('He said "no", and left.', "Er ging."), ("yes", "ja")]
    assert _places(pair) == ["2", "4"]


def test_json_lines_with_fields_inside_fields(read):
    rows = [
        {"id": 1, "translation": {"en": "dog", "de": "Hund"}},
        {"translation": {"en": "cat"}},
        {"translation": {"en": "a\nb\ud800", "de": "c"}},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    pair = read("a.jsonl", a__jsonl=content)
    assert _pairs(pair) == [("dog", "Hund"), ("a b\ufffd", "c")] and _places(pair) == ["1", "3"]
    assert "no field 'translation.de' (2)" in _remarks(pair)
    assert _pairs(read("b.jsonl#x.y", "b.jsonl#z", b__jsonl='{"x": {"y": "1"}, "z": "2"}\n')) == [("1", "2")]


def test_a_translation_memory(read):
    pair = read("a.tmx", a__tmx=TMX)
    assert _pairs(pair) == [("Press Save & go.", "Drücken Sie Sichern und  los."), ("dog", "Hund")]
    assert _places(pair) == ["4", "12"] and "no text in de (11)" in _remarks(pair)
    kept = read("a.tmx", keep_tags=True)
    assert _pairs(kept)[0] == ("Press <1>Save</1> & go<2/>.", "Drücken Sie <1>Sichern</1> und  los<2/>.")
    assert _pairs(read("a.tmx#en-GB", "a.tmx#fr", ("en", "fr"))) == [("Press Save & go.", "Oui")]


def test_xliff_of_both_kinds(read):
    pair = read("a.xlf", a__xlf=XLIFF1)
    assert _pairs(pair) == [("Open it", "Öffne es"), ("Two", "Zwei")] and _places(pair) == ["3", "7"]
    assert "state needs-translation (5)" in _remarks(pair) and "no text in de (6)" in _remarks(pair)
    assert _pairs(read("a.xlf", keep_tags=True))[0] == ("Open <1>it</1>", "Öffne <1>es</1>")
    turned = read("a.xlf", languages=("de", "en"))
    assert _pairs(turned)[0] == ("Öffne es", "Open it")
    assert _pairs(read("b.xliff", b__xliff=XLIFF2)) == [("One", "Eins")]


def test_po_without_fuzzy_and_untranslated_entries(read):
    pair = read("de.po", de__po=PO)
    assert _pairs(pair) == [("Open the file", "Öffne die Datei"), ("%d line", "%d Zeile"), ("%d lines", "%d Zeilen")]
    assert _places(pair) == ["8", "20", "20"]
    assert all(kind in _remarks(pair) for kind in ("a fuzzy", "an untranslated", "an obsolete"))
    assert _pairs(read("de.po", languages=("de", "en")))[0] == ("Öffne die Datei", "Open the file")


def test_test_sets_of_wmt(read):
    pair = read("s.sgm", "r.sgm", s__sgm=SGM, r__sgm=REFERENCES)
    assert _pairs(pair) == [("Tom & Ann", "Tom und Anna"), ("two lines", "zwei Zeilen")]
    assert _pairs(read("s.sgm", "r.sgm#B"))[1] == ("two lines", "2 Zeilen")
    pair = read("w.xml", w__xml=WMT)
    assert _pairs(pair) == [("One.", "Eins."), ("Two.", "Zwei.")] and "no source, or no translation" in _remarks(pair)
    assert _pairs(read("w.xml", "w.xml#B")) == [("One.", "1."), ("Two.", "2.")]


def _sgm(*segments):
    """A file of segments: of each the ids of its document and its own, which may be None, and its text."""
    parts = []
    for document, own, text in segments:
        docid, segid = (
            "" if value is None else f' {name}="{value}"' for name, value in (("docid", document), ("id", own))
        )
        parts.append(f"<doc{docid}>\n<seg{segid}>{text}</seg></doc>\n")
    return "".join(parts)


def test_segments_of_wmt_are_matched_by_their_ids(read):
    source = _sgm(("a b", 1, "one"), ("a b", 2, "two"), ("c", 1, "three"))
    other = _sgm(("c", 1, "drei"), ("C", 2, "mehr"), ("A B", 1, "eins"))
    pair = read("s.sgm", "r.sgm", s__sgm=source, r__sgm=other)
    assert _pairs(pair) == [("one", "eins"), ("two", ""), ("three", "drei")]
    assert pair[1].origin.remarks == (
        f"{pair[1].origin.name}: 1 record left out: no segment with the ids of the source's at its line (4)",
        f"{pair[1].origin.name}: 1 record left out: the source has no segment with its ids (4)",
    )
    changed = _sgm(("c", 1, "three"), ("a b", 1, "one"))  # the cache knows that the source is another one
    assert _pairs(read("s.sgm", "r.sgm", s__sgm=changed)) == [("three", "drei"), ("one", "eins")]


def test_segments_of_wmt_without_ids_are_matched_by_place(read):
    source = _sgm((None, None, "one"), (None, None, "two"))
    for other in (_sgm((None, None, "eins"), (None, None, "zwei")), _sgm(("x", 1, "eins"), ("x", 2, "zwei"))):
        assert _pairs(read("s.sgm", "r.sgm", s__sgm=source, r__sgm=other)) == [("one", "eins"), ("two", "zwei")]
    repeated = _sgm(("x", 1, "one"), ("x", 1, "two"))
    other = _sgm(("x", 1, "eins"), ("x", 1, "zwei"))
    assert _pairs(read("s.sgm", "r.sgm", s__sgm=repeated, r__sgm=other)) == [("one", "eins"), ("two", "zwei")]


def test_files_of_two_test_sets_of_wmt_are_refused(read):
    with pytest.raises(UserError, match="r.sgm has no document with a segment whose ids .*s.sgm has too: give the"):
        read("s.sgm", "r.sgm", s__sgm=_sgm(("a", 1, "one")), r__sgm=_sgm(("b", 1, "eins")))


def test_parquet_and_saved_data_sets(read, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = [
        {"translation": {"en": "dog", "de": "Hund"}},
        {"translation": None},
        {"translation": {"en": "x", "de": "y"}},
    ]
    table = arrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "a.parquet")
    pair = read("a.parquet")
    assert _pairs(pair) == [("dog", "Hund"), ("x", "y")] and _places(pair) == ["1", "3"]
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    for number in range(2):
        with arrow.OSFile(str(folder / f"data-{number}.arrow"), "wb") as file:
            with arrow.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder.parent / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    pair = read("saved/train")
    assert _pairs(pair) == [("dog", "Hund"), ("x", "y")] * 2 and _places(pair) == ["1", "3", "4", "6"]
    with pytest.raises(UserError, match=r"saved has the splits train, test: name one, \S+saved/train$"):
        read("saved")
    (folder.parent / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert _pairs(read("saved")) == _pairs(pair)


def test_stems_and_packed_text(read, tmp_path):
    assert _pairs(read("c", "c", c__en="dog\n", c__de="Hund\n")) == [("dog", "Hund")]
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}
    for suffix, pack in packers.items():
        (tmp_path / f"p.en.{suffix}").write_bytes(pack("dog\n".encode()))
        (tmp_path / f"p.de.{suffix}").write_bytes(pack(f"Hund {suffix}\n".encode()))
        assert _pairs(read(f"p.en.{suffix}", f"p.de.{suffix}")) == [("dog", f"Hund {suffix}")]
        (tmp_path / f"p.tsv.{suffix}").write_bytes(pack(f"dog\tHund {suffix}\n".encode()))
        assert _pairs(read(f"p.tsv.{suffix}")) == [("dog", f"Hund {suffix}")]
    assert _pairs(read("p")) == [("dog", "Hund gz")]


def test_a_zip_file_of_opus(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr("README", "read me")
        archive.writestr("Books.de-en.en", "dog\n")
        archive.writestr("Books.de-en.de", "Hund\n")
        archive.writestr("Books.de-en.xml", "<not>text</not>")
    pair = read("o.zip")
    assert _pairs(pair) == [("dog", "Hund")] and pair[0].path.endswith("o.zip/Books.de-en.en")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("x/en-de.tmx", TMX)
    assert _pairs(read("t.zip"))[1] == ("dog", "Hund")


def test_a_pattern_reads_its_files_one_after_the_other(read):
    pair = read(
        "s*.en", "s*.de", s2__en="c", s2__de="C\n", s1__en="a\nb \u2028 \n", s1__de=b"\xef\xbb\xbfA\nB \xff\r\n"
    )
    assert _pairs(pair) == [("a", "A"), ("b \u2028 ", "B \ufffd"), ("c", "C")]
    assert [place.rpartition("/")[2] for place in _places(pair)] == ["s1.en:1", "s1.en:2", "s2.en:1"]
    tables = read("t*.tsv", t1__tsv="a\tA\n", t2__tsv="b\tB\n")
    assert _pairs(tables) == [("a", "A"), ("b", "B")]
    with pytest.raises(UserError, match=r"s1\.en has 2 lines and \S+s1\.de has 1; they must be aligned"):
        read("s*.en", "s*.de", s1__de="A\n")
    with pytest.raises(UserError, match="^No file fits the pattern .*none"):
        read("none*.en", "none*.de")
    with pytest.raises(UserError, match=r"fits 2 files and \S+ 1; each must have its translation"):
        read("s*.en", "s1*.de")


def test_a_side_of_a_table_keeps_its_places(read):
    pair = read("a.tsv#2", "b.de", a__tsv="1\tdog\n2\n3\tcat\n", b__de="Hund\n\nKatze\n")
    assert _pairs(pair) == [("dog", "Hund"), ("", ""), ("cat", "Katze")]
    with pytest.raises(UserError, match=r"a\.tmx holds both sides of a corpus, .*: name it for both sides$"):
        read("a.tmx", "b.de", a__tmx=TMX)
    with pytest.raises(UserError, match=r"b\.de holds one side of a corpus, and the other was not given"):
        read("b.de")


def test_a_conversion_is_kept_until_the_file_changes(read, monkeypatch):
    first = read("a.tsv", a__tsv="dog\tHund\n")
    monkeypatch.setattr("nmt_keras.data.sources._convert", lambda *_: pytest.fail("converted again"))
    assert _pairs(read("a.tsv")) == _pairs(first)
    monkeypatch.undo()
    assert _pairs(read("a.tsv", a__tsv="cat\tKatze\n")) == [("cat", "Katze")]


def test_the_doctor_names_lines_of_the_users_file(read, tmp_path):
    rows = [f"line number {n}\tZeile Nummer {n}" for n in range(30)]
    pair = read(
        "a.tsv", a__tsv="\n".join(["en\tde", "broken", *rows, "a longer line\ta longer line", "x\t", *rows[:1]])
    )
    findings = {finding.kind: finding for finding in Doctor("en", "de").examine(*pair)}
    assert findings["copy"].first_lines == ["33"] and "(33)" in findings["copy"].text
    assert findings["empty side"].first_lines == ["34"] and findings["duplicate"].first_lines == ["35"]
    assert "35 repeats 3" in findings["duplicate"].text
    write_clean_copy(*pair, list(findings.values()), tmp_path / "clean")
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["a.tsv.de", "a.tsv.en", "dropped.tsv"]
    dropped = (tmp_path / "clean" / "dropped.tsv").read_text(encoding="utf-8")
    assert "34\tempty side" in dropped and "35\tduplicate" in dropped


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><tmx><body>&b;</body></tmx>'
BAD = {
    "truncated.tmx": (TMX[:500], "line [0-9]+: no sound XML .*truncated"),
    "entities.tmx": (BOMB, "declares entities, which are not read"),
    "languages.tmx": (TMX.replace('"de"', '"nl"').replace("DE-de", "nl"), "no text in en and de; its languages: "),
    "encoding.tmx": (TMX.encode("latin-1"), "no sound XML .*another encoding than it says"),
    "no.tmx": ("<html><body/></html>", "its languages: none, so that it may be no TMX file"),
    "languages.xlf": (XLIFF1.replace("de-DE", "nl"), "no text in en and de; it is from en to nl"),
    "truncated.xlf": (XLIFF1[:300], "no sound XML"),
    "bad.po": (PO.replace('msgstr ""\n\n', "msgstr\n\n", 1).replace('"Öffne', "Öffne"), "no sound PO file"),
    "other.po": (PO.replace("Language: de", "Language: nl"), "is in 'nl' by its header, and en and de was asked for"),
    "cut.po": (PO.replace('"Öffne die Datei"', '"Öffne die Datei'), r"no sound PO file \(.*a string has no end\)"),
    "encoding.po": (PO.encode("latin-1"), r"encoding.po, line 11: byte 0xd6 is no UTF-8.*: convert it, iconv -f"),
    "one.tsv": ("a\nb\n", r"has no pairs of text: 2 records left out: fewer than 2 columns"),
    "name.csv#nn": ("en,de\na,b\n", "has no column 'nn'; its first row is 'en', 'de'"),
    "quotes.csv": ('en,de\n"a,b\n', "line 2: .*; mend its quotes"),
    "latin.csv": (
        "en,de\nShe said hello,Er grüßte schön über alle Maßen\n".encode("latin-1"),
        "line 2: byte 0xfc .*iconv",
    ),
    "wide.tsv": ("dog\tHund\n".encode("utf-16"), "looks like UTF-16LE: convert it, iconv -f UTF-16LE"),
    "empty.tsv": ("", "has no pairs of text, it is empty; give text of both languages$"),
    "blank.tsv": ("\n\n", r"has no pairs of text: 2 records left out: an empty line"),
    "no.jsonl": ("not json\n", "line 1: no JSON"),
    "cut.jsonl": ('{"en": "a", "de": "b"}\n{"en": "a", "d', "line 2: no JSON"),
    "list.jsonl": ("[1]\n", "line 1: .* is no JSON object"),
    "field.jsonl": ('{"en": "a", "nl": "b"}\n', "has no field 'de' in its first object; its fields: en, nl"),
    "number.jsonl": ('{"en": "a", "de": 1}\n', "line 1: field 'de' is 1, and no text"),
    "nested.jsonl": (
        '{"translation": {"en": "a", "nl": "b"}}\n',
        "no field 'de' .*; its fields: translation.en, trans",
    ),
    "column.jsonl": ('{"en": "a", "d', r"no JSON \([^()]* at column 13\); each line must be an object"),
    "line.jsonl": ('{"en": "a", "d\n', r"no JSON \([^()]* at column 13\); each line must be an object"),
    "none.jsonl": ("{}\n", "no field 'en' in its first object; its fields: none: name one after #"),
    "deep.jsonl": ('{"en": ' + "[" * 100_000 + "\n", "line 1: no JSON"),
    "cut.parquet": (b"PAR1 and nothing more", "is no sound Parquet"),
    "cut.xml": (WMT[:500], "no sound XML"),
    "none.xml": (
        WMT.replace('lang="de"', 'lang="cs"'),
        "no text in en and de; its languages: cs, en; its translators: A, B",
    ),
    "cut.zip": (b"PK\3\4 and nothing more", "truncated or no zip file"),
    "cut.tsv.xz": (lzma.compress(b"a\tb\n" * 999)[:40], "truncated or no xz file"),
    "cut.tsv.bz2": (bz2.compress(b"a\tb\n" * 999)[:40], "truncated or no bz2 file"),
    "cut.tsv.zst": (zstandard.compress(os.urandom(999))[:40], "truncated or no zst file"),
    "none.tsv.gz": (b"dog\tHund\n", "truncated or no gz file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_leaves_nothing_in_the_cache(read, tmp_path, name):
    content, message = BAD[name]
    with pytest.raises(UserError, match=message) as raised:
        read(name, name.partition("#")[0], **{name.partition("#")[0].replace(".", "__"): content})
    assert "\n" not in str(raised.value) and name.partition("#")[0] in str(raised.value)
    assert [path.name for path in pathlib.Path(tmp_path / "cache").glob("*") if not path.name.endswith(".txt")] == []


_READ_DAMAGED = """
import pathlib, random, sys
from nmt_keras.data.sources import open_pair
from nmt_keras.errors import UserError
folder, rng = pathlib.Path(sys.argv[1]), random.Random(1)
file = next(folder.glob("*.arrow"))
whole, refused = file.read_bytes(), 0
for turn in range(30):
    damaged = bytearray(whole)
    for _ in range(2):
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
    file.unlink()
    file.write_bytes(damaged)
    try:
        open_pair(str(folder), "", ("en", "de"), f"{folder}/cache{turn}")
    except UserError as error:
        assert "is no sound saved data set" in str(error), error
        assert not list(pathlib.Path(f"{folder}/cache{turn}").glob("*")), "half written"
        refused += 1
print(refused)
"""


def test_a_damaged_saved_data_set_is_refused_and_does_not_end_the_process(tmp_path):
    import pyarrow as arrow

    schema = arrow.schema([("en", arrow.string()), ("de", arrow.string())])
    with arrow.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, arrow.ipc.new_stream(sink, schema) as writer:
        words = [f"word{number}" for number in range(20)]
        writer.write_batch(arrow.record_batch([words, words], schema=schema))
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    done = subprocess.run(
        [sys.executable, "-c", _READ_DAMAGED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


def test_a_column_that_is_not_read_may_be_damaged(tmp_path):
    import pyarrow as arrow

    broken = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.py_buffer(b"\0\0\0\0\1\0\0\0"), arrow.py_buffer(b"\xff")]
    )
    table = arrow.table({"en": ["dog"], "de": ["Hund"], "note": broken})
    with arrow.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    assert _pairs(open_pair(str(tmp_path), "", ("en", "de"), f"{tmp_path}/cache")) == [("dog", "Hund")]
    with pytest.raises(UserError, match="is no sound saved data set"):
        open_pair(f"{tmp_path}#note", f"{tmp_path}#de", ("en", "de"), f"{tmp_path}/cache")


def test_columns_of_categories_are_text(read, tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    words = arrow.array(["dog", "cat", "dog"])
    table = arrow.table({"en": words.dictionary_encode(), "de": words.cast(arrow.string_view())})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert _pairs(read("a.parquet")) == [("dog", "dog"), ("cat", "cat"), ("dog", "dog")]


@pytest.mark.parametrize(
    "end, message",
    [
        ("<se", r"r\.sgm: 2 <doc>s and 1 </doc>; it is truncated"),
        ("</refset>", r"r\.sgm: 1 <refset> and 0 </refset>; it is truncated"),
    ],
)
def test_a_test_set_that_is_cut_off_is_refused(read, end, message):
    with pytest.raises(UserError, match=message):
        read("s.sgm", "r.sgm", s__sgm=SGM, r__sgm=REFERENCES[: REFERENCES.rindex(end)])


def test_markup_in_a_segment_is_text_and_not_the_beginning_of_a_document(read):
    files = {"s__sgm": SGM.replace("Tom &amp; Ann", "a <doc> b"), "r__sgm": REFERENCES}
    assert _pairs(read("s.sgm", "r.sgm", **files))[0][0] == "a <doc> b"


@pytest.mark.parametrize(
    "tag, is_read", [("de", True), ("de-AT", True), ("German", True), ("any", True), ("nl", False)]
)
def test_the_language_of_a_test_set_is_that_of_its_header(read, tag, is_read):
    files = {"s__sgm": SGM, "r__sgm": REFERENCES.replace('trglang="de"', f'trglang="{tag}"')}
    if is_read:
        assert len(_pairs(read("s.sgm", "r.sgm", **files))) == 2
        return
    with pytest.raises(
        UserError, match=r"r\.sgm is in 'nl' by its refset, and 'de' was asked for: .* 'nl' as the code"
    ):
        read("s.sgm", "r.sgm", **files)


@pytest.mark.parametrize(
    "language, text, encoding", [("zh", "一只狗在草地上跑", "GB18030"), ("de", "Größe über schöne Häuser", "CP1252")]
)
def test_the_encoding_of_a_table_is_that_of_the_column_beyond_ascii(read, language, text, encoding):
    for languages in ((language, "en"), ("en", language), ("zh", "de"), ("de", "zh")):
        rows = f"{languages[0]}\t{languages[1]}\na dog\t{text}\n".encode(encoding)
        with pytest.raises(UserError, match=f"line 2: .*, and looks like {encoding}: convert it"):
            read("a.tsv", languages=languages, a__tsv=rows)


def test_a_memory_without_the_codes_of_its_languages_says_which_it_has(read):
    with pytest.raises(
        UserError, match="by the codes of its languages, which must be given; its languages: DE-de, EN, de, e"
    ):
        read("a.tmx", languages=("", ""), a__tmx=TMX)


def test_a_file_of_one_json_value_is_not_taken_for_text(read):
    with pytest.raises(
        UserError, match=r"is not read as JSON, .*: if each line is an object, give the file the ending \.jsonl"
    ):
        read("a.json", a__json='[{"en": "a", "de": "b"}]')


def test_both_sides_of_one_sgm_file_are_refused(read):
    with pytest.raises(UserError, match="has one side of a test set"):
        read("s.sgm", s__sgm=SGM)
    with pytest.raises(UserError, match="s.sgm has no segments by 'Z'"):
        read("s.sgm#Z", "r.sgm", r__sgm=REFERENCES)


@pytest.mark.parametrize("name", ["../up.en", "/root.en", "a\\b.en", "c:d.en"])
def test_a_zip_name_that_climbs_is_refused(read, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr(name, "dog\n")
    with pytest.raises(UserError, match="leads out of a folder: do not trust this file"):
        read("o.zip")
    assert not (tmp_path / "up.en").exists()


def test_a_packed_file_that_would_fill_the_disk_is_refused(read, tmp_path, monkeypatch):
    monkeypatch.setattr("nmt_keras.data.unpacking._BOMB_BYTES", 1 << 20)
    zeros = bytes(1 << 22)
    for suffix, pack in {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}.items():
        (tmp_path / f"b.en.{suffix}").write_bytes(pack(zeros))
        with pytest.raises(UserError, match="and unpacks to [0-9,]+ or more, over 200 times as many"):
            read(f"b.en.{suffix}", f"b.en.{suffix}")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.en", zeros)
    with pytest.raises(UserError, match="over 200 times as many"):
        read("b.zip")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_zip_file_without_the_language_lists_what_it_has(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr("a.fr", "x")
        archive.writestr("b.fr", "x")
    with pytest.raises(UserError, match=r"has 0 files that may hold the text in 'en', and must have one: a\.fr, b\.fr"):
        read("o.zip")


def test_a_zip_file_with_text_in_other_languages_says_which_whatever_else_it_has(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        for name in ("Books.de-nl.de", "Books.de-nl.nl", "Books.de-nl.xml", "README"):
            archive.writestr(name, "x")
    with pytest.raises(UserError, match=r"o\.zip has no text in 'en'; it has text in de, nl: give one of these codes"):
        read("o.zip")


def test_a_zip_file_with_a_table_is_read_beside_programs_and_text_in_other_languages(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        for name in ("convert.sh", "clean.pl", "mono.nl", "mono.fr", "LICENSE"):
            archive.writestr(name, "x")
        archive.writestr("pairs.tsv", "dog\tHund\n")
    assert _pairs(read("o.zip")) == [("dog", "Hund")]


def test_a_zip_file_of_a_later_version_is_refused(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr("a.en", "x")
    content = bytearray((tmp_path / "o.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255  # the version that is needed to unpack it
    (tmp_path / "o.zip").write_bytes(content)
    with pytest.raises(
        UserError, match=r"Cannot read \S+o\.zip: zip file version 25\.5; it is truncated or no zip file"
    ):
        read("o.zip")


def test_an_exact_name_wins_over_one_that_begins_alike(read):
    assert _pairs(read("a.csv", a__csv="en_score,en_id,en,de\n0.9,7,dog,Hund\n")) == [("dog", "Hund")]
    row = json.dumps({"id": "7", "translation": {"en": "hi", "id": "halo"}})
    assert _pairs(read("a.jsonl", languages=("en", "id"), a__jsonl=row + "\n")) == [("hi", "halo")]
    text = XLIFF2.replace('trgLang="de"', 'trgLang="en-GB"')
    assert _pairs(read("b.xlf", languages=("en", "en-GB"), b__xlf=text)) == [("One", "Eins")]


def test_a_column_alone_is_refused_and_a_translator_alone_is_of_the_reference(read):
    with pytest.raises(UserError, match="names one side of a corpus: name the other too"):
        read("a.tsv#2", a__tsv="dog\tHund\n")
    assert _pairs(read("w.xml#B", w__xml=WMT)) == [("One.", "1."), ("Two.", "2.")]


@pytest.mark.parametrize(
    "change, message",
    [
        (("&amp;", "&nbsp;"), "line [0-9]+: the entity &nbsp; is not declared in the file"),
        (("UTF-8", "gb18030"), "is in an encoding that is not read"),
        (("UTF-8", "nothing"), "no sound XML|is in an encoding that is not read"),
    ],
)
def test_what_an_xml_file_cannot_say_is_one_line(read, change, message):
    with pytest.raises(UserError, match=message):
        read("a.tmx", a__tmx=TMX.replace(*change, 1))


def test_a_placeholder_has_one_number_on_both_sides_of_a_unit(read):
    source = '<pc id="1">a</pc> <pc id="2">b</pc> <ph id="1x"/>'
    target = '<pc id="2">B</pc> <pc id="1">A</pc> <ph id="1x"/>'
    text = XLIFF2.replace("<source>One<", f"<source>{source}<").replace("<target>Eins<", f"<target>{target}<")
    assert _pairs(read("a.xlf", keep_tags=True, a__xlf=text)) == [("<1>a</1> <2>b</2> <3/>", "<2>B</2> <1>A</1> <3/>")]
    marked = XLIFF2.replace(">One<", '><sm id="m"/>One<em startRef="m"/><').replace(">Eins<", ">Eins <ph x='9'/><")
    assert _pairs(read("b.xlf", keep_tags=True, b__xlf=marked)) == [("<1>One</1>", "Eins <2/>")]


@pytest.mark.parametrize("encoding, word", [("shift_jis", "表"), ("big5", "功"), ("gbk", "誠")])
def test_po_in_an_encoding_whose_characters_end_in_a_byte_of_a_backslash(read, encoding, word):
    assert word.encode(encoding)[-1:] == b"\\"
    text = PO.replace("UTF-8", encoding).replace("Language: de", "Language: ja").replace("Öffne die Datei", word)
    found = _pairs(read("a.po", languages=("en", "ja"), a__po=text.encode(encoding, "replace")))
    assert found[0] == ("Open the file", word)


def test_words_that_are_codes_of_languages_are_a_pair(read):
    assert _pairs(read("a.tsv", a__tsv="It\tEs\ndog\tHund\n")) == [("It", "Es"), ("dog", "Hund")]
    for first in ("fr\titalian", "source\tfr", "en\tfr"):
        with pytest.raises(UserError, match="has no column"):
            read("b.tsv", b__tsv=f"{first}\ndog\tHund\n")


def test_a_header_over_numbered_columns_is_no_pair_and_column_0_is_refused(read):
    assert _pairs(read("a.tsv#2", "a.tsv#1", a__tsv="de\ten\nHund\tdog\n")) == [("dog", "Hund")]
    with pytest.raises(UserError, match="has no column '0'; its first row is 'de', 'en'"):
        read("a.tsv#0", "a.tsv#1")
    with pytest.raises(UserError, match="has no column 'de'; its first row is"):
        read("b.tsv#x", "b.tsv", b__tsv="x\ty\n1\t2\n")


def test_a_flat_column_with_a_dot_and_an_upper_case_suffix(read, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"translation.en": ["dog"], "translation.de": ["Hund"]}), tmp_path / "a.parquet")
    assert _pairs(read("a.parquet")) == [("dog", "Hund")]
    (tmp_path / "b.TSV.GZ").write_bytes(gzip.compress(b"dog\tHund\n"))
    assert _pairs(read("b.TSV.GZ")) == [("dog", "Hund")]

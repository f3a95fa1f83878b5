"""The corpus doctor finds what is planted, at its line, and is silent about clean text; all of it the project's own."""

import random

import numpy as np
import pytest

from examples.quickstart.corpus import demo_corpus
from nmt_keras.data.corpus import TextFile
from nmt_keras.data.scripts import ScriptCheck, words
from nmt_keras.data.sources import open_pair
from nmt_keras.doctor import examination
from nmt_keras.doctor.alignment import Segment, segments
from nmt_keras.doctor.examination import Doctor, HeldOut
from nmt_keras.doctor.findings import unknown_pieces
from nmt_keras.doctor.lengths import lengths_report
from nmt_keras.reports import counted

LINES = 2400


@pytest.fixture(scope="module")
def clean():
    """English and Chinese lines without a duplicate or a line far from the usual length."""
    pairs = [pair for pair in demo_corpus(num_train=LINES + 600).train if len(pair[0]) > 12][:LINES]
    assert len(pairs) == LINES
    return [list(side) for side in zip(*pairs)]


@pytest.fixture
def examine(tmp_path):
    """Examines lines, as text or as bytes."""
    made = iter(range(1000))

    def run(source, target, held_out=None, languages=("en", "zh")):
        texts = []
        for lines in (source, target, *(held_out or [])):
            path = tmp_path / f"{next(made)}.txt"
            path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode("utf-8")) + b"\n" for x in lines))
            texts.append(TextFile(str(path), str(tmp_path / "cache")))
        return Doctor(*languages).examine(*texts[:2], [HeldOut("test", *texts[2:])] if held_out else [])

    return run


def test_clean_text_is_passed_over_in_silence(clean, examine):
    assert examine(*clean) == []
    assert examine(*clean, held_out=[["Nobody says this."], ["没有。"]]) == []


FAULTS = {
    "empty side": (0, "", "note", "a side is empty or blank in 1 line (701): they are left out of training"),
    "blank side": (1, " \t", "note", "a side is empty or blank in 1 line (701): "),
    "short script": (0, "这是一只狗。", "note", "most letters are not Latin in 1 line (701): wrong"),
    "script": (1, "这是 only an English sentence", "note", "most letters are not Han in 1 line (701): wrong"),
    "foreign": (0, "Это написано иначе, не так", "note", "most letters are not Latin in 1 line (701): wrong"),
    "length ratio": (0, "a " * 200, "note", "target characters for one of the source in 1 line (701): wrong pairs"),
    "inner BOM": (0, b"\xef\xbb\xbfa few words", "note", "byte order marks inside the text in 1 line (701): removed"),
    "NUL": (0, b"a\0 few words", "note", "NUL characters in 1 line (701): removed"),
    "CR": (0, b"some more words\r", "note", "CR LF line ends in 1 line (701): the CR is removed"),
    "U+2028": (1, "你好。\u2028他来了。", "note", "U+2028 line separators in 1 line (701): read as"),
    "invalid": (0, b"a few \xff words", "warning", "invalid UTF-8 in 1 line (701): read as U+FFFD"),
}


@pytest.mark.parametrize("side, line, severity, text", FAULTS.values(), ids=FAULTS)
def test_a_line_that_is_at_fault_is_named(clean, examine, side, line, severity, text):
    lines = [list(one) for one in clean]
    lines[side][700] = line
    [finding] = [finding for finding in examine(*lines) if text in finding.text]
    assert (finding.severity, finding.num_lines, finding.first_lines) == (severity, 1, [701])


def test_an_untranslated_line_is_named_but_numbers_are_no_copies(clean, examine):
    source, target = (list(side) for side in clean)
    source[700] = target[700] = "Nobody has translated this line."
    source[800] = target[800] = "1234567890"
    findings = {finding.kind: finding for finding in examine(source, target)}
    assert findings["copy"].first_lines == [701] and "untranslated in 1 line (701)" in findings["copy"].text
    assert findings["script"].first_lines == [701]


STYLES = {
    "white space": (0, "Nobody\u00a0says\tthis.", "white space other than the space in 1 line (701): each run of it"),
    "invisible": (1, "你\u200b好，\u200e世界。", "characters that show nothing in 1 line (701): they are removed"),
    "entity": (0, "Don&apos;t say this &amp; that.", "character references of HTML, such as &apos; in 1 line (701)"),
    "markup": (0, '<doc id="7" genre="news">', "markup around text, or records in 1 line (701): take the text out"),
    "table row": (1, "这是 | 一张 | 表格，你看。", "cells with tabs or bars between them in 1 line (701)"),
}


@pytest.mark.parametrize("side, line, text", STYLES.values(), ids=STYLES)
def test_what_a_line_shows_is_named(clean, examine, side, line, text):
    lines = [list(one) for one in clean]
    lines[side][700] = line
    [finding] = [finding for finding in examine(*lines) if text in finding.text]
    assert finding.lines == [701] and finding.severity != "serious"


def test_all_lines_of_a_finding_are_kept(clean, examine):
    source, target = (list(side) for side in clean)
    for line in range(100, 178):
        target[line] = ""
    [finding] = [finding for finding in examine(source, target) if finding.kind == "empty side"]
    assert finding.lines == list(range(101, 179)) and finding.first_lines == finding.lines[:10]
    assert "lines" not in finding.card() and finding.card()["first_lines"] == finding.first_lines


def test_pairs_that_are_blank_on_both_sides_are_a_note_however_many(clean, examine):
    """They are left out, and tear nothing apart: the places of what a filter took out of a corpus."""
    source, target = (list(side) for side in clean)
    for line in range(0, LINES, 2):
        source[line], target[line] = "", " "
    [finding] = [finding for finding in examine(source, target) if "blank" in finding.text]
    assert (finding.kind, finding.severity, finding.num_lines) == ("blank pair", "note", (LINES + 1) // 2)


def test_names_and_code_are_the_same_in_both_languages(clean, examine):
    source, target = (list(side) for side in clean)
    for line in range(300):
        source[line] = target[line] = f"Model XK-{line}, John Smith {line}"
    kinds = {finding.kind: finding for finding in examine(source, target)}
    assert "copy" not in kinds and kinds["name or code"].severity == "note" and kinds["name or code"].num_lines == 300


def test_a_header_is_named(clean, examine):
    source, target = (list(side) for side in clean)
    source[0], target[0] = "English", "chinese"
    headers = [finding for finding in examine(source, target) if finding.kind == "header"]
    assert len(headers) == 2 and all(finding.lines == [1] for finding in headers)


def test_text_that_is_tokenized_or_lower_cased_is_named(clean, examine):
    source, target = (list(side) for side in clean)
    kinds = [finding.kind for finding in examine([line.lower() for line in source], target)]
    assert "lower case" in kinds and "tokenized" not in kinds
    spaced = [line.replace(",", " ,").replace(".", " .").replace("?", " ?") for line in source]
    [finding] = [finding for finding in examine(spaced, target) if finding.kind == "tokenized"]
    assert "100%" in finding.text and "raw text badly" in finding.text and finding.severity == "warning"


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "GB18030"])
def test_another_encoding_is_serious_and_named_with_the_command(clean, tmp_path, encoding):
    source, target = clean
    (tmp_path / "a.en").write_text("".join(line + "\n" for line in source), encoding="utf-8")
    (tmp_path / "a.zh").write_bytes("".join(line + "\n" for line in target).encode(encoding))
    texts = [TextFile(str(tmp_path / name), str(tmp_path / "cache")) for name in ("a.en", "a.zh")]
    found = [finding for finding in Doctor("en", "zh").examine(*texts) if "looks like" in finding.text]
    assert [finding.severity for finding in found] == ["serious"]
    assert (
        f"it is no UTF-8, and looks like {encoding}: convert it, iconv -f {encoding} -t UTF-8 {tmp_path}/a.zh >"
        in found[0].text
    )


def test_some_lines_of_another_encoding_are_not_the_whole_text(tmp_path):
    lines = [f"Schöne Grüße Nummer {number} aus Köln, Müßiggänger.".encode() for number in range(1200)]
    for line in range(300, 310):
        lines[line] = lines[line].decode().encode("cp1252")
    (tmp_path / "a.de").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "a.en").write_text("".join(f"Kind regards {number} from Cologne, idler.\n" for number in range(1200)))
    texts = [TextFile(str(tmp_path / name), str(tmp_path / "cache")) for name in ("a.en", "a.de")]
    found = [f for f in Doctor("en", "de").examine(*texts) if "look like" in f.text or "looks like" in f.text]
    assert len(found) == 1 and "iconv" not in found[0].text and found[0].severity == "warning"
    assert "some lines are no UTF-8, and look like CP1252 beside others that are UTF-8" in found[0].text


def test_a_line_that_ends_within_a_character_is_no_other_encoding(clean, examine):
    source, target = (list(side) for side in clean)
    target[700] = target[700].encode()[:-1]
    assert not [finding for finding in examine(source, target) if "like" in finding.text]


def test_seven_bits_may_be_another_encoding_too(clean, tmp_path):
    (tmp_path / "a.en").write_text("".join(line + "\n" for line in clean[0]))
    (tmp_path / "a.ja").write_bytes("".join("彼は昨日ここに来た。\n" for _ in clean[0]).encode("iso2022_jp"))
    texts = [TextFile(str(tmp_path / name), str(tmp_path / "cache")) for name in ("a.en", "a.ja")]
    assert any("looks like ISO-2022-JP" in finding.text for finding in Doctor("en", "ja").examine(*texts))


def test_every_line_of_a_held_out_sentence_is_named(clean, examine):
    source, target = (list(side) for side in clean)
    for line in (100, 200, 300):
        source[line] = "Nobody says this sentence."
    [finding] = [f for f in examine(source, target, [["Nobody says this sentence!"], ["没有"]]) if f.kind == "overlap"]
    assert finding.lines == [101, 201, 301] and "1 source line also in" in finding.text


def test_an_untranslated_sentence_without_spaces_is_no_name(clean, examine):
    source, target = (list(side) for side in clean)
    for line in range(300):
        source[line] = target[line]
    kinds = {f.kind: f for f in examine(source, target, languages=("zh", "zh"))}
    assert kinds["copy"].severity == "serious" and kinds["copy"].num_lines > 250


def test_where_a_shift_ends_is_said_with_its_doubt():
    from nmt_keras.doctor.alignment import Segment
    from nmt_keras.doctor.examination import _describe_shift

    class Text:
        path = "x"
        place = staticmethod(lambda index: str(index + 1))

    finding = _describe_shift(Segment(705, 853, -1, 2, 3), Segment(853, 900, 0), Text, Text)
    assert "from line 706 (perhaps 704) to line 853 (perhaps 856) the source is shifted" in finding.text
    assert finding.lines == list(range(706, 854))


def test_a_pair_that_is_there_before_is_named_with_the_first(clean, examine, tmp_path):
    source, target = (list(side) for side in clean)
    for line in (900, 2000):
        source[line], target[line] = f" {source[300]} ", target[300]
    target[1500] = target[300]  # another source: no duplicate
    [finding] = [finding for finding in examine(source, target) if finding.kind == "duplicate"]
    assert (
        finding.first_lines == [901, 2001] and "2 duplicate pairs (901 repeats 301, 2001 repeats 301)" in finding.text
    )
    assert finding.text.startswith(f"{tmp_path}/0.txt and {tmp_path}/1.txt: ")
    source[900] = source[2000] = source[300] = ""  # and empty ones are none
    assert "duplicate" not in [finding.kind for finding in examine(source, target)]


def test_a_file_that_holds_both_sides_is_named_once(tmp_path):
    (tmp_path / "pairs.tsv").write_text("one\teins\n" * 3, encoding="utf-8")
    source, target = open_pair(f"{tmp_path}/pairs.tsv", "", ("en", "de"), str(tmp_path / "cache"))
    [finding] = [each for each in Doctor("en", "de").examine(source, target) if each.kind == "duplicate"]
    assert finding.text.startswith(f"{tmp_path}/pairs.tsv: 2 duplicate pairs (2 repeats 1, 3 repeats 1)")


def test_test_sentences_in_the_training_text_are_named_whatever_their_case(clean, examine):
    source, target = clean
    held_out = [["Nobody says this.", source[700].upper() + " !!", source[70]], ["甲", "乙", "丙"]]
    [finding] = examine(source, target, held_out)
    assert (finding.kind, finding.severity, finding.first_lines) == ("overlap", "serious", [701, 71])
    assert "2 source lines also in" in finding.text and "(2 is line 701, 3 is line 71)" in finding.text


SHIFTS = {
    "target lacks a line": (lambda s, t: (s, t[:700] + t[701:] + t[:1]), -1, 700),
    "target has one too many": (lambda s, t: (s, t[:700] + t[10:11] + t[700:-1]), 1, 700),
    "target lacks three": (lambda s, t: (s, t[:700] + t[703:]), -3, 700),
    "source lacks two": (lambda s, t: (s[:700] + s[702:], t), 2, 700),
    "from the start": (lambda s, t: (s, t[1:] + t[:1]), -1, 0),
}


@pytest.mark.parametrize("plant, shift, line", SHIFTS.values(), ids=SHIFTS)
def test_a_shift_is_found_where_it_begins(clean, examine, plant, shift, line):
    source, target = plant(*map(list, clean))
    [finding] = [finding for finding in examine(source, target) if finding.kind == "shift"]
    assert finding.severity == "serious" and abs(finding.first_lines[0] - 1 - line) <= 1
    side, other = ("target", "source") if shift < 0 else ("source", "target")
    assert f"to the end the {other} is shifted by {counted(abs(shift), 'line')} against the {side}" in finding.text


def test_a_shift_that_ends_is_found_at_both_ends(clean, examine):
    source, target = map(list, clean)
    del source[700]
    source.insert(1500, "Nobody says this sentence.")
    [finding] = [finding for finding in examine(source, target) if finding.kind == "shift"]
    assert (
        abs(finding.first_lines[0] - 701) <= 1 and f"from line {finding.first_lines[0]:,} to line 1,50" in finding.text
    )


def test_text_that_belongs_nowhere_is_told_from_a_shift(clean, examine):
    source, target = map(list, clean)
    target[700:1200] = target[700:1200][::-1]
    [finding] = [finding for finding in examine(source, target) if finding.kind == "shift"]
    assert (
        abs(finding.first_lines[0] - 701) < 40
        and "they do not belong together, nor to lines up to 10 away" in finding.text
    )


def test_text_in_another_order_is_found_where_no_shift_explains_it(clean, examine):
    source, target = map(list, clean)
    random.Random(1).shuffle(target)
    [finding] = [finding for finding in examine(source, target) if finding.kind == "shift"]
    assert finding.severity == "serious" and "from line 1 to the end they do not belong together" in finding.text
    source, target = map(list, clean)
    target = target[50:] + target[:50]
    assert "shift" in [finding.kind for finding in examine(source, target)]


@pytest.mark.parametrize("count", [40, 100, 300])
def test_a_table_of_contents_is_no_shift(clean, examine, count):
    """Lines whose lengths go together in a way of their own."""
    source, target = map(list, clean)
    source[700:700] = [f"Table of contents, page {number}" for number in range(count)]
    target[700:700] = [f"第{number}页目录" for number in range(count)]
    assert "shift" not in [finding.kind for finding in examine(source, target)]


def test_text_sorted_by_length_is_no_shift(clean, examine):
    pairs = sorted(zip(*clean), key=lambda pair: len(pair[0]))
    assert examine(*(list(side) for side in zip(*pairs))) == []


def test_other_counts_are_serious_and_the_line_is_found(clean, examine):
    source, target = clean
    first, second = examine(source, target[:700] + target[701:])
    assert {first.kind, second.kind} == {"line count", "shift"} and first.severity == second.severity == "serious"
    assert any("has 2,400 lines and" in finding.text and "has 2,399" in finding.text for finding in (first, second))
    assert any(finding.first_lines[:1] in ([701], [702]) for finding in (first, second))


def test_alignment_that_lengths_cannot_tell_is_not_judged():
    def fetch(lines, partners):
        return ["the same line again"] * len(lines), ["immer dieselbe Zeile"] * len(partners)

    lengths = np.full(500, 20)
    assert segments(lengths, lengths, fetch) == [Segment(0, 500, 0)]
    assert segments(np.arange(40), np.arange(40), None) == [Segment(0, 40, 0)]
    assert segments(np.array([], int), np.array([], int), None) == [Segment(0, 0, 0)]


def test_many_are_worse_than_few(clean, examine):
    source, target = map(list, clean)
    for share, severity in ((0.001, "note"), (0.05, "warning"), (0.3, "serious")):
        for line in range(int(LINES * share)):
            target[line] = ""
        [finding] = [finding for finding in examine(source, target) if finding.kind == "empty side"]
        assert finding.severity == severity and len(finding.first_lines) <= 10
        assert finding.num_lines == int(LINES * share)


def test_findings_come_with_the_worst_first(clean, examine):
    source, target = map(list, clean)
    source[5] = ""
    source[9] = b"\xff and words"
    severities = [finding.severity for finding in examine(source, target[:700] + target[701:])]
    assert severities == sorted(severities, key=("serious", "warning", "note").index) and len(set(severities)) == 3


@pytest.mark.parametrize(
    "language, own, foreign",
    [
        ("en", "Nobody says this.", "Никто так не говорит."),
        ("zh-TW", "沒有人這樣說，真的。", "Nobody says this."),
        ("ja", "だれもそう言わない。", "Nobody says this."),
        ("ru", "Никто так не говорит.", "Nobody says this."),
        ("de_DE", "Niemand sagt das, Müßiggänger.", "没有人这样说。真的没有"),
        ("ar", "لا أحد يقول ذلك", "Nobody says this."),
        ("ku", "Kes vê yekê nabêje.", "没有人这样说。"),
        ("uz-Cyrl", "Ҳеч ким бундай демайди.", "Hech kim bunday demaydi."),
        ("eng_Latn", "Nobody says this.", "Никто так не говорит."),
        ("zho", "没有人这样说。", "Nobody says this."),
    ],
)
def test_scripts_are_told_apart(language, own, foreign):
    check = ScriptCheck(language)
    assert not check.is_foreign(own) and check.is_foreign(foreign)
    assert not check.is_foreign("1234 5678 ... !") and not check.is_foreign("Aя") and not check.is_foreign("")
    assert not ScriptCheck("xx").is_foreign(foreign)


def test_words_are_characters_where_nothing_is_between_them():
    assert words("He said: “Yes!”") == ["he", "said", "yes"]
    assert words("他 says 好。") == ["他", "says", "好"]


def test_unknown_pieces_count_from_a_share_on():
    assert unknown_pieces("dev.en", 0.005) is None
    assert unknown_pieces("dev.en", 0.05).severity == "warning"
    found = unknown_pieces("dev.en", 0.5)
    assert (found.severity, found.text[:36]) == ("serious", "dev.en: 50.00% of its pieces are unk")


def test_lengths_suggest_limits_and_a_budget():
    lengths = (np.arange(1, 1001) % 40 + 2, np.array([11] * 999 + [300]))
    report = lengths_report(*lengths, 10**6)
    assert report["lengths"]["target"] == {"p50": 11, "p90": 11, "p99": 11, "p99.9": 300, "p100": 300}
    assert report["suggested"] == {"max_source_length": 48, "max_target_length": 304, "batch_tokens": 4096}
    assert lengths_report(*lengths, 10**4)["suggested"]["batch_tokens"] == 1024  # 100 batches an epoch
    assert lengths_report(*lengths, 20)["suggested"]["batch_tokens"] == 512


def test_a_corpus_of_a_few_pairs_is_said_to_be_too_small(clean, examine):
    [finding] = examine(*(side[:20] for side in clean))
    assert (finding.kind, finding.severity) == ("size", "warning") and "20 pairs are too few" in finding.text


def test_blocks_change_nothing(clean, examine, monkeypatch):
    source, target = map(list, clean)
    source[700], target[900] = "", source[900]
    whole = examine(source, target)
    monkeypatch.setattr(examination, "_BLOCK", 7)
    assert [f[3:] for f in examine(source, target)] == [f[3:] for f in whole] and len(whole) == 4


def test_a_symbol_of_the_users_is_no_tag_of_markup(tmp_path):
    texts = []
    for name, lines in (("s", ["<BT> A dog.", "<b>A</b> cat."] * 30), ("t", ["Ein Hund.", "Eine Katze."] * 30)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        texts.append(TextFile(str(tmp_path / name), str(tmp_path / "cache")))
    found = {
        symbols: [len(f.lines) for f in Doctor("en", "de", symbols=symbols).examine(*texts) if f.kind == "tag"]
        for symbols in ((), ("<BT>",))
    }
    assert found == {(): [60], ("<BT>",): [30]}

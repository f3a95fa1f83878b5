"""The corpus doctor finds what is planted, at its line, and is silent about clean text; all of it the project's own."""

import random

import numpy as np
import pytest

from nmt_keras.data import doctor as module
from nmt_keras.data.alignment import Segment, segments
from nmt_keras.data.corpus import TextFile
from nmt_keras.data.demo_corpus import demo_corpus
from nmt_keras.data.doctor import Doctor, HeldOut, lengths_report, unknown_pieces
from nmt_keras.data.scripts import ScriptCheck, words

LINES = 2400


@pytest.fixture(scope="module")
def clean():
    """English and Chinese lines without a duplicate or a line far from the usual length."""
    pairs = [pair for pair in dict.fromkeys(map(tuple, demo_corpus().train)) if len(pair[0]) > 12][:LINES]
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
    "empty side": (0, "", "note", "a side is empty or blank in 1 line(s) (701): they are left out of training"),
    "blank side": (1, " \t", "note", "a side is empty or blank in 1 line(s) (701): "),
    "short script": (0, "这是一只狗。", "note", "most letters are not Latin in 1 line(s) (701): wrong"),
    "script": (1, "这是 only an English sentence", "note", "most letters are not Han in 1 line(s) (701): wrong"),
    "foreign": (0, "Это написано иначе, не так", "note", "most letters are not Latin in 1 line(s) (701): wrong"),
    "length ratio": (0, "a " * 200, "note", "target characters for one of the source in 1 line(s) (701): wrong pairs"),
    "inner BOM": (0, b"\xef\xbb\xbfa few words", "note", "byte order marks inside the text in 1 line(s) (701): kept"),
    "NUL": (0, b"a\0 few words", "note", "NUL characters in 1 line(s) (701): kept"),
    "CR": (0, b"some more words\r", "note", "CR LF line ends in 1 line(s) (701): the CR is removed"),
    "U+2028": (1, "你好。\u2028他来了。", "note", "U+2028 line separators in 1 line(s) (701): kept inside"),
    "invalid": (0, b"a few \xff words", "warning", "invalid UTF-8 in 1 line(s) (701): read as U+FFFD"),
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
    assert findings["copy"].first_lines == [701] and "untranslated in 1 line(s) (701)" in findings["copy"].text
    assert findings["script"].first_lines == [701]


def test_a_pair_that_is_there_before_is_named_with_the_first(clean, examine):
    source, target = (list(side) for side in clean)
    for line in (900, 2000):
        source[line], target[line] = f" {source[300]} ", target[300]
    target[1500] = target[300]  # another source: no duplicate
    [finding] = [finding for finding in examine(source, target) if finding.kind == "duplicate"]
    assert (
        finding.first_lines == [901, 2001]
        and "2 pair(s) are there before (901 repeats 301, 2001 repeats 301)" in finding.text
    )
    source[900] = source[2000] = source[300] = ""  # and empty ones are none
    assert "duplicate" not in [finding.kind for finding in examine(source, target)]


def test_test_sentences_in_the_training_text_are_named_whatever_their_case(clean, examine):
    source, target = clean
    held_out = [["Nobody says this.", source[700].upper() + " !!", source[70]], ["甲", "乙", "丙"]]
    [finding] = examine(source, target, held_out)
    assert (finding.kind, finding.severity, finding.first_lines) == ("overlap", "serious", [701, 71])
    assert "2 source line(s) are in" in finding.text and "(2 is line 701, 3 is line 71)" in finding.text


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
    assert f"to the end the {other} is shifted by {abs(shift)} line(s) against the {side}" in finding.text


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
    assert any(finding.first_lines in ([701], [702]) for finding in (first, second))


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
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert [f[3:] for f in examine(source, target)] == [f[3:] for f in whole] and len(whole) == 4

"""Placeholders in text to train on: for what both sides of a pair have, as often as both have it."""

import random
import re

import pytest

from nmt_keras.constants import PLACEHOLDERS
from nmt_keras.data.corpus import Origin, ParallelCorpus, TextFile
from nmt_keras.data.placeholders import in_corpus, in_pair, symbols_for


def _find(text):
    if "slow" in text:
        raise TimeoutError
    return [match.span() for match in re.finditer(r"\d+|[A-Z]\S*", text)]


def _symbols(text):
    return re.findall("|".join(PLACEHOLDERS), text)


@pytest.mark.parametrize(
    "source, target, restored",
    [
        ("see 12 and 7", "sieh 7 und 12", {"12", "7"}),
        ("12 of 12", "12", {"12"}),
        ("one", "eins 5", set()),
        ("5", "fünf", set()),
        ("X X X", "X Y X", {"X"}),
        ("", "", set()),
        ("slow 5", "slow 5", set()),
    ],
)
def test_what_both_sides_have_becomes_the_same_symbol(source, target, restored):
    mine, yours = in_pair(source, target, _find)
    assert sorted(_symbols(mine)) == sorted(_symbols(yours)) and len(set(_symbols(mine))) == len(_symbols(mine))
    spans = dict(zip(_symbols(mine), _replaced(source, mine)))
    assert set(spans.values()) == restored
    for text, made in ((source, mine), (target, yours)):
        for symbol, span in spans.items():
            made = made.replace(symbol, span)
        assert made == text


def _replaced(text, made):
    """What stood where symbols are."""
    pattern = "(.+?)".join(map(re.escape, re.split("|".join(PLACEHOLDERS), made)))
    return re.fullmatch(pattern, text).groups()


def test_no_more_become_symbols_than_there_are():
    numbers = [str(n) for n in range(10, 30)]
    mine, yours = in_pair(" ".join(numbers), " ".join(reversed(numbers)), _find)
    assert sorted(_symbols(mine)) == sorted(_symbols(yours)) == sorted(PLACEHOLDERS)
    assert mine.split()[len(PLACEHOLDERS) :] == numbers[len(PLACEHOLDERS) :]
    assert symbols_for("a", len(PLACEHOLDERS) + 1) == ()


def test_every_symbol_is_seen_first():
    assert {symbols_for(f"text {number}", 1) for number in range(200)} == {(each,) for each in PLACEHOLDERS}


def test_a_corpus_is_written_once_and_knows_its_lines(tmp_path):
    rng = random.Random(1)
    lines = [" ".join(rng.choice(["a", "b", "12", "7"]) for _ in range(2)) for _ in range(50)]
    for side in ("src", "tgt"):
        (tmp_path / side).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    source = TextFile(str(tmp_path / "src"), str(tmp_path / "cache"), Origin("a.tmx", ("a.tmx",), None))
    corpus, reports = ParallelCorpus([source], [TextFile(str(tmp_path / "tgt"), str(tmp_path / "cache"))]), []
    made = in_corpus(corpus, ["number"], _find, str(tmp_path / "cache"), reports.append)
    changed = sum(bool(re.search(r"\d", line)) for line in lines)
    assert reports == [f"placeholders: in {changed} of 50 pairs"] and 0 < changed < 50
    for line, mine, yours in zip(lines, *made.text()):
        assert (mine, yours) == in_pair(line, line, _find)
    assert made.sources[0].path == "a.tmx" and made.targets[0].path == str(tmp_path / "tgt")

    def fail(text):
        raise AssertionError(text)

    again = in_corpus(corpus, ["number"], fail, str(tmp_path / "cache"), reports.append)
    assert again.text() == made.text() and reports[1] == reports[0]
    with pytest.raises(AssertionError):  # other patterns are another text
        in_corpus(corpus, ["url"], fail, str(tmp_path / "cache"), reports.append)

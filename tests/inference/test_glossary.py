"""Glossaries: what is found in a text, and what is wrong with a file."""

import pytest

from nmt_keras.constants import TERM_MARKS
from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import Glossary, PlacedTerms, stands_in
from nmt_keras.inference.translation import Hypothesis, Translation


def _glossary(*entries):
    return Glossary((source, target, bool(case)) for source, target, *case in entries)


def test_whole_words_are_found_whatever_their_case():
    glossary = _glossary(("dog", "Hund"), ("New York", "Neu-York"), ("C++", "C++"), ("it's", "es ist"))
    assert glossary.terms_of("The dog, DOG and dogs of new  york") == [("Hund",), ("Neu-York",)]
    assert glossary.terms_of("It's C++.") == [("es ist",), ("C++",)]
    assert glossary.terms_of("hotdog dogma") == []
    assert glossary.terms_of("") == []


def test_the_case_counts_where_the_glossary_says_so():
    glossary = _glossary(("Apple", "Apple", "case"), ("apple", "Apfel"), ("IT", "EDV", "case"))
    assert glossary.terms_of("Apple and apple and it") == [("Apple",), ("Apfel",)]
    assert glossary.terms_of("IT") == [("EDV",)]


def test_several_lines_of_a_term_are_ways_to_say_it_and_the_longest_term_is_taken():
    glossary = _glossary(("dog", "Hund"), ("dog", "Hunde"), ("dog", "Hund"), ("hot dog", "Würstchen"), ("hot", "heiß"))
    assert glossary.terms_of("a hot dog, a dog, a hot day") == [("Würstchen",), ("Hund", "Hunde"), ("heiß",)]
    assert len(glossary) == 3


def test_terms_of_scripts_without_spaces_are_found_within_a_text():
    glossary = _glossary(("机器", "machine"), ("机器学习", "machine learning"), ("GPU", "GPU"))
    assert glossary.terms_of("我喜欢机器学习和机器。用GPU跑") == [("machine learning",), ("machine",), ("GPU",)]


def test_a_file_is_read(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_bytes("\ufeff# terms\ndog\tHund\r\n\ncat \t Katze\t\r\nUS\tUSA\tcase\r\n".encode())
    glossary = Glossary.read(path)
    assert glossary.terms_of("The cat, the dog, us and US") == [("Katze",), ("Hund",), ("USA",)]


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"dog\tHund\ncat Katze\n",
            "Line 2 of the glossary .*terms.tsv, 'cat Katze': an entry is a source term, a tab",
        ),
        (b"dog\tHund\tcase\tx\n", "an entry is a source term, a tab and a target term"),
        (b"dog\t \n", "a term is empty"),
        (b"\tHund\n", "a term is empty"),
        ("dog\t\u200b\n".encode(), "a term is empty"),
        ("\u00ad\tHund\n".encode(), "a term is empty"),
        (b"dog\tHund\tCase\n", "the third column is empty or the word case. Received: 'Case'"),
        (b"dog\t" + b"x" * 201 + b"\n", "a term has 201 characters, at most 200 are allowed"),
        (b"dog\tH\xfcnd\n", "is no UTF-8, at byte 5: save it as UTF-8"),
        (b"", "has no terms: each line must be a source term"),
        (b"# only a remark\n\n", "has no terms"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "terms.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Glossary.read(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="Cannot read the glossary .*none.tsv: No such file.*; check its name$"):
        Glossary.read(tmp_path / "none.tsv")


def test_characters_that_show_nothing_are_in_no_term():
    glossary = _glossary(("hot\u00addog\x00", "Hot\u200bdog"))
    assert glossary.terms_of("a hot\u00addog, a hotdog") == [("Hotdog",)]


def test_a_term_is_found_among_many():
    glossary = _glossary(*((f"word{i} of the glossary", f"Wort{i}") for i in range(20_000)))
    assert glossary.terms_of("a word7 of the glossary " * 50) == [("Wort7",)]


def test_marks_belong_to_their_words_and_both_ways_to_write_a_letter_are_one():
    glossary = _glossary(("हिन्द", "X"), ("caf\u00e9", "Kaffeehaus"), ("cafe", "Kneipe"))
    assert glossary.terms_of("हिन्दी") == []
    assert glossary.terms_of("a cafe\u0301, a cafe") == [("Kaffeehaus",), ("Kneipe",)]


def test_a_term_of_many_characters_is_found_where_it_is_whole():
    glossary = _glossary(("狗" * 200, "X"))
    assert glossary.terms_of("马" * 500 + "狗" * 199) == []
    assert glossary.terms_of("马" * 500 + "狗" * 200) == [("X",)]


def test_all_mistakes_of_a_file_are_counted(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("a b\nc\td\n\te\nf\n")
    with pytest.raises(UserError, match="^Line 1 of the glossary .*; 2 more lines are no entries$"):
        Glossary.read(path)


def test_terms_are_written_beside_the_words_they_are_of():
    glossary = _glossary(("dog", "Hund"), ("dog", "Köter"), ("hot dog", "Würstchen"), ("狗", "dog"))
    begin, middle, end = TERM_MARKS
    assert glossary.annotated("a  hot dog, Dog") == (
        f"a {begin}hot dog{middle}Würstchen{end}, {begin}Dog{middle}Hund{end}"
    )
    assert glossary.annotated("我的狗") == f"我的{begin}狗{middle}dog{end}"
    assert glossary.annotated("a  cat") == "a  cat"
    assert glossary.annotated("dog, hot dog", lambda ways: ways[1] if len(ways) > 1 else None) == (
        f"{begin}dog{middle}Köter{end}, hot dog"
    )


@pytest.mark.parametrize(
    "term, text, expected",
    [
        ("Hund", "der Hund.", True),
        ("Hund", "der hund", False),
        ("Hund", "Hunde", False),
        ("hot dog", "ein hot  dog", True),
        ("hot dog", "hot", False),
        ("狗", "我的狗跑", True),
        ("e-mail", "eine e-mail an", True),
        ("Äpfel", "A\u0308pfel", True),
        ("Hund", "", False),
    ],
)
def test_a_term_stands_in_a_text_as_whole_words(term, text, expected):
    assert stands_in(term, text) is expected


def test_terms_that_a_model_reads_are_placed_where_they_stand():
    reports = []
    terms = PlacedTerms(
        _glossary(("dog", "Hund"), ("dog", "Köter"), ("cat", "Katze")), reports.append, is_annotated=True
    )
    lines = ["a dog", "no term", "a cat " * 20]
    assert [line != text for line, text in zip(lines, terms.annotated(lines))] == [True, False, True]
    found = [
        terms.placed(number, Translation([Hypothesis(text, 0.0, 0.0)], False))
        for number, text in enumerate(("ein Köter", "nichts", "die Katzen"), 1)
    ]
    assert found == [[[("Hund | Köter", True)]], [[]], [[("Katze", False)]]] and not reports
    assert terms.summary() == "glossary: 1 of 2 terms placed; line 3 lacks 'Katze'"

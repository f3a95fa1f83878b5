"""What a line shows about how its text was made."""

import pytest

from nmt_keras.doctor import line_checks

YES = {
    "has_entity": ["don&apos;t", "a &amp; b", "&#39;x&#39;", "&#x2019;", "&nbsp;x"],
    "is_markup": [
        '<doc id="1">',
        "</seg>",
        "  <seg id='3'>Text</seg>",
        "<?xml version='1.0'?>",
        '{"en": "a", "ha": "b"}',
    ],
    "has_tag": ["a <b>bold</b> word", "one<br/>two", '<a href="x.html">link</a> here'],
    "is_table_row": ["1\tHello\tSannu", "| a | b | c |", "a | b | c"],
    "is_header": ["English", "source", "en,ha", "ID\tenglish\thausa", '"source"'],
    "is_tokenized": ["A man , who sits .", "I do n&apos;t know .", "un@@ know@@ n", "▁a ▁b"],
    "is_lower_case": ["a man sits.", "ein mann"],
    "is_name_or_code": ["Berlin", "John Smith", "IBM 360/370", "x = foo(bar); return y", "http://a.b/some words here"],
}
NO = {
    "has_entity": ["AT&T; and", "a & b;", "R&D", "&nosuchname;"],
    "is_markup": ["<3 you all", "a <b>bold</b> word", "[Laughter]", "{x} is a set"],
    "has_tag": ["3 < 5 > 2", "<doc id='1'>", "<3 you", "a <- b", "if a<b and c>d"],
    "is_table_row": ["a | b", "\ta", "a\tb", "either|or"],
    "is_header": ["Hello", "The source of the text", "", "English is a language"],
    "is_tokenized": ["A man, who sits.", "He said: yes, no."],
    "is_lower_case": ["A man sits.", "Öl"],
    "is_name_or_code": ["Nobody has translated this line.", "le chat noir dort", "你好 世界 再见"],
}


@pytest.mark.parametrize("name", YES)
def test_a_line_is_told_by_what_it_shows(name):
    check = getattr(line_checks, name)
    assert [line for line in YES[name] if check(line) is not True] == []
    assert [line for line in NO[name] if check(line) is not False] == []


def test_some_lines_tell_nothing():
    assert line_checks.is_tokenized("no mark at all") is line_checks.is_tokenized("你好。") is None
    assert line_checks.is_lower_case("你好 123") is None

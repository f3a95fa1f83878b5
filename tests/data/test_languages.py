"""The table of languages: one code for each, its scripts, and what scores need to know."""

import pytest

from nmt_keras.data.languages import language_of


@pytest.mark.parametrize(
    "tag, code, scripts, tokenizer",
    [
        ("zh", "zh", ("Han",), "zh"),
        ("zho_Hans", "zh", ("Han",), "zh"),
        ("cmn", "zh", ("Han",), "zh"),
        ("chi", "zh", ("Han",), "zh"),
        ("zh-TW", "zh", ("Han",), "zh"),
        ("yue", "yue", ("Han",), "zh"),
        ("zh-Latn", "zh", ("Latin",), "13a"),
        ("jpn_Jpan", "ja", ("Han", "Kana"), "ja-mecab"),
        ("ja_Kana", "ja", ("Kana",), "ja-mecab"),
        ("kor_Hang", "ko", ("Hangul",), "ko-mecab"),
        ("KO-kr", "ko", ("Hangul", "Han"), "ko-mecab"),
        ("eng_Latn", "en", ("Latin",), "13a"),
        ("sr", "sr", ("Latin", "Cyrillic"), "13a"),
        ("srp_Cyrl", "sr", ("Cyrillic",), "13a"),
        ("hau", "ha", ("Latin",), "13a"),
        ("pcm", "pcm", ("Latin",), "13a"),
        ("tha_Thai", "th", ("Thai",), "13a"),
        ("sat_Olck", "sat", ("Ol Chiki",), "13a"),
        ("ber_Tfng", "ber", ("Tifinagh",), "13a"),
        ("cdo", "cdo", ("Han",), "zh"),
        ("mni_Mtei", "mni", (), "13a"),
        ("xx", "xx", (), "13a"),
    ],
)
def test_a_tag_is_looked_up(tag, code, scripts, tokenizer):
    language = language_of(tag)
    assert (language.code, language.scripts, language.bleu_tokenizer) == (code, scripts, tokenizer)
    assert language.is_asian == (tokenizer != "13a")
    assert language.is_known == (tag != "xx")


def test_a_remark_is_made_where_bleu_means_little():
    for tag in ("th", "lo", "km", "my", "bo", "dz", "khm_Khmr"):
        assert f"{tag!r} is written without spaces between words, and tok:13a takes" in language_of(tag).remark()
        assert "--bleu_tokenizer" in language_of(tag).remark()
    assert "the language 'qqq' is in no table, so tok:13a is used" in language_of("qqq").remark()
    for tag in ("en", "zho_Hans", "ja", "qqq-Latn"):
        assert language_of(tag).remark() == ""


def test_every_script_has_characters():
    from nmt_keras.data.languages import _BY_SCRIPT, _SCRIPT_CODES
    from nmt_keras.data.scripts import ScriptCheck

    codes = [code for languages in _BY_SCRIPT.values() for codes in languages.split() for code in codes.split(",")]
    assert len(codes) == len(set(codes))
    for tag in (*codes, *(f"en-{script}" for script in _SCRIPT_CODES)):
        assert ScriptCheck(tag).scripts

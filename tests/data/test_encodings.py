"""Which encoding text is in that is no UTF-8."""

import pytest

from nmt_keras.data.encodings import command, guess

TEXTS = {
    "en": ["The old man walks home.", "Nobody saw him."],
    "de": ["Der Müßiggänger geht über die Straße.", "Schöne Grüße aus Köln!"],
    "cs": ["Příliš žluťoučký kůň úpěl ďábelské ódy.", "Řekl, že přijde zítra."],
    "ru": ["Он ушёл домой, и она осталась.", "Почему вы не пришли вчера на работу?"],
    "el": ["Αυτό είναι ένα βιβλίο.", "Πού πηγαίνεις σήμερα;"],
    "zh": ["我们昨天去了学校。", "这个国家的人很多，他们说中文。"],
    "zh-Hant": ["我們昨天去了學校。", "這個國家的人很多，他們說中文。"],
    "ja": ["これは本です。", "彼女は昨日東京に行きました。"],
    "ko": ["그는 어제 집에 갔다.", "안녕하세요 여러분."],
    "ar": ["ذهب الولد إلى المدرسة", "كيف حالك اليوم"],
    "th": ["ผมไปโรงเรียนทุกวัน", "สวัสดีครับ"],
    "tr": ["Bugün çok güzel bir gün, değil mi?", "Şimdi İstanbul'a gidiyorum."],
}


def _guess(language, encoding, tag=None):
    raw = "\n".join(TEXTS[language] * 20).encode(encoding)
    broken = []
    for line in raw.split(b"\n"):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            broken.append(line)
    return guess(raw, broken, language if tag is None else tag)


@pytest.mark.parametrize("language", TEXTS)
def test_utf_8_is_taken_for_nothing_else(language):
    assert _guess(language, "utf-8") == ""


@pytest.mark.parametrize("language", ["en", "de", "ru", "zh", "ja", "ko", "ar", "th"])
@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
def test_wide_characters_are_told(language, encoding):
    assert _guess(language, encoding) == encoding
    mark = "\ufeff".encode(encoding)
    assert guess(mark + "\n".join(TEXTS[language]).encode(encoding), [], language) == encoding


@pytest.mark.parametrize(
    "language, encoding",
    [
        ("de", "CP1252"),
        ("cs", "CP1250"),
        ("cs", "ISO-8859-2"),
        ("ru", "CP1251"),
        ("ru", "KOI8-R"),
        ("ru", "CP866"),
        ("zh", "GB18030"),
        ("zh-Hant", "BIG5"),
        ("ja", "SHIFT_JIS"),
        ("ja", "EUC-JP"),
        ("ja", "ISO-2022-JP"),
        ("ko", "EUC-KR"),
        ("ar", "CP1256"),
        ("th", "TIS-620"),
        ("tr", "ISO-8859-9"),
    ],
)
def test_what_was_written_before_utf_8_is_told_by_its_letters(language, encoding):
    assert _guess(language, encoding) == encoding


@pytest.mark.parametrize("language, encoding", [("de", "CP1252"), ("ru", "CP1251"), ("zh", "GB18030")])
def test_an_unknown_language_is_told_by_a_library(language, encoding):
    raw = "\n".join(TEXTS[language] * 20).encode(encoding)
    assert raw.decode(_guess(language, encoding, tag="")) == raw.decode(encoding)


def test_the_command_converts():
    assert command("a/train.de", "CP1252") == "iconv -f CP1252 -t UTF-8 a/train.de > a/train.utf8.de"
    assert command("train.gz", "UTF-16LE") == "zcat train.gz | iconv -f UTF-16LE -t UTF-8 > train.utf8"
    assert command("pairs.tsv", "CP1252").endswith("> pairs.utf8.tsv")


def test_a_few_bytes_say_nothing():
    assert guess(b"1\n\xff\n", [b"\xff"], "zh") == guess(b"1\n\xff\n", [b"\xff"], "") == ""


def test_the_letters_of_western_europe_are_known_in_every_language_of_it():
    for tag, text in (
        ("es", "¿Dónde está el niño?\n¡Mañana, señor!"),
        ("fr", "Où êtes-vous né ?\nÇa a été très bien."),
        ("sv", "Är det så?"),
    ):
        raw = (text + "\n").encode("cp1252") * 5
        assert guess(raw, raw.split(b"\n")[:-1], tag) == "CP1252"
    raw = "¿Dónde está el niño?\n".encode("cp1252") * 9
    assert guess(raw, raw.split(b"\n")[:-1], "") == "CP1252"

"""The demo corpus: the same every time, disjoint parts, unseen combinations, correct numerals."""

import re
from collections import Counter

import pytest

from examples.quickstart.corpus import DemoCorpus, Pair, _held_out, _split, demo_corpus, lexicon
from examples.quickstart.numbers import chinese_number, clock, english_number
from examples.quickstart.words import KINDS, WORDS


@pytest.fixture(scope="module")
def parts():
    return _split(1, 60_000, 300, 500)


@pytest.fixture(scope="module")
def corpus(parts):
    return DemoCorpus(*([Pair(sentence.source, sentence.target) for sentence in part] for part in parts))


@pytest.mark.slow
def test_same_arguments_same_pairs(corpus):
    assert demo_corpus(1, 3000).train == corpus.train[:3000]
    assert demo_corpus(2, 200, 20, 20) == demo_corpus(2, 200, 20, 20) != demo_corpus(3, 200, 20, 20)


def test_golden_pairs(corpus):
    for place, pair in GOLDEN.items():
        assert corpus.train[place] == Pair(*pair)


def test_counts_and_disjointness(corpus):
    assert [len(part) for part in corpus] == [60_000, 300, 500]
    everything = [pair for part in corpus for pair in part]
    assert len({pair.source for pair in everything}) == len({pair.target for pair in everything}) == 60_800


def test_small_corpus():
    assert [len(part) for part in demo_corpus(5, 100, 10, 20)] == [100, 10, 20]
    assert [len(part) for part in demo_corpus(5, 100, 0, 0)] == [100, 0, 0]


def test_well_formed(corpus):
    for source, target in (pair for part in corpus for pair in part):
        assert source.isascii() and source[0].isupper() | source[0].isdigit() and "  " not in source
        assert source[-1] in ".?" and (target[-1] == "？") == (source[-1] == "?")
        assert re.fullmatch("[\u4e00-\u9fff零]+(，[\u4e00-\u9fff]+)?[。？]", target), target
        assert 4 <= len(source.split()) <= 20
        assert not re.search(r"\b(a [aeio]|an [^aeiouh])", source), source


def test_a_source_has_one_translation(corpus):
    seen: dict[str, str] = {}
    for some in (corpus, demo_corpus(2, 10_000)):
        for part in some:
            for source, target in part:
                assert seen.setdefault(source, target) == target


def test_lexicon(corpus):
    assert len(lexicon()) >= 600
    assert lexicon()["apple"] == "苹果" and lexicon()["older brother"] == "哥哥"
    assert lexicon(forms=True)["wrote"] == "写"


def test_every_entry_is_frequent_in_training(corpus):
    words: Counter[str] = Counter()
    for pair in corpus.train:
        tokens = re.findall(r"[a-z]+(?:-[a-z]+)?", pair.source.lower())
        for size in range(1, 6):
            words.update({" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1)})
    kinds = [word for group in KINDS.values() for word in group]
    forms: dict[str, set[str]] = {}
    for word in kinds:
        found = word.forms[:1] if word.kind == "place" else word.forms
        forms.setdefault(word.en, set()).update(form.lower() for form in found if "~" not in form)
    few = {
        entry: count
        for entry, found in forms.items()
        if (count := sum(words[re.sub("[^a-z -]", "", form)] for form in found)) < 15
    }
    assert not few


def test_each_test_sentence_has_an_unseen_combination(parts):
    train, dev, test = parts
    seen = {combo for sentence in train for combo in sentence.combos}
    for sentence in dev + test:
        unseen = [combo for combo in sentence.combos if _held_out(combo)]
        assert unseen and not seen & set(unseen)
        assert any(combo not in seen for combo in sentence.combos)


def test_unseen_combinations_show_in_the_sentence(parts):
    def named(word, source):
        forms = word.forms[:1] if word.kind == "place" else word.forms
        return any(form.replace("~", "").lower() in source.lower() for form in forms)

    for sentence in parts[1] + parts[2]:
        for kind, left, right in filter(_held_out, sentence.combos):
            if kind in ("verb", "adjective", "place", "relative", "exist", "compare", "go", "route"):
                words = WORDS[left], WORDS[right]
                assert all(named(word, sentence.source) for word in words), (sentence, words)


@pytest.mark.parametrize(
    ("number", "english", "chinese"),
    [
        (0, "zero", "零"),
        (2, "two", "两"),
        (10, "ten", "十"),
        (12, "twelve", "十二"),
        (20, "twenty", "二十"),
        (22, "twenty-two", "二十二"),
        (101, "one hundred and one", "一百零一"),
        (110, "one hundred and ten", "一百一十"),
        (205, "two hundred and five", "两百零五"),
        (222, "two hundred and twenty-two", "两百二十二"),
        (1_010, "one thousand and ten", "一千零一十"),
        (1_200, "one thousand two hundred", "一千二百"),
        (2_000, "two thousand", "两千"),
        (10_000, "ten thousand", "一万"),
        (10_010, "ten thousand and ten", "一万零一十"),
        (12_000, "twelve thousand", "一万二千"),
        (20_500, "twenty thousand five hundred", "两万零五百"),
        (35_000, "thirty-five thousand", "三万五千"),
        (100_000, "one hundred thousand", "十万"),
        (120_000, "one hundred and twenty thousand", "十二万"),
        (305_000, "three hundred and five thousand", "三十万五千"),
    ],
)
def test_numbers(number, english, chinese):
    assert english_number(number) == english
    assert chinese_number(number) == chinese


def test_two_that_is_not_counted():
    assert chinese_number(2, counting=False) == "二"


@pytest.mark.parametrize(
    ("hour", "minute", "spoken", "english", "chinese"),
    [
        (3, 30, True, "half past three", "三点半"),
        (2, 0, True, "two o'clock", "两点"),
        (3, 45, True, "a quarter to four", "差一刻四点"),
        (1, 45, True, "a quarter to two", "差一刻两点"),
        (2, 15, True, "a quarter past two", "两点一刻"),
        (5, 10, True, "ten past five", "五点十分"),
        (12, 50, True, "ten to one", "差十分一点"),
        (8, 5, False, "8:05", "八点零五分"),
        (7, 25, False, "7:25", "七点二十五分"),
    ],
)
def test_clock(hour, minute, spoken, english, chinese):
    assert clock(hour, minute, spoken) == (english, chinese)


@pytest.mark.parametrize(
    ("plural", "chinese"),
    [
        ("cats", "只猫"),
        ("books", "本书"),
        ("tables", "张桌子"),
        ("hens", "只母鸡"),
        ("letters", "封信"),
        ("keys", "把钥匙"),
        ("cups of tea", "杯茶"),
        ("pairs of shoes", "双鞋"),
        ("umbrellas", "把雨伞"),
        ("cars", "辆汽车"),
        ("cows", "头牛"),
    ],
)
def test_measure_words(corpus, plural, chinese):
    numbers = "two 两 three 三 four 四 five 五 six 六".split()
    for part in corpus:
        for source, target in (pair for pair in part if plural in pair.source):
            for number, numeral in zip(numbers[::2], numbers[1::2]):
                if re.search(rf"(?<!-)\b{number} (?:(?!hundred|thousand)[a-z]+ )?{plural}\b", source):
                    assert numeral + chinese[0] in target and chinese[1:] in target, source
    pattern = re.compile(rf"\b(two|three|four|five|six) (?:[a-z]+ )?{plural}\b")
    assert any(pattern.search(pair.source) for pair in corpus.train)


GOLDEN: dict[int, tuple[str, str]] = {
    0: ("If Susan has time on August 1, she will buy six mirrors.", "如果苏珊八月一号有时间，她就会买六面镜子。"),
    1: ("There is a backpack on the wardrobe in the study.", "书房里的衣柜上有一个背包。"),
    2: ("My mother's mirror is stranger than your mother's.", "我母亲的镜子比你母亲的奇怪。"),
    1000: ("On Fridays, the gardener goes to the library by taxi.", "星期五，园丁坐出租车去图书馆。"),
    5000: (
        "The singer that the passenger interviewed last spring was very clever.",
        "乘客去年春天采访的那位歌手很聪明。",
    ),
    12345: (
        "Your niece always rests in the study for forty minutes on weekends.",
        "你侄女周末总是在书房里休息四十分钟。",
    ),
    20000: ("Mrs Zhang has never watched cartoons.", "张太太从来没有看过动画片。"),
    59999: ("This black guitar costs 96 yuan at the night market.", "这把黑色的吉他在夜市上卖九十六元。"),
}

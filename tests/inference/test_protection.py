"""What is protected comes back, once each, nested as it was, around the words that read what it was around."""

import random
import re

import pytest

from nmt_keras.constants import PLACEHOLDERS
from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import stands_in
from nmt_keras.inference.placing import Reading
from nmt_keras.inference.protection import NO_READING, PATTERNS, Protection, named, protected_again
from nmt_keras.inference.translation import Hypothesis, Translation

WORDS = ["ein", "Hund", "läuft", "schnell", "nach", "Hause", "马", "ganz", "(gut)", "rot,"]


def _reading(source, translation, links, piece=r"\S+"):
    """Pieces are words between spaces; `links` are of each word of the translation, the number of a source word."""

    def spans(text):
        found = [match.span() for match in re.finditer(piece, text)]
        return zip(*[[len(text[:place].encode()) for place in span] for span in found]) if found else ((), ())

    (starts, ends), (source_starts, source_ends) = spans(translation), spans(source)
    return Reading(starts, ends, links, source_starts, source_ends)


def _back(text, translation, links, patterns=("tag", "url", "email", "placeholder")):
    protected = Protection(patterns).take_out(text)
    return protected.put_back(translation, _reading(protected.plain, translation, links))


@pytest.mark.parametrize(
    "text, translation, links, expected",
    [
        ("the <b>red dog</b> runs", "rennt der rote Hund", [3, 0, 1, 2], "rennt der <b>rote Hund</b>"),
        ("the <b>dog</b> runs.", "der Hund rennt .", [0, 1, 2, 2], "der <b>Hund</b> rennt ."),
        ("a <b><i>red</i> dog</b>", "ein Hund rot", [0, 2, 1], "ein <b>Hund <i>rot</i></b>"),
        ("click {x} now", "jetzt klicken", [1, 0], "jetzt klicken {x}"),
        ("see https://a.b/c?d=1, then go", "geh dann , sieh", [3, 2, 1, 0], "geh dann , sieh https://a.b/c?d=1"),
        ("a dog<br/>runs", "ein Hund rennt", [0, 1, 2], "ein Hund<br/>rennt"),
        ("a hot<b>dog</b>s bun", "ein Würstchen", [0, 1], "ein <b>Würstchen</b>"),
        ("<p>a dog</p>", "ein Hund", [0, 1], "<p>ein Hund</p>"),
        ("<b></b>", "", [], "<b></b>"),
        ("  {a}   {b} ", "", [], "{a} {b}"),
        ("a <i></i> dog", "ein Hund", [0, 1], "ein <i></i> Hund"),
        ("</b> a dog <i>", "ein Hund", [0, 1], "</b> ein Hund <i>"),
        ("no tags", "nichts", [0], "nichts"),
        ("a <b>dog</b>", "ein <b> Hund", [0, 1, 1], "ein <b>Hund</b>"),
        ("a <b>dog</b>", "", [], "<b></b>"),
        ("a <b>dog\nruns</b>\n", "ein Hund\nrennt\n", [0, 1, 2], "ein <b>Hund\nrennt</b>\n"),
        ("a\n<b>dog</b>\n{x} b", "ein\nHund\nc", [0, 1, 2], "ein\n<b>Hund</b>\n{x} c"),
    ],
)
def test_it_is_put_where_it_is_read(text, translation, links, expected):
    assert _back(text, translation, links) == expected


@pytest.mark.parametrize(
    "text, translation, expected",
    [
        ("Hello <b>dear {name}</b>!", "Hallo liebe!", "Hallo <b>liebe {name}</b>!"),
        ("See <b>the page http://x.y/z</b>.", "Siehe die Seite.", "Siehe <b>die Seite http://x.y/z</b>."),
        ("Ask <i>Bob at a@b.de</i>!", "Frage Bob bei!", "Frage <i>Bob bei a@b.de</i>!"),
        ("Call <b>us at {x}</b>, now", "Ruf uns unter, jetzt", "Ruf <b>uns unter {x}</b>, jetzt"),
        ("The page closes {name}.", "Die Seite schließt.", "Die Seite schließt {name}."),
        ("It is {a} or {b}!", "Es ist oder!", "Es ist {a} oder {b}!"),
        ("The <b>dog sees {x}</b> the horse.", "Der Hund sieht den Gaul.", "Der <b>Hund sieht {x}</b> den Gaul."),
        ("The <b>red {x} </b>dog runs.", "Der rote Hund rennt.", "Der <b>rote {x}</b> Hund rennt."),
        ("The <b>dog <br/></b> runs.", "Der Hund rennt.", "Der <b>Hund <br/></b> rennt."),
        ("The <b>dog <i>{x}</i> </b>runs.", "Der Hund rennt.", "Der <b>Hund <i>{x}</i></b> rennt."),
    ],
)
def test_a_span_before_the_end_of_a_tag_and_a_sign_keeps_its_space(text, translation, expected):
    protected = Protection(["tag", "url", "email", "placeholder"]).take_out(text)
    links = range(len(re.findall(r"\w+|[^\w\s]", translation)))
    assert protected.put_back(translation, _reading(protected.plain, translation, links, r"\w+|[^\w\s]")) == expected


@pytest.mark.parametrize(
    "text, translation, expected",
    [
        ("He closes {name}.", "Er schließt {name}.", "Er schließt {name}."),
        ("&lt;b&gt; the dog", "<b>der Hund</b>", "&lt;der&gt; Hund"),
        ("no tag here", "kein <b>Tag</b> hier", "kein Tag hier"),
        ("see 3 dogs", "siehe https://a.b 3 Hunde", "siehe 3 Hunde"),
        ("a < b", "a < b", "a < b"),
        ("a spoon", "der Löffel bei https://a.b.", "der Löffel bei."),
        ("a {x}\nspoon.\n", "ein {y}\n{z} Löffel.{y}\n{z}", "ein \n Löffel {x}.\n"),
        ("a {x} spoon.", "der {y}Löffel{z}.", "der Löffel {x}."),
        ("a {x} spoon", "ein{y}Löffel {z}, {y} ja{z}!", "ein Löffel, {x} ja!"),
    ],
)
def test_what_a_model_makes_up_is_taken_out(text, translation, expected):
    protected = Protection(["tag", "entity", "url", "placeholder"]).take_out(text)
    assert protected.put_back(translation, NO_READING) == expected


@pytest.mark.parametrize(
    "translation, expected",
    [
        ("｟1｠der Hund sieht｟2｠.", "{a} der Hund sieht http://b.c."),
        ("｟1｠｟2｠", "{a} http://b.c"),
        ("der ｟1｠, ｟2｠", "der {a}, http://b.c"),
    ],
)
def test_symbols_become_spans_with_the_spaces_that_they_need(translation, expected):
    protected = Protection(["url", "placeholder"], has_placeholders=True).take_out("the {a} dog sees http://b.c .")
    for number, symbol in enumerate(protected._symbols, 1):
        translation = translation.replace(f"｟{number}｠", f"<{symbol}>")
    translation = translation.replace("<", "").replace(">", "")
    assert protected.put_back(translation, NO_READING) == expected


@pytest.mark.parametrize(
    "text, translation, links, terms, expected",
    [
        (
            "the {x} fire brigade",
            "die freiwillige Feuerwehr",
            [0, 1, 1],
            ["freiwillige Feuerwehr"],
            "die {x} freiwillige Feuerwehr",
        ),
        (
            "the fire {x} brigade",
            "die freiwillige Feuerwehr",
            [0, 1, 2],
            ["freiwillige Feuerwehr"],
            "die freiwillige Feuerwehr {x}",
        ),
        (
            "the fire {x} brigade",
            "die freiwillige Feuerwehr",
            [0, 1, 2],
            ["Freiwillige Feuerwehr"],
            "die freiwillige {x} Feuerwehr",
        ),
        (
            "the <b>fire</b> brigade",
            "die freiwillige Feuerwehr",
            [0, 1, 2],
            ["freiwillige Feuerwehr"],
            "die <b>freiwillige Feuerwehr</b>",
        ),
        ("a <b>fire</b> <i>brigade</i> x", "a b c x", [0, 1, 2, 3], ["b c"], "a <b>b c</b> <i></i> x"),
        ("a <b>x fire</b> brigade", "a x b c", [0, 1, 2, 3], ["b c", "x b"], "a <b>x b c</b>"),
        ("a <b>b <i>c</b> d</i> e", "a b c d e", [0, 1, 2, 3, 4], ["c d"], "a <b>b <i>c d</b></i> e"),
        ("a <b></b>b {x} c", "a b d c", [0, 1, 1, 2], ["a b", "d c"], "a b <b></b> d c {x}"),
        ("大 {x} 狗 人", "大 狗 人", [0, 1, 2], ["大 狗"], "大 狗 {x} 人"),
    ],
)
def test_nothing_is_put_into_a_term(text, translation, links, terms, expected):
    protected = Protection(["tag", "placeholder"]).take_out(text)
    assert protected.put_back(translation, _reading(protected.plain, translation, links), terms) == expected


_MARKS = Protection(["tag", "placeholder", "url", "email"])


def test_terms_are_whole_in_random_texts():
    random_ = random.Random(5)
    marks = ["{x}", "<b>", "</b>", "<i>", "</i>", "<br/>", "a@b.de", "http://a.b"]
    for number in range(2000):
        words = [random_.choice("abcdef") for _ in range(random_.randrange(1, 8))]
        text = " ".join(each for word in words for each in [*random_.choices(marks, k=random_.randrange(3)), word])
        said = [random_.choice("uvwxyz") + random_.choice(["", "", ".", ","]) for _ in range(random_.randrange(2, 8))]
        start = random_.randrange(len(said) - 1)
        term = " ".join(said[start : start + random_.randrange(2, 4)])
        if number % 2:  # tags that touch what is beside them
            text = re.sub(r" (</.>)", r"\1", re.sub(r"(<.>) ", r"\1", text))
        protected = Protection(["tag", "placeholder", "url", "email"]).take_out(text)
        links = [random_.randrange(len(words)) for _ in said]
        reading = _reading(protected.plain, " ".join(said), links)
        back = protected.put_back(" ".join(said), reading, [term, "not there"])
        assert stands_in(term, back), (text, back)
        found = [[one[start:end] for start, end in _MARKS.spans_of(one)] for one in (text, back)]
        assert sorted(found[0]) == sorted(found[1]), (text, back)


def _copied(text, patterns=tuple(PATTERNS)):
    """What a model makes of a text that says each word again."""
    plain = Protection(patterns).take_out(text).plain
    return _back(text, " ".join(plain.split()), range(len(plain.split())), patterns)


@pytest.mark.parametrize(
    "text",
    [
        'He said "{name}" to me',
        "Hello, {name}!",
        "{0}, {1}, and {2}.",
        "{0}:{1}",
        "a/{0}, #{1}, @{2} and €{3}",
        "Mail: me@a.org, or call.",
        "价格 {0} 元",
        "价格{0}元",
        "价格 {0}元",
        "„{0}“ {1} and “{2}” {3}",
        "{0} & {1} - x",
        '<i>"{0}"</i> (x)',
    ],
)
def test_spaces_are_where_they_were(text):
    assert _copied(text) == text


def test_spaces_are_where_they_were_in_random_texts():
    rng = random.Random(1)
    for _ in range(2000):
        words = []
        for number in range(rng.randint(1, 7)):
            word = rng.choice(["dog", "runs", "Größe", f"{{{number}}}", "me@a.org", f"https://a.b/c?d={number}", "17"])
            around = rng.choice(['"{}"', "({})", "„{}“", "<b>{}</b>", '<i>"{}"</i>', *["{}"] * 6])
            words.append(around.format(word) + rng.choice(["", "", "", *",.;:!?", " -", " /", " &"]))
        assert _copied(" ".join(words)) == " ".join(words)


def test_a_tag_within_a_word_is_around_the_word():
    assert _back("<b>T</b>he dog", "der Hund", [0, 1]) == "<b>der</b> Hund"
    assert _back("the W<i>o</i>man runs", "die Frau rennt", [0, 1, 2]) == "die <i>Frau</i> rennt"
    assert _back("one <b>dog </b>runs", "ein Hund rennt", [0, 1, 2]) == "ein <b>Hund</b> rennt"


def test_words_of_two_blocks_never_become_one():
    for first, last in (("<li>", "</li>"), ("<td>", "</td>"), ("<H1>", "</H1>"), ("<p class='x'>", "</p>")):
        for between in ("", "<b>", "</i>", "<b></b>"):
            text = f"{first}One dog{last}{between}{first}Two men{last}"
            assert Protection(["tag"]).take_out(text).plain == "One dog Two men", text
    assert Protection(["tag"]).take_out("<g id='1'>H</g><g id='2'>ello</g>").plain == "Hello"
    found = _back("<li>one dog</li><li>two men</li>", "ein Hund zwei Männer", [0, 1, 2, 3])
    assert found == "<li>ein Hund</li><li>zwei Männer</li>"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<p>two dogs play.</p>", "<p>zwei Hunde spielen.</p>"),
        ("<ul><li>two dogs</li> <li>play.</li></ul>", "<ul><li>zwei Hunde</li> <li>spielen.</li></ul>"),
        ("<b>two</b> dogs play.", "<b>zwei</b> Hunde spielen."),
    ],
)
def test_the_full_stop_of_a_paragraph_is_in_it_whatever_it_reads(text, expected):
    protected = Protection(["tag"]).take_out(text)
    assert protected.plain == "two dogs play."
    for read in (0, 3):  # of the source pieces: another word, the end of the sentence
        reading = Reading([0, 5, 11, 18], [4, 10, 18, 19], [0, 1, 2, read], [0, 4, 9, 0], [3, 8, 13, 0])
        assert protected.put_back("zwei Hunde spielen.", reading) == expected


def test_brackets_around_a_span_go_with_it():
    protected = Protection(["url", "email", "placeholder", "tag"]).take_out(
        'a (https://a.b) "({x})" [me@x.de], (<b>) c'
    )
    assert [span.text for span in protected._spans] == ["(https://a.b)", '"({x})"', "[me@x.de]", "<b>"]
    assert _with_symbols("a (5) b")[0].plain.replace("｟", "").count("(") == 1  # which a model with symbols sees


def test_no_span_goes_into_a_prefix():
    text = Protection(["tag"], has_placeholders=True).take_out("a <x>b</x> c")  # symbols of seven bytes
    whole, behind = "c <x>d</x> e", "c d <x></x> e"
    sources = {"source_piece_starts": (0, 9, 18), "source_piece_ends": (1, 10, 19)}
    pieces = {"piece_starts": (0, 2, 4), "piece_ends": (1, 3, 5)}
    for prefix, was_kept, expected in (
        ("c", True, whole),
        ("", True, whole),
        ("c d", True, behind),
        ("c d", False, whole),
    ):
        hypothesis = Hypothesis("c d e", 0.0, 0.0, alignment=(0, 1, 2), outputs=pieces)
        translation = Translation([hypothesis], False, (), (), {"is_prefix_kept": was_kept, **sources})
        again = protected_again(translation, text, prefix=prefix)
        assert again.text == expected and again.outputs["is_prefix_kept"] == was_kept


def test_a_backslash_that_python_ate_is_a_line():
    with pytest.raises(UserError, match="has a control character, .*: give it with an r before"):
        Protection(["\bAB\b"])


def test_names_and_expressions_are_given_one_by_one():
    with pytest.raises(
        UserError, match="has the name tag and a regular expression: give them one by one, as in --prot"
    ):
        named([r"tag,AB-\d+"])


def test_a_point_reads_the_point_of_a_piece_that_is_more():
    assert _back("a dog{x}. b", "ein Hund. b", [0, 1, 2]) == "ein Hund{x}. b"


@pytest.mark.parametrize("tags", ["<B>|</b>", "<a title=don't>|</a>", "<Li>|</lI>"])
def test_tags_that_are_written_in_two_ways_are_a_pair(tags):
    first, last = tags.split("|")
    assert _back(f"aa {first}bb cc{last} dd", "dd cc bb aa", [3, 2, 1, 0]) == f"dd {first}cc bb{last} aa"


def test_a_model_that_reads_nothing_is_taken_to_read_in_order():
    assert _back("a <b>dog</b> runs", "ein Hund rennt", [-1, -1, -1]) == "ein <b>Hund</b> rennt"


def test_a_piece_that_reads_the_end_of_a_sentence_moves_no_tag():
    text = Protection(["tag"]).take_out("<b>a</b> dog.")
    spans = {"piece_starts": [0, 4, 8], "piece_ends": [3, 8, 9]}
    source = {"source_piece_starts": [0, 2, 0], "source_piece_ends": [1, 6, 0]}
    hypothesis = Hypothesis("ein Hund.", 0.0, 0.0, alignment=[0, 1, 2], outputs=spans)
    found = protected_again(Translation([hypothesis], False, ["a", "dog.", "</s>"], outputs=source), text)
    assert found.text == "<b>ein</b> Hund."


def _random_text(rng, depth=0):
    """Words with nested tags, empty and lone ones, and placeholders."""
    parts = []
    for _ in range(rng.randint(0, 4)):
        kind = rng.random()
        if kind < 0.45 or depth > 4:
            parts.append(rng.choice(["a", "dog", "runs", "fast,", "é", "狗"]))
        elif kind < 0.8:
            name = rng.choice(["b", "i", "g", "x:y"])
            inside = _random_text(rng, depth + 1)
            parts.append(f'<{name} id="{rng.randint(1, 99)}">{inside}</{name}>')
        else:
            parts.append(
                rng.choice([f"<x id='{rng.randint(1, 99)}'/>", f"{{v{rng.randint(1, 99)}}}", f"%{rng.randint(1, 9)}s"])
            )
    return rng.choice(["", " "]).join(parts)


_MARK = re.compile(r"</?[a-z][^<>]*>|\{v\d+\}|%\d+s")


def _tree(text):
    """The parent of each mark: tuples of a mark and those around it, sorted; None where tags cross."""
    around, found = [], []
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark.startswith("</"):
            if not around or around[-1].split(" ")[0][1:] != mark[2:-1]:
                return None
            around.pop()
            continue
        found.append((mark, tuple(around)))
        if mark.startswith("<") and not mark.endswith("/>"):
            around.append(mark)
    return sorted(found) if not around else None


def _random_case(seed, text):
    rng = random.Random(seed)
    protected = Protection(["tag", "placeholder"]).take_out(text)
    count = rng.randint(0, 7)
    translation = " ".join(rng.choice(WORDS) for _ in range(count))
    size = len(protected.plain.split())
    links = [rng.randint(-1, size - 1) for _ in range(count)]
    return protected, translation, _reading(protected.plain, translation, links)


@pytest.mark.parametrize("part", range(4))
def test_no_mark_is_lost_invented_or_moved_out_of_what_is_around_it(part):
    """2,000 random nestings, with random translations and random alignments."""
    nested = 0
    for seed in range(part * 500, part * 500 + 500):
        text = _random_text(random.Random(seed))
        protected, translation, reading = _random_case(seed, text)
        found = protected.put_back(translation, reading)
        assert sorted(_MARK.findall(found)) == sorted(_MARK.findall(text)), (text, found)
        assert _tree(found) == _tree(text), (text, found)
        if protected.plain.strip():
            assert "".join(_MARK.sub("", found).split()) == "".join(translation.split()), (text, found)
        assert found == " ".join(found.split()) or "  " not in found
        nested += any(around for _, around in _tree(text))
    assert nested > 50


def test_tags_that_cross_and_lone_ones_come_back_too():
    """2,000 random texts of marks in any order."""
    rng = random.Random(5)
    for seed in range(2000):
        marks = ["<b>", "</b>", "<i>", "</i>", "<x/>", "{v1}", "https://a.b/c", "me@a.org", "dog", "a", "."]
        text = rng.choice(["", " "]).join(rng.choice(marks) for _ in range(rng.randint(0, 9)))
        protected = Protection(["tag", "placeholder", "url", "email"]).take_out(text)
        _, translation, reading = _random_case(seed, protected.plain)
        found = protected.put_back(translation, reading)
        spans = [span.text for span in protected._spans]
        left = found
        for span in sorted(spans, key=len, reverse=True):
            assert span in left, (text, found, span)
            left = left.replace(span, "", 1)
        if protected.plain.strip():
            assert "".join(left.split()) == "".join(translation.split()), (text, found)


def test_a_tag_that_closes_comes_after_the_one_that_opens():
    rng = random.Random(3)
    for seed in range(3000):
        marks = [f"<{mark}t{number}>" for number in range(3) for mark in ("", "/")]
        words = [f"w{number}" for number in range(rng.randint(1, 4))]
        rng.shuffle(marks)
        parts = marks + words
        rng.shuffle(parts)
        text = " ".join(parts)
        pairs = [n for n in range(3) if text.index(f"<t{n}>") < text.index(f"</t{n}>")]
        protected, translation, reading = _random_case(seed, text)
        found = protected.put_back(translation, reading)
        for number in pairs:
            assert found.index(f"<t{number}>") < found.index(f"</t{number}>"), (text, found)


def test_a_pair_that_crosses_another_is_around_its_own_words():
    found = _back("<b>a red <i>dog</b> runs</i>", "ein roter Hund rennt", [0, 1, 2, 3])
    assert found == "<b>ein roter <i>Hund</b> rennt</i>"
    assert _back("<b>aa <i>bb</b></i>", "bb aa", [1, 0]) == "<b><i>bb</i> aa</b>"


def test_pairs_that_cross_are_around_their_own_words_in_any_order():
    rng = random.Random(4)
    tried = 0
    for _ in range(2000):
        size = rng.randint(4, 7)
        words = [f"w{number}" for number in range(size)]
        a, b, c, d = sorted(rng.sample(range(size), 4))
        tags = {a: "<b>{}", b: "<i>{}", c: "{}</b>", d: "{}</i>"}
        text = " ".join(tags.get(number, "{}").format(word) for number, word in enumerate(words))
        order = rng.sample(range(size), size)
        found = _back(text, " ".join(words[number] for number in order), order)
        for name, first, last in (("b", a, c), ("i", b, d)):
            places = [place for place, number in enumerate(order) if first <= number <= last]
            if places[-1] - places[0] == last - first:  # they are beside each other
                inside = re.search(f"<{name}>(.*)</{name}>", found)[1]
                assert set(re.findall(r"w\d", inside)) == set(words[first : last + 1]), (text, order, found)
                tried += 1
    assert tried > 300


@pytest.mark.parametrize(
    "name, text, found",
    [
        ("url", "at http://a.b/c?d=1&e=2. And (www.x.org/y), ok", ["http://a.b/c?d=1&e=2", "www.x.org/y"]),
        ("email", "Mail a.b+c@d-e.co.uk, please", ["a.b+c@d-e.co.uk"]),
        ("number", "3 dogs, -1,000.50 and 50% at 12:30 of B2", ["3", "-1,000.50", "50%", "12:30"]),
        ("number", "80.5kg, v1.2.3, COVID-19, Größe5 and 2ｘ", []),
        ("number", "2026-11-27, 1.2.3 and 3-5, a 10-year plan.", ["2026-11-27", "1.2.3", "3-5", "10"]),
        ("number", "12.", ["12"]),
        ("placeholder", "%ld %lu %@ %zu {n, plural, one {# of {x}} other {#}} {", None),
        ("url", "https://例.cn/x and http://münchen.de.", ["https://例.cn/x", "http://münchen.de"]),
        (
            "tag",
            "<_x> <SCRIPT>a < b</SCRIPT> <a title=don't>x</a>",
            ["<_x>", "<SCRIPT>a < b</SCRIPT>", "<a title=don't>", "</a>"],
        ),
        (
            "placeholder",
            "{0} {{x.y}} ${v} %s %(n)d %1$s $1 50% off",
            ["{0}", "{{x.y}}", "${v}", "%s", "%(n)d", "%1$s", "$1"],
        ),
        ("tag", "a < b <br> <a href='x'>y</a> 1<2>0", ["<br>", "<a href='x'>", "</a>"]),
        ("placeholder", "$19.99, $1,000 and $2; %dx%d %dpx, 100%sure, %1$s", ["$2", "%d", "%d", "%d", "%1$s"]),
        (
            "tag",
            'a <bpt id="1">&lt;b&gt;</bpt>x<ept id="1"/> <ph/>',
            ['<bpt id="1">&lt;b&gt;</bpt>', '<ept id="1"/>', "<ph/>"],
        ),
        ("tag", "<script>a < b</script> <![CDATA[<x>]]>", ["<script>a < b</script>", "<![CDATA[<x>]]>"]),
        ("entity", "a &amp; b &#38; &#x26; & c;", ["&amp;", "&#38;", "&#x26;"]),
        ("url", "(https://a.b/c_(d)) and https://a.b/c).", ["https://a.b/c_(d)", "https://a.b/c"]),
        (
            "url",
            "https://a.b/{id}, [see https://a.b/[v]] {www.a.b/x} 'https://a.b/c' https://a.b/?a[]=1&b[].",
            ["https://a.b/{id}", "https://a.b/[v]", "www.a.b/x", "https://a.b/c", "https://a.b/?a[]=1&b[]"],
        ),
        (
            "url",
            "http://[::1]:80/x, https://a.b/{x and https://a.b/x}].",
            ["http://[::1]:80/x", "https://a.b/{x", "https://a.b/x"],
        ),
        ("[A-Z]{2}-\\d+", "ticket AB-12 and a-1", ["AB-12"]),
        (
            "url",
            "https://a.b/{{id}} https://a.b/A_(b_(c)), https://a.b/[[x]].",
            ["https://a.b/{{id}}", "https://a.b/A_(b_(c))", "https://a.b/[[x]]"],
        ),
    ],
)
def test_patterns_find_what_they_are_named_for(name, text, found):
    if found is None:
        found = ["%ld", "%lu", "%@", "%zu", "{n, plural, one {# of {x}} other {#}}"]
    assert [text[start:end] for start, end in Protection([name]).spans_of(text)] == found


def test_a_regular_expression_that_is_none_or_finds_nothing_or_never_ends_is_one_line():
    with pytest.raises(
        UserError, match="neither the name of a pattern .*tag, entity, url, email, number, placeholder.* nor a"
    ):
        Protection(["a("])
    with pytest.raises(UserError, match="finds the empty string"):
        Protection(["a*"])
    with pytest.raises(UserError, match="finds the empty string"):
        Protection([r"\b"])
    with pytest.raises(UserError, match="is a list of patterns"):
        Protection("tag")
    with pytest.raises(UserError, match="neither the name"):
        Protection(["(?x)(a #c"])
    with pytest.raises(UserError, match="does not end on three characters"):
        Protection(["(?R)"])
    for misspelt in ("tags", "TAG,Url", ""):
        with pytest.raises(UserError, match="is no name of a pattern: give some of tag, entity"):
            Protection([misspelt])
    with pytest.raises(UserError, match="is a list of patterns"):
        Protection(None)
    for large in ("(?:(?:a{1000}){1000}){1000}", "(?:a)" * 300):
        with pytest.raises(UserError, match="is too large"):
            Protection([large])


def test_a_text_that_takes_too_long_is_not_protected_and_says_so():
    slow = Protection([r"(?:(?:a|aa)+)+\d", "tag"]).take_out("<b>" + "a" * 10_000)
    assert not slow.is_protected and slow.plain == "a" * 10_000  # the named pattern ends in time
    assert slow.put_back("x", _reading(slow.plain, "x", [0])) == "<b>x"


def test_of_several_patterns_the_longest_match_is_taken():
    found = Protection(["placeholder", "number"]).take_out("{12} $1,000.50 and 7")
    assert [span.text for span in found._spans] == ["{12}", "1,000.50", "7"]


def test_expressions_do_not_see_each_other():
    found = Protection(["(?:xyz)", "(?i)abc", r"(a)\1", r"(b)\1", "(?x) c c #c"]).take_out("XYZ ABC aa bb cc")
    assert [span.text for span in found._spans] == ["ABC", "aa", "bb", "cc"]
    assert named(["tag, url", r"\d{2,4}", "email"]) == ["tag", "url", r"\d{2,4}", "email"]


def test_text_without_spaces_keeps_what_is_around():
    text = "见https://a.b/c的页面。邮件a@b.cn可以，买3个{x}吧"
    found = Protection(["url", "email", "number", "placeholder"]).take_out(text)
    assert [span.text for span in found._spans] == ["https://a.b/c", "a@b.cn", "3", "{x}"]
    assert found.plain == "见的页面。邮件可以，买个吧"
    reading = Reading([0, 5], [5, 9], [0, 1], [0, 6], [6, 12])
    assert Protection(["placeholder"]).take_out("点击{x}现在").put_back("click now", reading) == "click {x} now"


def test_what_is_in_a_span_stays_and_attributes_may_hold_anything():
    text = '<a title="x  y">  {n  m} </a>'
    assert _back(text, "", []) == '<a title="x  y"> {n  m} </a>'
    assert _back('<a title="a>b">x y</a>', "u v", [0, 1]) == '<a title="a>b">u v</a>'


def test_bytes_that_are_no_text_move_nothing():
    text = "\udcff" * 4 + " a <b>dog</b> runs"
    assert _back(text, "X ein Hund rennt", [0, 1, 2, 3]) == "X ein <b>Hund</b> rennt"


def test_tags_in_many_tags_come_back():
    text = "<b>" * 600 + "word" + "</b>" * 600
    found = _back(text, "Wort", [0])
    assert found.count("<b>") == found.count("</b>") == 600 and found.startswith("<b>") and "Wort" in found


def test_known_patterns_are_found_in_time_in_long_texts():
    protection = Protection(PATTERNS)
    for text in (
        "<" * 10_000,
        "{" * 10_000,
        "a@" * 5_000,
        "1," * 5_000,
        "http://" * 1_400,
        "%(" * 5_000,
        "<a " * 3_000,
        "www.a" + "{" * 10_000,
        "www." + "{a[b" * 2_500,
        "www.a" + "{" + "a" * 10_000 + ".",
    ):
        assert protection.take_out(text).is_protected, text[:9]


def _with_symbols(text, patterns=("tag", "number")):
    protected = Protection(patterns, has_placeholders=True).take_out(text)
    return protected, re.findall("|".join(PLACEHOLDERS), protected.plain)


def test_a_model_with_placeholders_says_where_they_go():
    protected, [one, two, three] = _with_symbols("a <b>red</b> dog of 12")
    assert protected.plain == f"a {one}red{two} dog of {three}"
    assert protected.put_back(f"{three} Hunde, {one}rot{two}", NO_READING) == "12 Hunde, <b>rot</b>"


@pytest.mark.parametrize(
    "translation", ["{0}rot Hund", "{1}rot{0} Hund {2}", "{0}rot{1} {2} {2}", "rot Hund", "{0}rot{1} Hund {2} ｟9｠"]
)
def test_where_it_does_not_say_of_each_the_alignment_does(translation):
    protected, symbols = _with_symbols("a <b>red</b> dog 12")
    found = protected.put_back(translation.format(*symbols), NO_READING)
    assert [found.count(span) for span in ("<b>", "</b>", "12")] == [1, 1, 1]
    assert found.index("<b>") < found.index("</b>") and not any(symbol in found for symbol in symbols)


def test_what_a_server_says_of_pieces_may_be_anything():
    """Pieces without bytes, ends before starts, places beyond the texts: nothing is lost."""
    rng = random.Random(6)
    text = "<b>a</b> dog {x} <i>runs</i>."
    protected = Protection(["tag", "placeholder"]).take_out(text)
    for _ in range(500):
        size = rng.randint(0, 5)
        starts, ends, links, source_starts, source_ends = ([rng.randint(-3, 30) for _ in range(size)] for _ in range(5))
        found = protected.put_back("ein Hund, rennt", Reading(starts, ends, links, source_starts, source_ends))
        assert sorted(_MARK.findall(found)) == sorted(["<b>", "</b>", "<i>", "</i>"]) and found.count("{x}") == 1
        assert found.index("<b>") < found.index("</b>") and found.index("<i>") < found.index("</i>")


def test_pairs_of_tags_stay_in_each_other():
    protected, symbols = _with_symbols("<b>a <i>red</i> dog</b> x <u>y</u>")
    nested = "{4}y{5} {0}ein {1}roter{2} Hund{3}".format(*symbols)
    assert protected.put_back(nested, NO_READING) == "<u>y</u> <b>ein <i>roter</i> Hund</b>"
    for crossing in ("{4}y{5} {0}ein {1}roter{3} Hund{2}", "{4}y{0}{5} ein {1}roter{2} Hund{3}"):
        found = protected.put_back(crossing.format(*symbols), NO_READING)
        places = [found.index(tag) for tag in ("<b>", "<i>", "</i>", "</b>", "<u>", "</u>")]
        assert places == sorted(places)  # put back by the alignment: of none, in the order of the source


def test_text_that_looks_like_a_placeholder_is_protected_too_and_many_spans_need_none():
    protected, [one, two] = _with_symbols(f"say {PLACEHOLDERS[3]} 5")
    assert protected.put_back(f"{two} sag {one}", NO_READING) == f"5 sag {PLACEHOLDERS[3]}"
    protected, symbols = _with_symbols(" a ".join(map(str, range(20))))
    assert not symbols and sorted(protected.put_back("x", NO_READING).split()) == sorted([*map(str, range(20)), "x"])
    assert _with_symbols("12 <b>")[0].put_back("x", NO_READING) == "12 <b>"  # nothing else is in it


def test_a_protection_is_that_of_the_model_it_is_for():
    plain = Protection(["tag"])
    assert plain.for_model(["url"]).take_out("a <b>").plain != "a " == plain.take_out("a <b>").plain
    assert plain.for_model(["url"]).for_model(()).take_out("a ｟1｠<b>").plain == "a ｟1｠"
    both = plain.for_model(["tag", "number"]).take_out("a <b> 5")  # the model cannot read a number any more
    assert "5" not in both.plain and "<" not in both.plain


def test_symbols_that_a_model_makes_up_are_taken_out():
    assert _with_symbols("a dog")[0].put_back("ein ｟7｠ Hund", NO_READING) == "ein Hund"
    protected, symbols = _with_symbols(" a ".join(map(str, range(9))))
    found = protected.put_back("x ｟2｠ y", NO_READING)
    assert not symbols and "｟" not in found and "｠" not in found
    assert sorted(found.split()) == sorted(["x", "y", *map(str, range(9))])


def test_a_beginning_has_the_symbols_of_its_spans():
    protected, [one, two] = _with_symbols("a 5 and 7 dogs")
    assert protected.beginning("7 Hunde und 5") == f"{two} Hunde und {one}"
    assert protected.put_back(f"{two} Hunde und {one}.", NO_READING) == "7 Hunde und 5."
    protected, [one, two] = _with_symbols("1 dog and 15 cats")
    assert protected.beginning("15 Katzen und 2") == f"{two} Katzen und 2"
    assert protected.beginning("1 Hund, 1") == f"{one} Hund, {two}"  # of 15, which it is the beginning of
    assert protected.beginning("1 Hund, 1 ") == f"{one} Hund, 1 "


@pytest.mark.parametrize(
    "text, prefix, translation, expected",
    [
        ("The man sees it.", "Der <b>Mann</b>", "Der <b>Mann</b> sieht es.", "Der <b>Mann</b> sieht es."),
        ("12 letters today.", "12 Briefe", "{1} Briefe kauft er {1} heute.", "12 Briefe kauft er heute."),
        (
            "A <b>dog</b> today.",
            "<i>Er</i> ",
            "<i>Er</i> malt den {1}Hund{2} heute.",
            "<i>Er</i> malt den <b>Hund</b> heute.",
        ),
        (
            "A <b>dog</b> today.",
            "<i>Er</i> ",
            "<i>Er</i> malt den Hund heute.",
            "<i>Er</i> malt den <b>Hund heute</b>.",
        ),
        ("A <b>dog</b> today.", "Heute <b>malt</b>", "Heute {1}malt{2} er.", "Heute <b>malt</b> er."),
        ("A <b>dog</b> today.", "<b>Heute", "{1}Heute malt er.", "<b>Heute malt er</b>."),
        ("5 dogs and {name}", "Heute {na", "Heute {2} sieht er {1}.", "Heute {name} sieht er 5."),
        ("5 dogs and {name}", "Heute {na", "Heute {2} sieht er {1} https://a.b.", "Heute {name} sieht er 5."),
        ("5 dogs", "{x}", "{x} Hunde{1}", "{x} Hunde 5"),
        ("5 dogs", "5 Hunde", "{1} Hunde{1}malen", "5 Hunde malen"),
        ("5 {a}", "bei 5 ", "bei {1} {2}{2}.", "bei 5 {a}"),
    ],
)
def test_a_translation_begins_as_given_whatever_is_in_the_beginning(text, prefix, translation, expected):
    protected = Protection(("tag", "number", "url", "placeholder"), has_placeholders=True).take_out(text)

    def shown(with_numbers):
        return re.sub(r"\{(\d)\}", lambda match: protected._symbols[int(match[1]) - 1], with_numbers)

    hypothesis = Hypothesis(shown(translation), 0.0, 0.0)
    kept = Translation([hypothesis], False, (), (), {"is_prefix_kept": True})
    found = protected_again(kept, protected, prefix=prefix)
    assert found.text == expected and found.outputs["is_prefix_kept"]


@pytest.mark.parametrize(
    "text, prefix, begun, translation, expected",
    [
        ("A <b>dog</b> today.", "Der <b>Hund", "Der Hund", "Der Hund heute.", "Der <b>Hund</b> heute."),
        ("See (https://a.b/c) now.", "Bei (https:/", "Bei ", "Bei jetzt .", "Bei (https://a.b/c) jetzt ."),
        ("See (https://a.b/c) now.", "Bei", "Bei", "Bei jetzt .", "Bei (https://a.b/c) jetzt ."),
        ("For {name}, now.", "Heute {na", "Heute ", "Heute jetzt .", "Heute {name} jetzt ."),
        ("For {name}, now.", "{name}", "", "Heute jetzt .", "{name} Heute jetzt ."),
        ("a<br/>b {x}", "c<br/>d", "c d", "c d e", "c<br/>d e {x}"),
        ("A dog.", "Der <b>Hund</b>", "Der <b>Hund</b>", "Der <b>Hund</b> da.", "Der <b>Hund</b> da."),
        ("{x} dogs see us.", "Hun", "Hun", "Hunde sehen uns.", "Hunde {x} sehen uns."),  # a word that is not over
        (
            "A <b>big dog</b> sees us.",
            "Ein gro",
            "Ein gro",
            "Ein großer Hund sieht uns.",
            "Ein großer <b>Hund</b> sieht uns.",
        ),
        ("The <b>dog</b> runs", "Der <b>Hund</", "Der Hund", "Der Hund rennt", "Der <b>Hund</b> rennt"),
        ("a <br/>dog", "Hund<br", "Hund", "Hund x", "Hund<br/> x"),
        (
            "See https://a.b/c.html now",
            "Siehe https://a.b/c.",
            "Siehe ",
            "Siehe jetzt",
            "Siehe https://a.b/c.html jetzt",
        ),
        ("For {name}", "Heute {", "Heute ", "Heute x", "Heute {name} x"),
        ("<script>x</script> dog", "<script>x", "", "Hund da", "<script>x</script> Hund da"),
        ("Page ({x}) now", "Seite ({x", "Seite ", "Seite jetzt", "Seite ({x}) jetzt"),
        ("A ({x}) dog", "Ein {x} Hund", "Ein Hund", "Ein Hund da", "Ein {x} Hund da"),
        ("A [{x}] dog", "Ein ({x}) Hund", "Ein Hund", "Ein Hund da", "Ein ({x}) Hund da"),
        ('A "{x}" dog', "Ein „{x}“", "Ein ", "Ein Hund", "Ein „{x}“ Hund"),
        ("A dog", "a\tb\u2028c\0 ", "a b c ", "a b c d", "a b c d"),
        ("The <b>dog</b> runs", "Der <b>", "Der ", "Der Hund rennt", "Der <b>Hund</b> rennt"),
        ("Hi, {x}!", "Hallo, {x}", "Hallo, ", "Hallo, !", "Hallo, {x}!"),
        ("A dog", "Ein \udce9", "Ein \ufffd", "Ein \ufffd da", "Ein \ufffd da"),
    ],
)
def test_a_model_without_placeholders_begins_without_spans(text, prefix, begun, translation, expected):
    protected = Protection(("tag", "url", "placeholder")).take_out(text)
    assert re.sub(" +", " ", protected.beginning(prefix)) == begun
    links = range(len(translation.split()))
    reading = _reading(protected.plain, translation, links)
    assert protected.put_back(translation, reading, prefix=prefix) == expected


def test_a_span_goes_behind_the_term_that_a_prefix_ends_in():
    protected = Protection(["placeholder"]).take_out("{x} in New York now")
    found = protected.put_back("Jetzt in New York da", NO_READING, ["New York"], prefix="Jetzt in New")
    assert found == "Jetzt in New York {x} da"


@pytest.mark.parametrize("has_placeholders", [False, True])
def test_what_a_prefix_opens_is_closed_in_order(has_placeholders):
    """An open tag closes before what is around it in the text, and what opens behind it is in it or behind."""
    protection, rng = Protection(["tag"], has_placeholders=has_placeholders), random.Random(3)
    for text, prefix in (
        ("<b>the <i>dog</i> black</b> runs", "<b>A <i>"),
        ("<b>big <i>dog</i></b> runs", "<i>Hund"),
        ("<b>big <u>old</u> <i>dog <s>x</s></i></b> <b>runs</b>", "<i>Hund"),
        ("<b>big <u>old</u> <i>dog <s>x</s></i></b> <b>runs</b>", "<i>Hund <s>"),
        ("<i>a <b>big <s>dog</s> x</b></i> <b>runs</b>", "<i>Hund <s>"),
        ("<b>big <u>old</u> <i>dog <s>x</s></i></b> <b>runs</b>", "<b>alter <u>"),
    ):
        protected = protection.take_out(text)
        for _ in range(100):
            words = rng.sample(["A", "black", "dog", "runs", "and", "so"], 4)
            symbols = rng.sample(PLACEHOLDERS, rng.randint(0, 3)) if has_placeholders else []
            tail = " ".join(rng.sample([*words, *symbols], len(words) + len(symbols)))
            translation = protected.beginning(prefix) + " " + tail
            links = [rng.randrange(len(protected.plain.split())) for _ in translation.split()]
            found = protected.put_back(translation, _reading(protected.plain, translation, links), prefix=prefix)
            assert found.startswith(prefix)
            waiting = []
            for closes, name in re.findall(r"<(/?)(\w)>", found):
                assert not closes or waiting.pop() == name, (text, translation, links, found)
                waiting += [] if closes else [name]
            assert not waiting and sorted(re.findall("<.*?>", found)) == sorted(re.findall("<.*?>", text))


@pytest.mark.parametrize("has_placeholders", [False, True])
def test_tags_come_back_once_however_a_prefix_cuts_them(has_placeholders):
    """Lone and crossing ones too, and of texts that have nothing else."""
    protection, rng = Protection(["tag"], has_placeholders=has_placeholders), random.Random(5)
    tags = [f"<{end}{name}>" for name in "bisu" for end in ("", "/")]
    for _ in range(1_000):
        text = " ".join(rng.choice(["dog", "red", *tags]) for _ in range(rng.randint(2, 10)))
        prefix = " ".join(rng.choice(["Hund", *(tag for tag in tags if tag in text)]) for _ in range(rng.randint(1, 4)))
        protected = protection.take_out(text)
        found = protected.put_back(protected.beginning(prefix) + " a b c d", NO_READING, prefix=prefix)
        for tag in tags:
            assert found.count(tag) == max(text.count(tag), prefix.count(tag)), (text, prefix, found)


@pytest.mark.parametrize("has_placeholders", [False, True])
def test_random_texts_begin_as_given_and_keep_their_spans(has_placeholders):
    patterns, rng = ("tag", "url", "number", "placeholder"), random.Random(7)
    protection = Protection(patterns, has_placeholders=has_placeholders)
    spans = ["<b>", "</b>", "{x}", "12", "https://a.b/c", "<br/>"]
    for _ in range(2_000):
        text = " ".join(rng.choice(WORDS + spans) for _ in range(rng.randint(1, 8)))
        protected = protection.take_out(text)
        wanted = " ".join(rng.choice(WORDS + [span for span in spans if span in text]) for _ in range(5))
        prefix = wanted[: rng.randint(1, len(wanted))]
        translation = protected.beginning(prefix) + rng.choice(["", "x"]) + " " + " ".join(rng.sample(WORDS, 3))
        links = [rng.randrange(9) for _ in translation.split()]
        found = protected.put_back(translation, _reading(protected.plain, translation, links), prefix=prefix)
        assert re.sub(r"\s+", " ", found).startswith(" ".join(prefix.split())), (text, prefix, translation, found)
        assert not re.search(r"[\t\0｟｠]", found)
        for span in spans:
            most = max(text.count(span), wanted.count(span) if span in prefix else 0)
            assert text.count(span) <= found.count(span) <= most + prefix.count(span), (
                text,
                prefix,
                translation,
                found,
            )


def test_what_reads_a_tag_of_a_language_moves_no_markup():
    protected = Protection(["tag"]).take_out("<b>a</b> dog.")
    reading = Reading([0, 4], [3, 9], [1, 0], [0, 0, 2], [0, 1, 6])  # the first source piece is the language's
    assert protected.put_back("ein Hund.", reading) == "<b>ein</b> Hund."


def test_what_was_in_a_pair_of_tags_stays_there_and_made_up_tags_leave_no_gap():
    protected, [one, two, three] = _with_symbols("a <b>5</b> c")
    moved = protected.put_back(f"c {two} a {one}{three}", NO_READING)
    assert moved.index("<b>") < moved.index("5") < moved.index("</b>")
    assert protected.put_back(f"c <i> {one}{two}{three} a", NO_READING) == "c <b>5</b> a"
    assert protected.put_back(f"{one}{two}{three} a </i>, c <i>.", NO_READING) == "<b>5</b> a, c."
    assert protected.put_back(f"{one}{two}{three} a <i>.net", NO_READING) == "<b>5</b> a .net"


@pytest.mark.parametrize(
    "text, translation",
    [
        ("Das Buch kostet 5 Dollar.", "The book costs $5."),
        ("Fünf Dollar", "$5"),
        ("a safe thing", "eine 100 %ige Sache"),
    ],
)
def test_what_a_model_says_itself_is_no_made_up_placeholder(text, translation):
    protected = Protection(["tag", "url", "placeholder"]).take_out(text)
    assert protected.plain == text and protected.put_back(translation, NO_READING) == translation


def test_per_cent_is_no_placeholder_and_an_argument_of_a_shell_is():
    found = Protection(["placeholder"]).take_out("la tasa del 5 %de interes, 100 %1 $1 %s of %d, %1$s, %1")
    assert found.plain.split() == ["la", "tasa", "del", "5", "%de", "interes,", "100", "of", ",", ","]


@pytest.mark.parametrize("term", ["www.example.de", "{name}", "<br/>", "&nbsp;", "a@b.de"])
def test_what_a_term_asks_for_is_not_made_up(term):
    protected = Protection(["tag", "entity", "url", "email", "placeholder"]).take_out("See <b>our</b> site.")
    placed = Translation([Hypothesis(f"Siehe {term} bald", 0.0, 0.0, outputs={"is_term_placed": [True]})], False)
    assert term in protected_again(placed, protected, [[term]]).text
    assert term not in protected_again(placed, protected, [["bald"]]).text


def test_a_span_touches_only_what_it_touched():
    """An address beside a tag in the text is not glued to the word that a model puts before it."""
    patterns = ("tag", "number", "url", "email")
    protected, [tag, address] = _with_symbols("Ask <br/>www.x.de now", patterns)
    assert protected.put_back(f"Frag{address} jetzt {tag}", NO_READING) == "Frag www.x.de jetzt <br/>"
    assert protected.put_back(f"Frag {tag}{address} jetzt", NO_READING) == "Frag <br/>www.x.de jetzt"
    protected, [number, tag, address] = _with_symbols("On 5<br/>a@b.de writes", patterns)
    assert protected.put_back(f"Am {number}{tag} schreibt{address}", NO_READING) == "Am 5<br/> schreibt a@b.de"


def test_thousands_of_pairs_are_placed_and_those_that_cross_found():
    number = 4000
    text = "<b>x</b> " * number + "<b><i>y</b></i> " * number
    found = Protection(["tag"]).take_out(text).put_back(" ".join(["z"] * 60), NO_READING)
    assert found.count("<b>") == found.count("</b>") == 2 * number and found.count("<i>") == number

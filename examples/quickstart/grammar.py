"""The synchronous grammar of the quickstart's corpus: rules that write an English and a Chinese sentence at once.

Time and place phrases move to the front of the Chinese verb, relative clauses flip, question words stay in place, nouns
take their own measure words and numbers are regrouped by ten thousand.
"""

import random
from itertools import accumulate
from typing import NamedTuple

from examples.quickstart.numbers import DIGITS, ONES, chinese_number, clock, english_number
from examples.quickstart.words import KINDS, WORDS, Word, adjectives, attributive, bare, find, places, single, words_of


class _Subject(NamedTuple):
    en: str
    zh: str
    person: str = "3"  # 1, 3 or p (plural and you)
    own: tuple[str, str] | None = None  # my 我
    pron: tuple[str, str] | None = None  # he 他
    head: int = -1


class _Event(NamedTuple):
    forms: tuple[str, ...]
    zh: str
    object: tuple[str, str]
    tail: str  # English adjuncts after the object
    adjunct: str  # Chinese adjuncts before the verb
    word: Word


class _Clause(NamedTuple):
    subject: _Subject
    aux: str
    main: str
    plain: str
    before: str
    after: str
    event: _Event
    neg: bool

    def en(self) -> str:
        aux = "cannot" if self.aux == "can" else f"{self.aux} not"
        verb = f"{aux} {self.main}" if self.neg else self.plain
        return f"{self.subject.en} {verb} {self.event.object[0]}{self.event.tail}"

    def question(self) -> str:
        return f"{self.aux} {self.subject.en} {self.main} {self.event.object[0]}{self.event.tail}"

    def rest(self) -> str:
        return f"{self.before}{self.event.adjunct}{self.event.zh}{self.after}{self.event.object[1]}"

    def zh(self, time: str = "") -> str:
        return f"{self.subject.zh}{time}{self.rest()}"


class Sentence(NamedTuple):
    source: str
    target: str
    combos: tuple[tuple[str, int, int], ...]


_OFTEN = {
    "see": 6,
    "wash": 3,
    "eat": 3,
    "drink": 3,
    "order": 3,
    "draw": 3,
    "study": 3,
    "teach": 2,
    "repair": 3,
    "check": 3,
}
_VERB_WEIGHTS = [
    _OFTEN.get(word.en, 1) + len(words_of(tuple(word.tag.split(":")[0].split(",")))) / 25 for word in KINDS["verb"]
]
_BRIEF = """eat drink wash wipe cut order feed make try_on put check print see meet catch watch
listen_to""".split()
_SPOUSES = ("wife", "husband")
_PARTS = (("in the morning", "早上"), ("in the evening", "晚上"), ("on weekends", "周末"))
_LONG_TIMES = "days week weeks month months year years ago spring summer winter".split()
_OWN = {
    "I": ("my", "我"),
    "you": ("your", "你"),
    "he": ("his", "他"),
    "she": ("her", "她"),
    "we": ("our", "我们"),
    "they": ("their", "他们"),
}
_PRON = {"m": ("he", "他"), "f": ("she", "她")}
_FIGURES = [
    *range(10, 100),
    *range(100, 1000, 50),
    *range(1000, 10_000, 500),
    20_500,
    *(n * 1000 for n in (10, 12, 15, 18, 20, 25, 30, 35, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 500)),
]


def _article(phrase: str) -> str:
    vowel = phrase[0] in "aeiou" and not phrase.startswith(("uni", "use"))
    return ("an " if vowel or phrase.startswith(("honest", "hour")) else "a ") + phrase


class Grammar:
    """Draws one sentence pair after another from a random number generator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.combos: list[tuple[str, int, int]] = []
        self.often = False  # the clause has an adverb of frequency or denies a habit

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, *kinds: str) -> Word:
        """A word of these kinds, each as likely as any other; a kind named twice counts twice."""
        return self.rng.choice(words_of(kinds))

    def combo(self, kind: str, left: int, right: int) -> None:
        self.combos.append((kind, left, right))

    # --- noun phrases

    def adjective(self, noun: Word, groups: str) -> tuple[str, str]:
        word = self.rng.choice(adjectives(groups))
        self.combo("adjective", word.rank, noun.rank)
        return word.en + " ", attributive(word)

    def noun_adjective(self, noun: Word, probability: float) -> tuple[str, str]:
        group = _ADJECTIVE_GROUP.get(noun.kind, "")
        return self.adjective(noun, group) if group and self.chance(probability) else ("", "")

    def relative_of(self, own: tuple[str, str] | None, couple: bool = False) -> _Subject:
        """Somebody's relative, friend or neighbour: my older brother, Tom's friend."""
        if own is None:
            name = self.pick("name")
            own = (f"{name.en}'s", name.zh + "的")
        word = self.pick("kin", "kin", "peer")
        if couple and self.chance(0.1):
            spouse = {"her": "husband", "his": "wife"}.get(own[0])
            word = find(spouse or self.rng.choice(_SPOUSES))
        while word.en in ("wife", "husband") and (not couple or own[0] == _OWN[_PRON[word.tag][0]][0]):
            word = self.pick("kin", "peer")
        zh = own[1] + ("的" if own[1] in ("我们", "他们") else "") + word.zh
        pron = _PRON.get(word.tag)
        return _Subject(f"{own[0]} {word.en}", zh, "3", _OWN[pron[0]] if pron else None, pron, word.rank)

    def subject(self, relative: float = 0.12, plain: bool = False) -> _Subject:
        if not plain and self.chance(relative):
            return self.person_clause()
        roll = self.rng.random()
        if roll < 0.1 and not plain:
            word = self.pick("pron")
            person = {"I": "1", "he": "3", "she": "3"}.get(word.en, "p")
            return _Subject(word.en, word.zh, person, _OWN[word.en], (word.en, word.zh), word.rank)
        if roll < 0.4:
            word = self.pick("name")
            pron = _PRON[word.tag]
            return _Subject(word.en, word.zh, "3", _OWN[pron[0]], pron, word.rank)
        if roll < 0.6:
            own = _OWN[self.rng.choice(("I", "I", "you", "we", "they"))]
            return self.relative_of(own if self.chance(0.6) else None)
        word = self.pick("person")
        if roll < 0.8:
            return _Subject(f"the {word.en}", word.zh, head=word.rank)
        if roll < 0.88:
            they = ("they", "他们")
            return _Subject(f"the {word.forms[1]}", word.zh + "们", "p", _OWN["they"], they, word.rank)
        en, zh = self.adjective(word, "p")
        return _Subject(f"the {en}{word.en}", f"那{word.tag}{zh}{word.zh}", head=word.rank)

    def person_clause(self) -> _Subject:
        """A person with a relative clause: the man who sells fish, 卖鱼的那个男人."""
        person = self.pick("person")
        kind = self.rng.randrange(8)
        if kind == 0:
            verb, noun = self.verb_noun("now")
            en, zh = f"{verb.forms[4]} {bare(noun)}", verb.zh + noun.zh
        elif kind == 1:
            noun = self.pick("city")
            en, zh = f"lives in {noun.en}", f"住在{noun.zh}"
        elif kind == 2:
            noun = self.pick("country")
            en, zh = f"comes from {noun.en}", f"来自{noun.zh}"
        elif kind == 3:
            noun, place, zh_place = self.place("j")
            en, zh = f"works {place}", f"{zh_place}工作"
        elif kind == 4:
            noun = self.pick("wear", "deck")
            adjective = self.noun_adjective(noun, 0.4)
            en = "is wearing " + _article(single(noun, adjective[0]))
            zh = f"{'戴' if noun.kind == 'deck' else '穿'}着{adjective[1]}{noun.zh}"
        elif kind == 6:
            noun = self.pick("field")
            verb_en, verb_zh = self.rng.choice((("studies", "学"), ("teaches", "教")))
            en, zh = f"{verb_en} {noun.en}", verb_zh + noun.zh
        elif kind == 5:
            noun = self.pick("lang")
            en, zh = f"speaks {noun.en}", f"说{noun.zh}"
        else:
            noun = self.pick("act")
            en, zh = f"likes to {noun.en}", "喜欢" + noun.zh.replace("/", "")
        self.combo("relative", person.rank, noun.rank)
        return _Subject(f"the {person.en} who {en}", f"{zh}的那{person.tag}{person.zh}", head=person.rank)

    def possessor(self, s: _Subject | None) -> tuple[str, str]:
        if s and s.own and self.chance(0.6):
            return s.own
        if self.chance(0.5):
            name = self.pick("name")
            return f"{name.en}'s", name.zh
        return self.rng.choice((("my", "我"), ("your", "你")))

    def object(
        self, noun: Word, s: _Subject | None, definite: bool = False, few: int = 6, owned: bool = True
    ) -> tuple[str, str]:
        """A noun phrase in object position with its determiner."""
        if noun.kind in ("lang", "field"):
            return noun.en, noun.zh
        en_adj, zh_adj = self.noun_adjective(noun, 0.2)
        tail = zh_adj + noun.zh
        one, many = single(noun, en_adj), noun.forms[1]
        many = many.replace("~", en_adj) if "~" in many else en_adj + many
        unit = "~" in noun.forms[1]
        roll = self.rng.random() * (0.45 if definite else 1)
        if unit and (roll < 0.45 or noun.kind != "wear"):
            roll = 0.0 if definite else 0.5 + roll / 2
        if noun.kind in ("fruit", "veg", "dish") and roll < 0.45 and not unit:
            return (f"the {many}", f"那些{tail}") if roll < 0.25 else (f"these {many}", f"这些{tail}")
        if roll < 0.14:
            return f"the {one}", f"那{noun.tag}{tail}"
        if roll < 0.22:
            return f"this {one}", f"这{noun.tag}{tail}"
        if roll < (0.27 if owned else 0.45):
            return f"these {many}", f"这些{tail}"
        if roll < 0.45:
            own = self.possessor(s)
            return f"{own[0]} {one}", own[1] + (f"那{noun.tag}" if zh_adj else "的") + tail
        if roll < 0.7:
            return _article(one), f"一{noun.tag}{tail}"
        if roll < 0.9:
            number = self.rng.randrange(2, few + 1)
            self.combo("number", number, noun.rank)
            return f"{ONES[number]} {many}", f"{chinese_number(number)}{noun.tag}{tail}"
        if unit:
            return f"some {en_adj}{noun.en}", f"一些{tail}"
        return self.rng.choice(((f"many {many}", f"很多{tail}"), (f"some {many}", f"一些{tail}")))

    # --- adjuncts

    def place(self, group: str) -> tuple[Word, str, str]:
        word = self.rng.choice(places(group))
        the = "" if word.en == "home" else "the "
        return word, f"{word.forms[1]} {the}{word.en}", "在" + word.zh.replace("/", "")

    def means(self, group: str) -> Word:
        return self.rng.choice([word for word in KINDS["by"] if group in word.tag])

    def cities(self) -> tuple[Word, Word]:
        """Two cities of one region, between which people travel."""
        start, end = self.pick("city"), self.pick("city")
        while start == end or start.tag != end.tag:
            start, end = self.pick("city"), self.pick("city")
        self.combo("route", start.rank, end.rank)
        return start, end

    def clock(self, low: int, high: int) -> tuple[str, str]:
        hour = self.rng.randrange(low, high)
        minute = self.rng.choice((0, 0, 5, 10, 15, 20, 30, 30, 40, 45, 50))
        spoken = minute not in (5, 10, 50) or self.chance(0.5)
        self.combo("clock", hour, minute + spoken)
        return clock(hour, minute, spoken)

    def day_clock(self, days: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        en, zh = self.rng.choice(days)
        part, zh_part, low, high = self.rng.choice(
            (("morning", "早上", 6, 10), ("afternoon", "下午", 1, 6), ("evening", "晚上", 7, 10))
        )
        clock = self.clock(low, high)
        return f"at {clock[0]} {en} {part}", zh + zh_part + clock[1]

    def date(self) -> tuple[str, str]:
        month, day = self.pick("month"), self.rng.randrange(1, 29)
        self.combo("date", month.rank, day)
        return f"{month.en} {day}", f"{month.zh}{chinese_number(day, False)}号"

    def time(self, tense: str) -> tuple[str, str]:
        """A time phrase that goes with the tense, in both languages."""
        roll = self.rng.random()
        if tense == "now":
            word = self.pick("now")
        elif tense == "habit":
            if self.often and roll < 0.7:
                return self.rng.choice(_PARTS)
            if roll < 0.25 or self.often:
                day = self.pick("weekday")
                if self.often:
                    return f"on {day.en}s", day.zh
                return (f"every {day.en}", "每个" + day.zh) if self.chance(0.5) else (f"on {day.en}s", day.zh)
            if roll < 0.4:
                return self.day_clock((("every", "每天"),))
            word = self.pick("habit")
        else:
            past = tense == "past"
            if roll < 0.14:
                day = self.pick("weekday")
                return (f"last {day.en}", "上个" + day.zh) if past else (f"next {day.en}", "下个" + day.zh)
            if roll < 0.26:
                date = self.date()
                return f"on {date[0]}", date[1]
            if roll < 0.35:
                return self.day_clock((("yesterday", "昨天"),) if past else (("tomorrow", "明天"),))
            if roll < 0.5:
                unit, number = self.pick("unit"), self.rng.randrange(2, 12)
                while unit.en in ("minute", "hour"):
                    unit = self.pick("unit")
                en, zh = f"{ONES[number]} {unit.en}s", chinese_number(number) + unit.tag + unit.zh
                return (f"{en} ago", f"{zh}前") if past else (f"in {en}", f"{zh}后")
            if past and roll < 0.54:
                year = self.rng.randrange(1990, 2016)
                return f"in {year}", "".join(DIGITS[int(digit)] for digit in str(year)) + "年"
            word = self.pick(tense)
        return word.en, word.zh

    def day(self, tense: str, clock: bool = False, long: bool = False) -> tuple[str, str]:
        """A time phrase that names a day or a part of it, if wanted with the clock or longer."""
        combos = len(self.combos)
        while True:
            en, zh = self.time(tense)
            if (long or en.split()[-1] not in _LONG_TIMES and en[:4] not in ("in 1", "in 2")) and (
                clock or "at " not in en
            ):
                return en, zh
            del self.combos[combos:]

    def time_of(self, c: _Clause, tense: str) -> tuple[str, str]:
        if tense == "already" or tense == "never" or tense == "future" and self.chance(0.25):
            return "", ""
        if tense == "habit" and c.event.word.kind in ("city", "country"):
            word = KINDS["habit"][self.rng.randrange(4, 8)]
            return (word.en, word.zh) if not self.often else ("on weekends", "周末")
        brief = c.event.word.kind == "act" or c.event.word.en.replace(" ", "_") in _BRIEF
        return self.day(tense, True) if brief else self.time(tense)

    def duration(self, verb: Word) -> tuple[str, str]:
        roll, number = self.rng.random(), self.rng.randrange(2, 7)
        if roll < 0.2:
            return "for half an hour", "半个小时"
        if roll < 0.35:
            return "for an hour", "一个小时"
        if roll < 0.6:
            number = self.rng.choice((10, 20, 25, 40, 45, 50))
            self.combo("minutes", number, verb.rank)
            return f"for {english_number(number)} minutes", f"{chinese_number(number)}分钟"
        self.combo("hours", number, verb.rank)
        return f"for {ONES[number]} hours", f"{chinese_number(number)}个小时"

    # --- events

    def verb(self) -> Word:
        return self.rng.choices(KINDS["verb"], _VERB_WEIGHTS)[0]

    def verb_noun(self, tense: str) -> tuple[Word, Word]:
        """A verb that goes with the tense and a noun that can be its object."""
        verb = self.verb()
        limits = {"past": "hab", "habit": "past"}.get(tense, "past hab").split()
        while verb.tag.split(":")[-1] in limits or "person" in verb.tag and tense in ("now", "habit"):
            verb = self.verb()
        noun = self.pick(*verb.tag.split(":")[0].split(","))
        self.combo("verb", verb.rank, noun.rank)
        return verb, noun

    def company(self, s: _Subject) -> tuple[str, str]:
        if s.own:
            couple = s.en in ("I", "you") or s.pron is not None and " " not in s.en
            other = self.relative_of(s.own, couple)
        else:
            name = self.pick("name")
            other = _Subject(name.en, name.zh)
        return other.en, other.zh

    def event(self, s: _Subject, tense: str, neg: bool = False, skip: str = "", definite: bool = False) -> _Event:
        """Something that s does: object, beneficiary, company, place and means, without any named in skip."""
        roll, english, chinese = self.rng.random(), "", ""
        lasting = tense == "already" or tense == "past" and not neg
        span = ("", "")
        other = self.company(s) if "company" not in skip and self.chance(0.15) else ("", "")
        if other[0]:
            english, chinese = f" with {other[0]}", f"和{other[1]}一起"
        if roll < 0.15 and "object" not in skip:
            word = self.pick("act")
            while other[0] and word.en in ("sleep", "do homework"):
                word = self.pick("act")
            if lasting or tense in ("future", "habit") and self.chance(0.2):
                span = self.duration(word)
            forms, (verb, rest) = word.forms, word.zh.split("/")
            thing, group, odds = ("", span[1] + rest), word.tag, 0.7
        elif roll < 0.31 and tense != "now" and "object" not in skip:
            word, group, odds = self.pick(self.rng.choice(("city", "city", "country", "place"))), "", 0.0
            while word.kind == "place" and "g" not in word.tag:
                word = self.pick("place")
            en, zh = (word.en, word.zh) if word.kind != "place" else (f"the {word.en}", word.zh.split("/")[0])
            forms = ("go", "went", "been" if tense == "never" else "gone", "going", "goes")
            verb, thing = "去", (f"to {en}", zh)
            start = self.rng.choice(KINDS["city"])
            if word.kind == "city" and start.tag == word.tag and start != word and tense != "never":
                self.combo("route", start.rank, word.rank)
                thing, chinese = (f"from {start.en} to {en}", zh), chinese + f"从{start.zh}"
            if word.kind != "country" and tense != "never":
                means = self.means("p" if word.kind == "place" else "o" if word.tag == "o" else "c")
                self.combo("go", word.rank, means.rank)
                english, chinese = f" {means.en}{english}", chinese + means.zh
        elif roll < 0.43 and tense in ("past", "future", "already") and not skip:
            return self.handing(s, neg or definite)
        else:
            word, noun = self.verb_noun("neg" if neg else tense)
            forms, verb, group, odds = word.forms, word.zh, word.tag.split(":")[1], 0.45
            if word.en == "try on" and noun.kind != "wear":
                verb = "试戴"
            if noun.kind == "person":
                en, zh = self.noun_adjective(noun, 0.6)
                if definite or neg or self.chance(0.5):
                    thing = (f"the {en}{noun.en}", f"那{noun.tag}{zh}{noun.zh}")
                else:
                    thing = (_article(en + noun.en), f"一{noun.tag}{zh}{noun.zh}")
            elif (
                tense == "never"
                or "bare" in skip
                or tense == "habit"
                and (neg or word.tag.endswith(":for") or word.en == "sell" or self.chance(0.6))
            ):
                thing = (bare(noun), noun.zh)
            else:
                few = 3 if noun.kind in ("drink", "dish", "text", "book", "media", "audio") else 6
                owned = noun.kind not in ("zoo", "plant") and word.en not in ("buy", "order", "make", "choose", "catch")
                thing = self.object(noun, s, definite or neg, few, owned)
                if word.en == "eat" and noun.tag == "公斤":
                    thing = (f"some {noun.en}", f"一些{noun.zh}")
            if word.tag.endswith(":for") and not english and "company" not in skip and self.chance(0.4):
                other = self.company(s)
                english, chinese = f" for {other[0]}", f"给{other[1]}"
        if "place" not in skip and self.chance(odds):
            spot, place, zh_place = self.place(group)
            self.combo("place", word.rank, spot.rank)
            english += f" {place}"
            chinese = zh_place + chinese if chinese.startswith("给") else chinese + zh_place
        return _Event(forms, verb, thing, english + (f" {span[0]}" if span[0] else ""), chinese, word)

    def ground(self) -> Word:
        flat = [word for word in KINDS["furn"] if word.tag in "张把个"]
        return self.rng.choice(flat)

    def handing(self, s: _Subject, definite: bool) -> _Event:
        """Giving, sending, lending and other things that have a recipient."""
        word, other = self.pick("hand"), self.company(s)
        if word.en == "put":
            spot, ground = self.pick("where"), self.ground()
            noun = self.pick("thing")
            self.combo("put", noun.rank, ground.rank)
            en, zh = self.object(noun, s, True)
            return _Event(word.forms, "放在", (en, ground.zh + spot.zh), f" {spot.en} the {ground.en}", "把" + zh, word)
        if word.en == "introduce":
            noun = self.pick("person")
            self.combo("introduce", noun.rank, noun.rank)
            en, zh = self.adjective(noun, "p")
            return _Event(
                word.forms,
                "介绍给",
                (f"the {en}{noun.en}", other[1]),
                f" to {other[0]}",
                f"把那{noun.tag}{zh}{noun.zh}",
                word,
            )
        noun = {
            "send": lambda: self.pick("text", "thing"),
            "tell": lambda: find("story"),
            "borrow": lambda: self.pick("book", "device"),
        }.get(word.en, lambda: self.pick("thing", "book", "deck", "device"))()
        while word.en == "send" and noun.en in ("poem", "story", "email"):
            noun = self.pick("text", "thing")
        self.combo("verb", word.rank, noun.rank)
        if word.en in ("return", "lend"):
            en, zh = self.object(noun, None, True)
            return _Event(
                word.forms,
                word.zh + ("给" if word.en == "return" else "给"),
                (en, other[1]),
                f" to {other[0]}",
                "把" + zh,
                word,
            )
        en, zh = self.object(noun, s, definite)
        if word.en == "give":
            return _Event(word.forms, "送给", (f"{other[0]} {en}", other[1] + zh), "", "", word)
        if word.en == "tell":
            return _Event(word.forms, "讲", (f"{other[0]} {en}", zh), "", f"给{other[1]}", word)
        if word.en == "send":
            return _Event(word.forms, "寄", (en, zh), f" to {other[0]}", f"给{other[1]}", word)
        return _Event(word.forms, "借", (en, zh), f" from {other[0]}", f"向{other[1]}", word)

    def clause(
        self, s: _Subject, tense: str, neg: bool = False, skip: str = "", definite: bool = False, modal: str = ""
    ) -> _Clause:
        """A clause about s with its verb conjugated on both sides."""
        event, self.often = self.event(s, tense, neg, skip, definite), neg and tense == "habit"
        form, third = event.forms, s.person == "3"
        do, place = ("does" if third else "do"), "在" in event.adjunct
        aux, main, plain, before, after = "", "", "", "", ""
        if tense == "past":
            aux, main, plain = "did", form[0], form[1]
            before, after = ("没有", "") if neg else ("", "了")
        elif tense == "habit":
            aux, main, plain, before = do, form[0], form[4 if third else 0], "不" if neg else ""
            if not neg and self.chance(0.4):
                often, self.often = self.pick("often"), True
                main, plain, before = f"{often.en} {main}", f"{often.en} {plain}", often.zh
        elif tense == "now":
            aux, main = {"1": "am", "3": "is"}.get(s.person, "are"), form[3]
            before = "正" if place else "正在"
        elif tense in ("already", "never"):
            aux, main = "has" if third else "have", f"{tense} {form[2]}"
            before, after = ("已经", "了") if tense == "already" else ("从来没有", "过")
        else:
            word = find(modal, "modal") if modal else self.pick("modal")
            while neg and word.en in ("must", "would like to"):
                word = self.pick("modal")
            before = ("不能" if word.en == "can" else "不" + word.zh) if neg else word.zh
            if word.en == "would like to":
                aux, main = "would", f"like to {form[0]}"
            elif word.en.endswith(" to"):
                aux, main, plain = do, f"{word.en} {form[0]}", f"{word.forms[4 if third else 0]} {form[0]}"
            else:
                aux, main = word.en, form[0]
        return _Clause(s, aux, main, plain or f"{aux} {main}", before, after, event, neg)

    def pick_tense(self) -> str:
        return self.rng.choices(("past", "future", "habit", "now", "already", "never"), (40, 26, 18, 6, 6, 4))[0]

    def timed(self, c: _Clause, tense: str, fronted: bool = False) -> tuple[str, str]:
        time = self.time_of(c, tense)
        if fronted and time[0]:
            return f"{time[0]}, {c.en()}", f"{time[1]}，{c.zh()}"
        return f"{c.en()} {time[0]}", c.zh(time[1])

    # --- sentences

    def statement(self) -> tuple[str, str]:
        s, tense = self.subject(), self.pick_tense()
        neg = tense in ("past", "habit", "future") and self.chance(0.25)
        return self.timed(self.clause(s, tense, neg), tense, self.chance(0.1))

    def reported(self) -> tuple[str, str]:
        word, s, tense = self.pick("say"), self.subject(plain=True), "past"
        verb = word.forms[1]
        if word.en not in ("say", "hear"):
            verb, tense = word.forms[4 if s.person == "3" else 0], self.rng.choice(("past", "future"))
        en, zh = self.timed(self.clause(self.subject(0, True), tense, skip="company"), tense)
        return f"{s.en} {verb} that {en}", f"{s.zh}{word.zh}{zh}"

    def yes_no(self) -> tuple[str, str]:
        s, tense = self.subject(0.15), self.rng.choice(("past", "past", "future", "habit", "now", "already"))
        c = self.clause(s, tense)
        time = self.time_of(c, tense)
        return f"{c.question()} {time[0]}?", c.zh(time[1]) + "吗？"

    def wh(self) -> tuple[str, str]:
        """A question with a question word; an empty pair is drawn again."""
        kind = self.rng.choice("where where when what who many which why why by long".split())
        s = self.subject(0.12)
        past = kind in ("many", "by", "long") or self.chance(0.65)
        tense = "past" if past else "future"
        modal = "" if kind in ("why", "which", "what") else "will"
        if kind == "why":
            c = self.clause(s, tense, True, "", True)
            time = self.time_of(c, tense)
            question = c.question().split(" ", 1)
            negated = {"will": "won't", "can": "can't"}.get(c.aux, c.aux + "n't")
            return f"Why {negated} {question[1]} {time[0]}?", f"{s.zh}{time[1]}为什么{c.rest()}？"
        if kind == "where":
            c = self.clause(s, tense, skip="place company", definite=True, modal=modal)
            if c.event.word.kind != "verb":
                return "", ""
            time = self.time_of(c, tense)
            be, end = ("是", "的") if past else (c.before, "")
            zh = f"{be}在哪里{c.event.zh}{c.event.object[1]}{end}？"
            return f"Where {c.question()} {time[0]}?", s.zh + time[1] + zh
        if kind == "when":
            c = self.clause(s, tense, definite=True, skip="object company" if past else "", modal=modal)
            be, end = ("是什么时候", "的") if past else (f"什么时候{c.before}", "")
            zh = f"{be}{c.event.adjunct}{c.event.zh}{c.event.object[1]}{end}？"
            return f"When {c.question()}?", s.zh + zh
        if kind == "who":
            self.combos.clear()  # those of the unused subject
            c = self.clause(_Subject("who", "谁"), tense, skip="company", modal=modal)
            time = self.time_of(c, tense)
            return f"{c.en()} {time[0]}?", f"{c.zh(time[1])}？"
        if kind in ("by", "long"):
            time = self.day("past")
            if kind == "long":
                word = self.pick("act")
                spot, place, zh_place = self.place(word.tag)
                self.combo("place", word.rank, spot.rank)
                verb, rest = word.zh.split("/")
                en, zh = f"{word.en} {place}", f"{zh_place}{verb}了多长时间{rest}"
                return f"How long did {s.en} {en} {time[0]}?", f"{s.zh}{time[1]}{zh}？"
            start, end_ = self.cities()
            return (
                f"How did {s.en} go from {start.en} to {end_.en} {time[0]}?",
                f"{s.zh}{time[1]}是怎么从{start.zh}去{end_.zh}的？",
            )
        c = self.clause(s, tense, skip="object bare company", modal=modal)
        e, time = c.event, self.time_of(c, tense)
        noun = WORDS[next(right for name, _, right in reversed(self.combos) if name == "verb")]
        if "person" in e.word.tag or noun.kind in ("field", "lang"):
            return "", ""
        head, zh = f"{c.aux} {s.en} {c.main}", f"{s.zh}{time[1]}{c.before}{e.adjunct}{e.zh}{c.after}"
        if kind == "what":  # the object is not named
            self.combos.remove(("verb", e.word.rank, noun.rank))
            return f"What {head}{e.tail} {time[0]}?", f"{zh}什么？"
        many = noun.forms[1].replace("~", "")
        if kind == "which" and not ("~" in noun.forms[1] and noun.kind not in ("wear", "deck")):
            return f"Which {single(noun, '')} {head}{e.tail} {time[0]}?", f"{zh}哪{noun.tag}{noun.zh}？"
        return f"How many {many} {head}{e.tail} {time[0]}?", f"{zh}多少{noun.tag}{noun.zh}？"

    def existence(self) -> tuple[str, str]:
        noun = self.pick("thing", "thing", "thing", "deck", "book", "fruit", "pet")
        _, place, zh_place = self.place("h")
        ground, where = self.ground(), self.pick("where")
        spot, zh_spot = f"{where.en} the {ground.en} {place}", f"{zh_place[1:]}的{ground.zh}{where.zh}"
        self.combo("exist", noun.rank, ground.rank)
        roll, many = self.rng.random(), noun.forms[1].replace("~", "")
        if roll < 0.15:
            return f"How many {many} are there {spot}?", f"{zh_spot}有多少{noun.tag}{noun.zh}？"
        if roll < 0.3:
            return f"There are no {bare(noun)} {spot}", f"{zh_spot}没有{noun.zh}"
        en, zh = self.noun_adjective(noun, 0.5)
        if roll < 0.5:
            return f"Is there {_article(single(noun, en))} {spot}?", f"{zh_spot}有一{noun.tag}{zh}{noun.zh}吗？"
        if roll < 0.7:
            return f"There is {_article(single(noun, en))} {spot}", f"{zh_spot}有一{noun.tag}{zh}{noun.zh}"
        number = self.rng.randrange(2, 13)
        self.combo("number", number, noun.rank)
        many = noun.forms[1].replace("~", en) if "~" in noun.forms[1] else en + noun.forms[1]
        return (
            f"There are {ONES[number]} {many} {spot}",
            f"{zh_spot}有{chinese_number(number)}{noun.tag}{zh}{noun.zh}",
        )

    def comparison(self) -> tuple[str, str]:
        things = self.chance(0.5)
        if things:
            noun = self.pick("deck", "furn", "device", "vehicle")
            while "~" in noun.forms[1]:
                noun = self.pick("furn", "vehicle")
            word = self.rng.choice([a for a in adjectives("og") if "C" not in a.tag])
            a, b = self.relative_of(_OWN["I"]), self.relative_of(_OWN["you"])
            one, two = (f"{a.en}'s {noun.en}", f"{a.zh}的{noun.zh}"), (f"{b.en}'s", f"{b.zh}的")
            self.combo("compare", word.rank, noun.rank)
            if self.chance(0.3):
                noun_ = single(noun, "")
                one, two = (f"this {noun_}", f"这{noun.tag}{noun.zh}"), (f"{b.en}'s", f"{b.zh}的")
        else:
            s, t = self.subject(0.3), self.subject(0.2, True)
            if s.person != "3" or s.en == t.en:
                return "", ""
            one, two = (s.en, s.zh), (t.en, t.zh)
            word = self.rng.choice([*adjectives("p"), find("tall"), find("busy")])
            number = self.rng.randrange(2, 30)
            if self.chance(0.25):
                self.combo("older", number, s.head)
                return (
                    f"{one[0]} is {english_number(number)} years older than {two[0]}",
                    f"{one[1]}比{two[1]}大{chinese_number(number)}岁",
                )
        if not things:
            self.combo("compare", word.rank, s.head)
        more = word.forms[1] if len(word.forms) > 1 else f"more {word.en}"
        roll = self.rng.random()
        if roll < 0.3:
            return f"{one[0]} is not as {word.en} as {two[0]}", f"{one[1]}没有{two[1]}那么{word.zh}"
        if roll < 0.45:
            return f"Is {one[0]} {more} than {two[0]}?", f"{one[1]}比{two[1]}{word.zh}吗？"
        if roll < 0.7:
            return f"{one[0]} is much {more} than {two[0]}", f"{one[1]}比{two[1]}{word.zh}得多"
        return f"{one[0]} is {more} than {two[0]}", f"{one[1]}比{two[1]}{word.zh}"

    def thing_clause(self) -> tuple[str, str, Word]:
        """A thing with a relative clause: the hat that Tom bought yesterday, 汤姆昨天买的那顶帽子."""
        s = self.subject(0, True)
        c = self.clause(s, "past", skip="object bare company")
        noun = WORDS[next(right for name, _, right in reversed(self.combos) if name == "verb")]
        time, e, head = self.time_of(c, "past"), c.event, single(noun, "")
        english = f"the {head} that {s.en} {c.plain}{e.tail} {time[0]}"
        return english, f"{s.zh}{time[1]}{e.adjunct}{e.zh}的那{noun.tag}{noun.zh}", noun

    def thing_is(self) -> tuple[str, str]:
        en, zh, noun = self.thing_clause()
        if noun.kind in ("field", "lang"):
            return "", ""
        if self.chance(0.35):
            s, (verb, zh_verb) = self.subject(0, True), self.rng.choice((("like", "喜欢"), ("remember", "记得")))
            if self.chance(0.3):
                do = "does" if s.person == "3" else "do"
                return f"{s.en} {do} not {verb} {en}", f"{s.zh}不{zh_verb}{zh}"
            return f"{s.en} {verb}{'s' if s.person == '3' else ''} {en}", s.zh + zh_verb + zh
        group = _ADJECTIVE_GROUP.get(noun.kind, "t")
        word = self.rng.choice([a for a in adjectives(group) if "C" not in a.tag])
        self.combo("adjective", word.rank, noun.rank)
        if self.chance(0.3):
            return f"was {en} very {word.en}?", f"{zh}很{word.zh}吗？"
        return f"{en} was very {word.en}", f"{zh}很{word.zh}"

    def large(self, low: int, high: int = 1_000_000) -> tuple[str, str]:
        """A number with few different figures, or one in words that may be missing from the training set."""
        if self.chance(0.4):
            number = self.rng.choice([figure for figure in _FIGURES if low <= figure < high])
            return f"{number:,}", chinese_number(number)
        units = (1, 10, 100, 1000, 1000, 10_000)
        size = self.rng.choice([unit for unit in units if unit * 99 >= low and unit * 100 < high])
        number = self.rng.randrange(max(low // size, 11), 100) * size
        if size >= 100 and self.chance(0.3):
            number += self.rng.randrange(1, 10) * size // 10
        self.combo("value", number, 0)
        return english_number(number), chinese_number(number)

    def numbers(self) -> tuple[str, str]:
        kind = self.rng.randrange(6)
        if kind < 2:
            noun = self.pick("wear", "deck", "furn", "device", "thing")
            adjective = self.noun_adjective(noun, 0.8)
            en, zh = single(noun, adjective[0]), f"{noun.tag}{adjective[1]}{noun.zh}"
            spot, place, zh_place = self.place("s")
            self.combo("place", noun.rank, spot.rank)
            if self.chance(0.2):
                return f"How much does this {en} cost {place}?", f"这{zh}{zh_place}卖多少钱？"
            number = self.large(10, 10_001)
            if self.chance(0.4):
                s, time = self.subject(0, True), self.time("past")
                return (
                    f"{s.en} paid {number[0]} yuan for this {en} {place} {time[0]}",
                    f"{s.zh}{time[1]}{zh_place}花{number[1]}元买了这{zh}",
                )
            return f"this {en} costs {number[0]} yuan {place}", f"这{zh}{zh_place}卖{number[1]}元"
        city = self.pick("city")
        if kind == 5 and self.chance(0.5):
            noun, count = self.pick("zoo"), self.rng.randrange(11, 100)
            self.combo("number", count, noun.rank)
            return (
                f"there are {english_number(count)} {noun.forms[1]} at the zoo in {city.en}",
                f"{city.zh}的动物园里有{chinese_number(count)}{noun.tag}{noun.zh}",
            )
        low, high = {2: (1000, 1_000_000), 3: (1000, 1_000_000), 4: (100, 10_001)}.get(kind, (100, 100_000))
        time, number = self.day("past", long=True), self.large(low, high)
        if kind == 2:
            spot, place, _ = self.place("d")
            self.combo("visit", city.rank, spot.rank)
            return (
                f"{number[0]} people visited the {spot.en} in {city.en} {time[0]}",
                f"{time[1]}有{number[1]}人参观了{city.zh}的{spot.zh.split('/')[0]}",
            )
        if kind == 3:
            noun = self.pick("made")
            self.combo("make", noun.rank, city.rank)
            many = noun.forms[1].replace("~", "")
            return (
                f"the factory in {city.en} made {number[0]} {many} {time[0]}",
                f"{city.zh}的那家工厂{time[1]}生产了{number[1]}{noun.tag}{noun.zh}",
            )
        if kind == 4:
            noun, person = self.pick("plant"), self.pick("person")
            spot, place, zh_place = self.place("f")
            self.combo("plant", person.rank, noun.rank)
            return (
                f"the {person.forms[1]} planted {number[0]} {noun.forms[1]} {place} {time[0]}",
                f"{person.zh}们{time[1]}{zh_place}种了{number[1]}{noun.tag}{noun.zh}",
            )
        country, noun = self.pick("country"), self.pick("book")
        self.combo("from", noun.rank, country.rank)
        return (
            f"the library in {city.en} bought {number[0]} {noun.forms[1]} from {country.en} {time[0]}",
            f"{city.zh}的图书馆{time[1]}从{country.zh}买了{number[1]}{noun.tag}{noun.zh}",
        )

    def because(self) -> tuple[str, str]:
        s, neg = self.subject(0.1), True
        c, time = self.clause(s, "past", neg, definite=True), self.day("past")
        if s.pron and self.chance(0.75):
            state = self.pick("state")
            be = "were" if s.person == "p" else "was"
            return (f"{c.en()} {time[0]} because {s.pron[0]} {be} {state.en}", f"因为{state.zh}，{c.zh(time[1])}")
        weather = self.pick("weather")
        if self.chance(0.5):
            return f"because it was {weather.en}, {c.en()} {time[0]}", f"因为{weather.zh}，{c.zh(time[1])}"
        return f"{c.en()} {time[0]} because it was {weather.en}", f"因为{weather.zh}，{c.zh(time[1])}"

    def condition(self) -> tuple[str, str]:
        s, time = self.subject(0.1), self.day("future")
        c = self.clause(s, "future", modal=self.rng.choice(("will", "will", "can")))
        zh_then = f"{s.zh}就{c.rest()}"
        if s.pron and self.chance(0.4):
            have = "has" if s.person == "3" else "have"
            c = c._replace(subject=s._replace(en=s.pron[0]))
            return (f"if {s.en} {have} time {time[0]}, {c.en()}", f"如果{s.zh}{time[1]}有时间，{s.pron[1]}就{c.rest()}")
        weather = self.pick("weather")
        it = {"raining": "it rains", "snowing": "it snows"}.get(weather.en, f"it is {weather.en}")
        condition = f"if {it} {time[0]}"
        english = f"{condition}, {c.en()}" if self.chance(0.5) else f"{c.en()} {condition}"
        return english, f"如果{time[1]}{weather.zh}，{zh_then}"

    def when(self) -> tuple[str, str]:
        s, other, word = self.subject(0.2), self.subject(0, True), self.pick("come")
        if other.en == s.en:
            return "", ""
        c = self.clause(s, "now")
        c = c._replace(plain=("were" if s.person == "p" else "was") + " " + c.main)
        self.combo("when", word.rank, c.event.word.rank)
        event, zh = f"when {other.en} {word.forms[1]}", f"{other.zh}{word.zh}的时候，{c.zh()}"
        return (f"{event}, {c.en()}" if self.chance(0.5) else f"{c.en()} {event}"), zh

    def sequence(self) -> tuple[str, str]:
        s, meal, tense = self.subject(0.1), self.pick("meal"), self.rng.choice(("past", "habit", "future"))
        c, time = self.clause(s, tense), self.day(tense)
        if any(part in time[0] for part in ("morning", "afternoon", "evening", "night")):
            return "", ""
        word, zh = self.rng.choice((("before", "以前"), ("after", "以后")))
        self.combo("sequence", meal.rank, c.event.word.rank)
        return f"{c.en()} {word} {meal.forms[3]} {time[0]}", c.zh(f"{time[1]}{meal.zh}{zh}")

    def schedule(self) -> tuple[str, str]:
        kind = self.rng.randrange(6)
        if kind == 0:
            s, city, date = self.subject(0, True), self.pick("city"), self.date()
            own = s.en + ("'" if s.person == "p" and s.en.endswith("s") else "'s")
            return f"{own} trip to {city.en} will begin on {date[0]}", f"{s.zh}的{city.zh}之行将从{date[1]}开始"
        if kind == 1:
            s, date = self.person_clause(), self.date()
            return f"the birthday of {s.en} is on {date[0]}", f"{s.zh}的生日是{date[1]}"
        if kind < 4:
            (start, end), means = self.cities(), self.rng.choice((("train", "火车"), ("plane", "飞机")))
            means = ("plane", "飞机") if start.tag == "o" else means
            leaves, zh_leaves = self.rng.choice((("leaves", "出发"), ("arrives", "到达")))
            time = self.day_clock((self.rng.choice((("every", "每天"), ("tomorrow", "明天"))),))
            return (
                f"the {means[0]} from {start.en} to {end.en} {leaves} {time[0]}",
                f"从{start.zh}到{end.zh}的{means[1]}{time[1]}{zh_leaves}",
            )
        event, (spot, place, zh_place) = self.pick("event"), self.place("p")
        self.combo("event", event.rank, spot.rank)
        day, zh_day = self.rng.choice((("tomorrow", "明天"), ("on Monday", "星期一"), ("on Friday", "星期五")))
        if self.chance(0.4):
            return (
                f"what time will the {event.en} {place} begin {day}?",
                f"{zh_place[1:]}的{event.zh}{zh_day}几点开始？",
            )
        time = self.day_clock(((day, zh_day),))
        return f"the {event.en} {place} will begin {time[0]}", f"{zh_place[1:]}的{event.zh}将在{time[1]}开始"

    def journey(self) -> tuple[str, str]:
        start, end = self.cities()
        means, number = self.means("o" if start.tag == "o" else "c"), self.rng.randrange(2, 16)
        unit = find("day" if means.en == "by ship" else "hour")
        if self.chance(0.3):
            return (
                f"How long does it take to go from {start.en} to {end.en} {means.en}?",
                f"从{start.zh}{means.zh}去{end.zh}要多长时间？",
            )
        return (
            f"it takes {ONES[number]} {unit.en}s to go from {start.en} to {end.en} {means.en}",
            f"从{start.zh}{means.zh}去{end.zh}要{chinese_number(number)}{unit.tag}{unit.zh}",
        )

    def sentence(self) -> Sentence:
        """One sentence pair with the combinations it is made of."""
        while True:
            self.combos = []
            limit = 14 if self.chance(0.2) else 10
            rule = self.rng.choices(_RULES, cum_weights=_WEIGHTS)[0]
            en, zh = rule(self)
            en, zh = " ".join(en.replace("?", " ?").split()).replace(" ?", "?"), zh.replace("的的", "的")
            if 4 <= len(en.split()) <= limit:
                break
        mark = "" if en[-1] == "?" else "."
        zh += "" if zh[-1] == "？" else "。"
        return Sentence(en[0].upper() + en[1:] + mark, zh, tuple(self.combos))


_ADJECTIVE_GROUP = dict(item.split("=") for item in """person=p zoo=a pet=a farm=a thing=o furn=o device=o
vehicle=o wear=w deck=w text=rml book=r media=rml audio=rml fruit=f plant=v drink=k""".split())
_RULES, _RULE_WEIGHTS = zip(
    *(
        (Grammar.statement, 36),
        (Grammar.reported, 6),
        (Grammar.yes_no, 6),
        (Grammar.wh, 12),
        (Grammar.existence, 8),
        (Grammar.comparison, 6),
        (Grammar.thing_is, 8),
        (Grammar.numbers, 13),
        (Grammar.because, 9),
        (Grammar.condition, 5),
        (Grammar.when, 4),
        (Grammar.sequence, 4),
        (Grammar.schedule, 6),
        (Grammar.journey, 2),
    )
)
_WEIGHTS = tuple(accumulate(_RULE_WEIGHTS))

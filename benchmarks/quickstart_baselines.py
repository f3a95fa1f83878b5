"""Two translators that learn no grammar: how far they get on the demo corpus, as JSON."""
from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

from nmt_keras.data.demo_corpus import Pair, _zh_number, demo_corpus, lexicon

_SKIP = set("""the is are am was were be been do does did of to that who there it as on by
and has have had""".split())
_FUNCTION = {"not": "不", "no": "没有", "my": "我的", "your": "你的", "his": "他的", "her": "她的", "our": "我们的",
             "their": "他们的", "this": "这", "these": "这些", "some": "一些", "many": "很多", "what": "什么",
             "who": "谁", "where": "哪里", "when": "什么时候", "why": "为什么", "how many": "多少", "which": "哪",
             "how long": "多长时间", "how much": "多少", "because": "因为", "if": "如果", "before": "以前",
             "after": "以后", "very": "很", "than": "比", "with": "和", "in": "在", "at": "在", "already": "已经",
             "never": "从来没有", "last": "上个", "next": "下个", "every": "每个", "ago": "前", "half past": "半",
             "o'clock": "点", "yuan": "元", "there are": "有", "there is": "有", "not as": "没有", "from": "从",
             "for": "给", "likes": "喜欢", "like": "喜欢", "years older": "大", "a": "一", "an": "一"}


def _tokens(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+(?:-[a-z]+)?|\d[\d,]*", text)


def nearest_neighbour(train: list[Pair], sources: list[str]) -> list[str]:
    """The target of the training source with the most words and word pairs in common (Dice coefficient)."""
    def features(text: str) -> Counter[str]:
        words = ["<s>", *re.findall(r"[\w'-]+|[^\w\s]", text.lower()), "</s>"]
        return Counter(words) + Counter(" ".join(pair) for pair in zip(words, words[1:]))

    index: dict[str, list[tuple[int, int]]] = defaultdict(list)
    sizes = []
    for number, pair in enumerate(train):
        found = features(pair.source)
        sizes.append(sum(found.values()))
        for name, count in found.items():
            index[name].append((number, count))
    answers = []
    for source in sources:
        scores: Counter[int] = Counter()
        mine = features(source)
        total = sum(mine.values())
        for name, count in mine.items():
            for number, other in index.get(name, ()):
                scores[number] += min(count, other)
        best = max(scores, key=lambda number: (2 * scores[number] / (total + sizes[number]), -number))
        answers.append(train[best].target)
    return answers


def _number(words: list[str]) -> tuple[int, str]:
    """How many leading words are a number, and its numerals."""
    from nmt_keras.data.demo_corpus import _en_number  # the table is built once
    if not hasattr(_number, "table"):
        _number.table = {_en_number(n): n for n in range(100)}  # type: ignore[attr-defined]
    table: dict[str, int] = _number.table  # type: ignore[attr-defined]
    if words[0][0].isdigit():
        return 1, _zh_number(int(words[0].replace(",", "")))
    total = part = used = 0
    for place, word in enumerate(words):
        if word in table:
            part += table[word]
        elif word == "hundred" and place:
            part *= 100
        elif word == "thousand" and place:
            total, part = part * 1000, 0
        elif not (word == "and" and place and place + 1 < len(words) and words[place + 1] in table
                  and words[place - 1] in ("hundred", "thousand")):
            break
        used = place + 1
    return used, _zh_number(total + part) if used else ""


def word_for_word(lexicon: dict[str, str], sources: list[str]) -> list[str]:
    """Longest lexicon match first, in English order, leaving out words without a Chinese counterpart."""
    table = {" ".join(_tokens(key.lower())): value for key, value in {**_FUNCTION, **lexicon}.items()}
    answers = []
    for source in sources:
        words, place, out = _tokens(source.lower().replace("'s", "")), 0, ""
        while place < len(words):
            used, numeral = _number(words[place:place + 8])
            if used:
                place, out = place + used, out + numeral
                continue
            for size in range(min(5, len(words) - place), 0, -1):
                phrase = " ".join(words[place:place + size])
                stems = [phrase.removesuffix(end) for end in ("s", "es", "ed", "ing")]
                known = [form for form in (phrase, *stems) if form in table]
                if known and phrase not in _SKIP:
                    out += table[known[0]]
                    break
            place += size
        answers.append(out + ("？" if source.endswith("?") else "。"))
    return answers


def main() -> None:
    """Print the statistics of the corpus and the scores of both translators."""
    from sacrebleu.metrics import BLEU
    corpus, bleu = demo_corpus(), BLEU(tokenize="zh")
    sources, targets = [pair.source for pair in corpus.test], [pair.target for pair in corpus.test]
    everything = corpus.train + corpus.dev + corpus.test
    english = Counter(word for pair in corpus.train for word in re.findall(r"[\w'-]+|[^\w\s]", pair.source))
    chinese = Counter(letter for pair in corpus.train for letter in pair.target)

    def score(outputs: list[str]) -> float:
        return round(bleu.corpus_score(outputs, [targets]).score, 2)

    print(json.dumps({
        "pairs": {"train": len(corpus.train), "dev": len(corpus.dev), "test": len(corpus.test)},
        "distinct": len(set(everything)), "lexicon": len(lexicon()),
        "words_per_source": round(sum(len(pair.source.split()) for pair in everything) / len(everything), 2),
        "characters_per_target": round(sum(len(pair.target) for pair in everything) / len(everything), 2),
        "english_types": len(english), "english_types_below_5": sum(count < 5 for count in english.values()),
        "chinese_characters": len(chinese), "chinese_below_5": sum(count < 5 for count in chinese.values()),
        "test_words_not_in_train": sum(word not in english for text in sources
                                       for word in re.findall(r"[\w'-]+|[^\w\s]", text)),
        "bleu_nearest_neighbour": score(nearest_neighbour(corpus.train, sources)),
        "bleu_word_for_word": score(word_for_word(lexicon(), sources)),
        "bleu_word_for_word_with_inflections": score(word_for_word(lexicon(forms=True), sources)),
    }, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()

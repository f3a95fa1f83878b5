"""The quickstart's test set is not to be had by triviality: four translators on it, as JSON.

A nearest-neighbour lookup in train, word-for-word substitution, the model without attention, and the model.

python -m benchmarks.quickstart_baselines --run_dir=runs/quickstart
"""

import functools
import json
import pathlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

from absl import flags

from examples.quickstart.corpus import DemoCorpus, Pair, demo_corpus, lexicon
from examples.quickstart.numbers import chinese_number, english_number
from nmt_keras.experiment.evaluate import evaluate
from nmt_keras.experiment.train import train
from pipelines import _cli, _process
from pipelines.quickstart import write_corpus
from pipelines.recipes import quickstart as recipe

_ATTENTION = recipe.get_config().model.attention
_BELOW = {"nearest_neighbour": 60.0, "word_for_word": 50.0}  # BLEU
_SKIP = set("""the is are am was were be been do does did of to that who there it as on by
and has have had""".split())
_FUNCTION = {
    "not": "不",
    "no": "没有",
    "my": "我的",
    "your": "你的",
    "his": "他的",
    "her": "她的",
    "our": "我们的",
    "their": "他们的",
    "this": "这",
    "these": "这些",
    "some": "一些",
    "many": "很多",
    "what": "什么",
    "who": "谁",
    "where": "哪里",
    "when": "什么时候",
    "why": "为什么",
    "how many": "多少",
    "which": "哪",
    "how long": "多长时间",
    "how much": "多少",
    "because": "因为",
    "if": "如果",
    "before": "以前",
    "after": "以后",
    "very": "很",
    "than": "比",
    "with": "和",
    "in": "在",
    "at": "在",
    "already": "已经",
    "never": "从来没有",
    "last": "上个",
    "next": "下个",
    "every": "每个",
    "ago": "前",
    "half past": "半",
    "o'clock": "点",
    "yuan": "元",
    "there are": "有",
    "there is": "有",
    "not as": "没有",
    "from": "从",
    "for": "给",
    "likes": "喜欢",
    "like": "喜欢",
    "years older": "大",
    "a": "一",
    "an": "一",
}


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


@functools.lru_cache(maxsize=None)
def _small_numbers() -> dict[str, int]:
    return {english_number(n): n for n in range(100)}


def _number(words: list[str]) -> tuple[int, str]:
    """How many leading words are a number, and its numerals."""
    table = _small_numbers()
    if words[0][0].isdigit():
        return 1, chinese_number(int(words[0].replace(",", "")))
    total = part = used = 0
    for place, word in enumerate(words):
        if word in table:
            part += table[word]
        elif word == "hundred" and place:
            part *= 100
        elif word == "thousand" and place:
            total, part = part * 1000, 0
        elif not (
            word == "and"
            and place
            and place + 1 < len(words)
            and words[place + 1] in table
            and words[place - 1] in ("hundred", "thousand")
        ):
            break
        used = place + 1
    return used, chinese_number(total + part) if used else ""


def word_for_word(lexicon: dict[str, str], sources: list[str]) -> list[str]:
    """Longest lexicon match first, in English order, leaving out words without a Chinese counterpart."""
    table = {" ".join(_tokens(key.lower())): value for key, value in {**_FUNCTION, **lexicon}.items()}
    answers = []
    for source in sources:
        words, place, out = _tokens(source.lower().replace("'s", "")), 0, ""
        while place < len(words):
            used, numeral = _number(words[place : place + 8])
            if used:
                place, out = place + used, out + numeral
                continue
            for size in range(min(5, len(words) - place), 0, -1):
                phrase = " ".join(words[place : place + size])
                stems = [phrase.removesuffix(end) for end in ("s", "es", "ed", "ing")]
                known = [form for form in (phrase, *stems) if form in table]
                if known and phrase not in _SKIP:
                    out += table[known[0]]
                    break
            place += size
        answers.append(out + ("？" if source.endswith("?") else "。"))
    return answers


def statistics(corpus: DemoCorpus) -> dict:
    """Counts of the corpus."""
    everything = corpus.train + corpus.dev + corpus.test
    return {
        "pairs": {name: len(part) for name, part in corpus._asdict().items()},
        "distinct": len(set(everything)),
        "lexicon": len(lexicon()),
        "words_per_source": round(sum(len(pair.source.split()) for pair in everything) / len(everything), 2),
        "characters_per_target": round(sum(len(pair.target) for pair in everything) / len(everything), 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string(
        "run_dir", "runs/quickstart", "Of the quickstart; trained if it is missing.", flag_values=values
    )


def _job(values: flags.FlagValues) -> int:
    from nmt_keras.inference.evaluation import score_text

    corpus, run_dir = demo_corpus(), pathlib.Path(values.run_dir)
    sources, references = ([pair[side] for pair in corpus.test] for side in (0, 1))
    result = statistics(corpus)
    for name, hypotheses in (
        ("nearest_neighbour", nearest_neighbour(corpus.train, sources)),
        ("word_for_word", word_for_word(lexicon(), sources)),
    ):
        result[name] = score_text(hypotheses, [references], "zh")["bleu"]
    folder = run_dir.with_name(run_dir.name + "_corpus")
    write_corpus(folder)
    for attention, run in ((_ATTENTION, run_dir), ("none", run_dir.with_name(run_dir.name + "_none"))):
        config = recipe.get_config()
        config.data.data_dir, config.model.attention = str(folder), attention
        train(config, run)
        result[f"attention={attention}"] = evaluate([run], "best", str(folder / "test.en"), str(folder / "test.zh"))[
            "bleu"
        ]
    print(json.dumps(result))
    broken = [name for name, bound in _BELOW.items() if result[name] >= bound]
    if result["attention=none"] >= result[f"attention={_ATTENTION}"]:
        broken.append("attention=none")
    if broken:
        _process.report(f"not below its bound: {', '.join(broken)}")
    return _cli.STATUS_FINDINGS if broken else 0


if __name__ == "__main__":
    sys.exit(main())

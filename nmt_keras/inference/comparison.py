"""How systems differ: significance, and scores by length of the source and by frequency of words."""

import bisect
import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest, Result

_PARTS = 4  # of the sentences, by length
_FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)  # where parts of the words begin


class System(NamedTuple):
    """Translations of the same text."""

    name: str
    translations: list[str]


class Metrics(NamedTuple):
    """Metrics of sacreBLEU, as the target language asks for."""

    bleu: BLEU
    chrf: CHRF
    ter: TER


def scores(systems: Sequence[System], references: Sequence[Sequence[str]], metrics: Metrics) -> list[dict[str, Any]]:
    """BLEU, chrF and TER of each system, with their signatures."""
    rows = []
    for system in systems:
        row: dict[str, Any] = {"name": system.name}
        for name, metric in zip(metrics._fields, metrics):
            row[name] = metric.corpus_score(system.translations, references).score
            row[f"{name}_signature"] = str(metric.get_signature())
        rows.append(row)
    return rows


def significance(
    systems: Sequence[System], references: Sequence[Sequence[str]], metrics: Metrics, samples: int, trials: int
) -> dict[str, list[dict[str, Any]]]:
    """Whether the systems differ from the first, by sacreBLEU's paired tests of BLEU and chrF.

    Args:
        systems: the first is the baseline.
        references: streams of references.
        metrics: of sacreBLEU.
        samples: of the paired bootstrap (Koehn 2004).
        trials: of the paired approximate randomisation (Riezler and Maxwell 2005).

    Returns:
        By metric, for each system: `bootstrap_mean` and `bootstrap_interval`, the half of the 95% confidence interval;
        and but for the baseline the p-values `bootstrap_p` and `randomisation_p`, 1 where the translations are equal.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [{} for _ in systems] for name in ("bleu", "chrf")}
    named: list[tuple[str, Sequence[str]]] = [(system.name, system.translations) for system in systems]
    for kind, count in (("bs", samples), ("ar", trials)):
        for name, metric in (("bleu", metrics.bleu), ("chrf", metrics.chrf)):
            by_name: Mapping[str, Metric] = {name: metric}
            _, table = PairedTest(named, by_name, references, kind, count)()
            [results] = [column for title, column in table.items() if title != "System"]
            for system, row, result in zip(systems, found[name], results):
                assert isinstance(result, Result)
                if kind == "bs":
                    row["bootstrap_mean"] = float(result.mean or 0.0)
                    row["bootstrap_interval"] = float(result.ci or 0.0)
                if result.p_value is not None:
                    # sacreBLEU counts resamples that differ more, of which equal texts have none, as if they differed.
                    p_value = 1.0 if system.translations == systems[0].translations else float(result.p_value)
                    row["bootstrap_p" if kind == "bs" else "randomisation_p"] = p_value
    return found


def by_length(
    systems: Sequence[System], words: Sequence[int], references: Sequence[Sequence[str]], metrics: Metrics
) -> list[dict[str, Any]]:
    """Scores of four parts of the text, by the length of the source, of about as many sentences each.

    Args:
        systems: in order.
        words: how many each source has.
        references: streams of references.
        metrics: of sacreBLEU.

    Returns:
        For each part its shortest and longest source, in words, its number of sentences, and the scores of each system.
    """
    edges = sorted({int(np.quantile(words, part / _PARTS, method="lower")) for part in range(1, _PARTS)})
    parts: dict[int, list[int]] = collections.defaultdict(list)
    for place, length in enumerate(words):
        parts[bisect.bisect_left(edges, length)].append(place)
    rows = []
    for _, places in sorted(parts.items()):
        streams = [[stream[place] for place in places] for stream in references]
        chosen = [System(name, [texts[place] for place in places]) for name, texts in systems]
        found = [
            {
                name: metric.corpus_score(system.translations, streams).score
                for name, metric in metrics._asdict().items()
            }
            for system in chosen
        ]
        lengths = [words[place] for place in places]
        rows.append({"from": min(lengths), "to": max(lengths), "sentences": len(places), "systems": found})
    return rows


def by_frequency(
    systems: Sequence[System], references: Sequence[str], frequent: Iterable[str], metrics: Metrics
) -> list[dict[str, Any]]:
    """How well words are translated, by how frequent they are.

    A word of a translation is right as often as its reference has it. Words are those of BLEU's tokenizer.

    Args:
        systems: in order.
        references: a reference of each sentence.
        frequent: text whose words are counted, such as the target side of training.
        metrics: of sacreBLEU.

    Returns:
        For each part of the words the least and the greatest frequency (None is without end), how many words of the
        references it has, and the F1 of each system, from 0 to 100.
    """
    tokenizer = metrics.bleu.tokenizer
    counts = collections.Counter(word for line in frequent for word in tokenizer(line).split())
    wanted = [collections.Counter(tokenizer(text).split()) for text in references]
    totals = _by_part(wanted, counts)
    scored = []
    for system in systems:
        given = [collections.Counter(tokenizer(text).split()) for text in system.translations]
        right = _by_part([own & other for own, other in zip(given, wanted)], counts)
        scored.append(200.0 * right / np.maximum(_by_part(given, counts) + totals, 1))
    ends = [start - 1 for start in _FREQUENCIES[1:]] + [None]
    return [
        {"from": start, "to": end, "words": int(total), "f1": [float(row[place]) for row in scored]}
        for place, (start, end, total) in enumerate(zip(_FREQUENCIES, ends, totals))
        if total
    ]


def _by_part(bags: Iterable[collections.Counter[str]], counts: collections.Counter[str]) -> np.ndarray:
    """How many words of some bags are in each part of the frequencies."""
    totals = np.zeros(len(_FREQUENCIES), np.int64)
    for bag in bags:
        for word, number in bag.items():
            totals[bisect.bisect_right(_FREQUENCIES, counts[word]) - 1] += number
    return totals


def most_different(
    systems: Sequence[System], references: Sequence[Sequence[str]], metrics: Metrics, count: int
) -> list[dict[str, Any]]:
    """The sentences whose chrF differs most from the baseline's, the largest difference first.

    Args:
        systems: the first is the baseline.
        references: streams of references.
        metrics: of sacreBLEU.
        count: of sentences, at most.

    Returns:
        For each the place of the sentence, from 0, and the chrF of each system.
    """
    found = np.array(
        [
            [metrics.chrf.sentence_score(text, list(expected)).score for text, expected in zip(texts, zip(*references))]
            for _, texts in systems
        ]
    )
    differences = np.abs(found - found[:1]).max(0)
    order = np.argsort(-differences, kind="stable")[:count]
    return [{"line": int(place), "chrf": found[:, place].tolist()} for place in order if differences[place] > 0]

"""A comparison of systems as a page for a browser, which needs no network."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_keras.experiment.html_page import marked, page, sentence, table


def page_of(result: Mapping[str, Any]) -> str:
    """The page of what `compare` returns."""
    systems = [system["name"] for system in result["systems"]]
    parts = [
        "<h1>Comparison of systems</h1>",
        f"<p class=note>{html.escape(result['source'])}, {result['sentences']:,} sentences; reference "
        f"{html.escape(', '.join(result['references']))}. The first system is the baseline.</p>",
        _scores(result),
        "<h2>By words of the source</h2>",
        *(
            _parts(
                systems,
                f"{title} by words of the source",
                "sentences",
                [(row, [own[name] for own in row["systems"]]) for row in result["by_source_length"]],
                less_is_better=name == "ter",
            )
            for name, title in (("bleu", "BLEU"), ("chrf", "chrF"), ("ter", "TER"))
        ),
        "<h2>By frequency of words</h2>",
        "<p class=note>F1 of the words of BLEU's tokenizer, by how often each is in the counted text.</p>",
        _parts(systems, "F1 by frequency", "words", [(row, row["f1"]) for row in result["by_word_frequency"]]),
        "<h2>Sentences that differ most</h2>",
        "<p class=note>By chrF, which is given; words that the baseline does not have there are marked.</p>",
        *(_sentence(systems, result, row) for row in result["most_different"]),
    ]
    return page("Comparison of systems", parts)


def _scores(result: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("System", "BLEU", "p", "chrF", "p", "TER"))
    rows, best = [], {name: max(s[name] for s in result["systems"]) for name in ("bleu", "chrf")}
    best["ter"] = min(system["ter"] for system in result["systems"])
    for place, system in enumerate(result["systems"]):
        cells = [f"<td>{html.escape(system['name'])}</td>"]
        for name in ("bleu", "chrf"):
            test = result["tests"][name][place]
            cells.append(_number(system[name], best[name], f" &plusmn; {test['bootstrap_interval']:.2f}"))
            cells.append(f"<td>{p_values(test)}</td>")
        cells.append(_number(system["ter"], best["ter"]))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    signatures = "; ".join(html.escape(result["systems"][0][f"{name}_signature"]) for name in ("bleu", "chrf", "ter"))
    note = (
        f"Half of the 95% confidence interval by {result['bootstrap_samples']:,} bootstrap samples; p of the "
        "difference from the baseline by the paired bootstrap, and by "
        f"{result['randomisation_trials']:,} trials of approximate randomisation. {signatures}"
    )
    return f"{table(head, rows)}<p class=note>{note}</p>"


def p_values(test: Mapping[str, Any]) -> str:
    """The p-values of both tests; "" of the baseline."""
    if "bootstrap_p" not in test:
        return ""
    return f"{test['bootstrap_p']:.3f}, {test['randomisation_p']:.3f}"


def _parts(
    systems: Sequence[str],
    caption: str,
    unit: str,
    rows: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
    less_is_better: bool = False,
) -> str:
    head = f"<th>{html.escape(caption)}</th><th>{unit}</th>" + "".join(f"<th>{html.escape(s)}</th>" for s in systems)
    lines = []
    for row, values in rows:
        best = (min if less_is_better else max)(values)
        cells = "".join(_number(value, best) for value in values)
        lines.append(f"<tr><td>{span_of(row)}</td><td>{row[unit]:,}</td>{cells}</tr>")
    return table(head, lines)


def span_of(row: Mapping[str, Any]) -> str:
    """A part's least and greatest value, for people."""
    if row["to"] is None:
        return f"{row['from']:,} and more"
    return f"{row['from']:,}" if row["from"] == row["to"] else f"{row['from']:,} to {row['to']:,}"


def _number(value: float, best: float, after: str = "") -> str:
    return f"<td{' class=best' if value == best else ''}>{value:.2f}{after}</td>"


def _sentence(systems: Sequence[str], result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    into = result["target_language"]
    texts = [("source", html.escape(row["source"]), result["source_language"])]
    texts += [("reference", html.escape(text), into) for text in row["references"]]
    baseline = row["translations"][0]
    for name, text, chrf in zip(systems, row["translations"], row["chrf"]):
        texts.append((f"{name} ({chrf:.1f})", marked(text, baseline), into))
    return sentence(f"line {row['line']:,}", texts)

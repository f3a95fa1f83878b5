"""A comparison of systems as a page for a browser, which needs no network."""

import difflib
import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #e8a33d66; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
.wide + .wide { margin-top: 1.2rem; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; } td.best { font-weight: 600; }
.note { opacity: .75; font-size: .9rem; }
mark { background: var(--mark); color: inherit; border-radius: .15rem; }
section.sentence { border-top: 1px solid var(--line); padding: .6rem 0; }
section.sentence dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .15rem 1rem; }
section.sentence dl { margin: 0; }
dt { opacity: .75; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
"""


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
        *(_sentence(systems, row) for row in result["most_different"]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Comparison of systems</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


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
    return f"{_table(head, rows)}<p class=note>{note}</p>"


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
    return _table(head, lines)


def span_of(row: Mapping[str, Any]) -> str:
    """A part's least and greatest value, for people."""
    if row["to"] is None:
        return f"{row['from']:,} and more"
    return f"{row['from']:,}" if row["from"] == row["to"] else f"{row['from']:,} to {row['to']:,}"


def _table(head: str, rows: Sequence[str]) -> str:
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _number(value: float, best: float, after: str = "") -> str:
    return f"<td{' class=best' if value == best else ''}>{value:.2f}{after}</td>"


def _sentence(systems: Sequence[str], row: Mapping[str, Any]) -> str:
    pairs = [("source", html.escape(row["source"]))]
    pairs += [("reference", html.escape(text)) for text in row["references"]]
    baseline = row["translations"][0]
    for name, text, chrf in zip(systems, row["translations"], row["chrf"]):
        pairs.append((f"{name} ({chrf:.1f})", _marked(text, baseline)))
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{text}</dd>" for name, text in pairs)
    return f"<section class=sentence><p class=note>line {row['line']:,}</p><dl>{items}</dl></section>"


def _marked(text: str, baseline: str) -> str:
    """A translation with the words that the baseline does not have there marked; characters where there is no space."""
    separator = " " if " " in text.strip() or " " in baseline.strip() else ""
    words, others = (each.split(" ") if separator else list(each) for each in (text, baseline))
    parts = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(None, others, words, autojunk=False).get_opcodes():
        if start < stop:
            part = html.escape(separator.join(words[start:stop]))
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return separator.join(parts)

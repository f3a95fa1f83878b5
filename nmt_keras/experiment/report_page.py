"""The report on a run as a page for a browser, which needs no network and prints well."""

import html
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.experiment.comparison_page import span_of
from nmt_keras.experiment.curves import curves
from nmt_keras.experiment.html_page import in_language, marked, page, sentence, table

_STYLE = """
:root { --bar: #3b7dd8; --doubt: 208, 64, 48; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem 1.4rem; }
dl.facts dd { font-size: 1.35rem; font-weight: 600; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.curves svg { width: 100%; height: auto; }
td.bar { min-width: 9rem; text-align: left; }
td.bar span { display: block; height: .8rem; background: var(--bar); }
table.attention th { font-weight: 400; padding: .1rem .4rem; border: 0; white-space: nowrap; }
table.attention thead th { writing-mode: vertical-rl; text-align: left; }
table.attention thead th:first-child { writing-mode: initial; }
table.attention tbody th { text-align: right; }
table.attention td { padding: 0; width: 1.2rem; min-width: 1.2rem; height: 1.2rem; border: 1px solid var(--line); }
.serious td:first-child { font-weight: 600; }
.pieces { white-space: pre-wrap; }
pre { white-space: pre-wrap; padding: .6rem .8rem; border: 1px solid var(--line); }
td.text { overflow-wrap: anywhere; }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; margin: 0; font-size: 10pt; }
  h2, tr, section.sentence, table.attention { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def page_of(result: Mapping[str, Any]) -> str:
    """The page of what `write_report` gathers."""
    config: ExperimentConfig = result["config"]
    title = f"Run {result['run_dir']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=note>{_text(_about(result))}</p>",
        _facts(result),
        *_section("Curves", _curves(result)),
        *(_scored(result) if result["scores"] else _not_scored(result)),
        *_section("Text", _corpus(result["cards"]["data_card"])),
        *_section("Settings that differ from the defaults", _settings(config)),
        *_section("Machine", _machine(result["cards"]["run_card"])),
        *_section("Commands", _commands(result)),
    ]
    return page(title, parts, _STYLE)


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, body: str) -> list[str]:
    return [f"<h2>{_text(title)}</h2>", body] if body else []


def _about(result: Mapping[str, Any]) -> str:
    config: ExperimentConfig = result["config"]
    data, model = config.data, config.model
    into = ", ".join(data.target_languages) or data.target_language
    return (
        f"{data.source_language} to {into}; encoder {model.encoder}, decoder {model.decoder}, {model.d_model} wide, "
        f"{model.num_encoder_layers} + {model.num_decoder_layers} layers; {data.tokenizer} pieces; "
        f"{config.training.precision}"
    )


def _facts(result: Mapping[str, Any]) -> str:
    card, rows, scores = result["cards"]["run_card"], result["rows"], result["scores"]
    facts = []
    for name, title in (("bleu", "BLEU"), ("bleu_lc", "BLEU, lower-cased"), ("chrf", "chrF"), ("ter", "TER")):
        if name in scores:
            facts.append((f"{title}, {pathlib.PurePath(result['text'].partition(',')[0]).name}", f"{scores[name]:.2f}"))
    best = result["best"]
    if isinstance(best.get("value"), (int, float)):
        facts.append((f"best {best['metric']} in training", f"{best['value']:.2f}, step {best['step']:,}"))
    if rows:
        facts.append(("steps", f"{max(row['step'] for row in rows):,} of {result['config'].training.max_steps:,}"))
    weights = result.get("weights") or card.get("weights")
    if weights:
        facts.append(("weights", f"{weights:,}"))
    if "seconds_of_this_job" in card:
        facts.append(("time of the last job", _duration(card["seconds_of_this_job"])))
    speeds = sorted(row["target_tokens_per_s"] for row in rows if "target_tokens_per_s" in row)
    if speeds:
        facts.append(("target tokens/s, median", f"{speeds[len(speeds) // 2]:,.0f}"))
    return f"<dl class=facts>{''.join(f'<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>' for n, v in facts)}</dl>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _curves(result: Mapping[str, Any]) -> str:
    drawn = curves(result["rows"], result["best"].get("step"))
    if not drawn:
        return "<p class=note>The run has no metrics.jsonl yet.</p>"
    note = "By step; the dotted line is the best checkpoint." if result["best"] else "By step."
    return f"<div class=curves>{''.join(drawn)}</div><p class=note>{note}</p>"


def _not_scored(result: Mapping[str, Any]) -> list[str]:
    return _section("Translations", f"<p class=note>{_text(result.get('no_scores', 'None were asked for.'))}</p>")


def _scored(result: Mapping[str, Any]) -> list[str]:
    scores, data = result["scores"], result["config"].data
    languages = data.source_language, data.target_language
    signatures = "; ".join(scores[f"{name}_signature"] for name in ("bleu", "bleu_lc", "chrf", "ter"))
    cut = f"; {scores['truncated']:,} are over the model's limit and translated in part" if scores["truncated"] else ""
    about = (
        f"The first {scores['sentences']:,} sentences of {result['text']}, by checkpoint {result['checkpoint']}, step "
        f"{result['step']:,}{cut}. {signatures}"
    )
    counted = (
        "the training text has each"
        if result["is_of_training"]
        else "the references have each, since the training text is not here"
    )
    lengths = [
        [span_of(row), f"{row['sentences']:,}", *(f"{row['systems'][0][name]:.2f}" for name in ("bleu", "chrf", "ter"))]
        for row in result["by_source_length"]
    ]
    frequencies = [[span_of(row), f"{row['words']:,}", f"{row['f1'][0]:.2f}"] for row in result["by_word_frequency"]]
    bars = [row["systems"][0]["bleu"] for row in result["by_source_length"]]
    seen = [row["f1"][0] for row in result["by_word_frequency"]]
    shade = "Each piece is shaded by how unsure the model is of it; words that the reference does not have are marked."
    return [
        *_section("Quality", f"<p class=note>{_text(about)}</p>"),
        _barred(["words of the source", "sentences", "BLEU", "chrF", "TER"], lengths, bars, "BLEU"),
        f"<p class=note>F1 of the words of BLEU's tokenizer, by how often {counted}:</p>",
        _barred(["times", "words", "F1"], frequencies, seen, "F1"),
        *_section("Translations, spread over the text", f"<p class=note>{shade}</p>"),
        *(_sample(row, *languages) for row in result["samples"]),
        *(
            _section("Translations least like their reference", "<p class=note>By sentence chrF.</p>")
            * bool(result["worst"])
        ),
        *(_sample(row, *languages) for row in result["worst"]),
        *_section("Attention", _attention(result["attention"], *languages)),
    ]


def _barred(heads: Sequence[str], rows: Sequence[Sequence[str]], values: Sequence[float], name: str) -> str:
    """A table with a bar of up to 100 a row."""
    head = "".join(f"<th>{_text(each)}</th>" for each in heads) + f"<td class=bar>{_text(name)}</td>"
    lines = [
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}"
        f"<td class=bar><span style='width:{min(max(value, 0.0), 100.0):.1f}%'></span></td></tr>"
        for row, value in zip(rows, values)
    ]
    return table(head, lines)


def _sample(row: Mapping[str, Any], source: str, target: str) -> str:
    pieces = "".join(
        f"<span title='{probability:.0%}' style='background:rgba(var(--doubt),{(1 - probability) * 0.6:.2f})'>"
        f"{_text(piece.replace('▁', ' '))}</span>"
        for piece, probability in row["pieces"]
    )
    texts = [("source", _text(row["source"]), source)]
    texts += [("reference", _text(text), target) for text in row["references"]]
    texts += [("translation", marked(row["translation"], row["references"][0]), target)]
    texts += [("its pieces", f"<span class=pieces>{pieces}</span>", target)]
    return sentence(f"line {row['line']:,}, chrF {row['chrf']:.1f}", texts)


def _attention(pictures: Sequence[Mapping[str, Any]], source: str, target: str) -> str:
    if not pictures:
        return ""
    note = (
        "What each piece of a translation (a row) read of the source: the darker, the more. Of several heads and "
        "layers it is the mean of the heads of the last layer."
    )
    drawn = []
    for picture in pictures:
        head = "<th></th>" + "".join(
            f"<th scope=col{in_language(source)}>{_text(piece)}</th>" for piece in picture["source"]
        )
        rows = [
            f"<tr><th scope=row{in_language(target)}>{_text(piece)}</th>"
            + "".join(
                f"<td title='{_text(piece)} reads {_text(read)}: {weight:.0%}' "
                f"style='background:rgba(59,125,216,{weight:.2f})'></td>"
                for read, weight in zip(picture["source"], weights)
            )
            + "</tr>"
            for piece, weights in zip(picture["target"], picture["weights"].tolist())
        ]
        drawn.append(
            f"<div class=wide><table class=attention><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
            "</table></div>"
        )
    return f"<p class=note>{note}</p>{''.join(drawn)}"


def _corpus(card: Mapping[str, Any]) -> str:
    if not card:
        return ""
    texts = [
        f"<tr><td class=text>{_text(text['path'])}</td><td>{part}</td><td>{text['lines']:,}</td></tr>"
        for part in ("train", "dev")
        for text in card.get(part, ())
    ]
    findings = [
        f"<tr class={finding['severity']}><td>{finding['severity']}</td>"
        f"<td class=text>{_text(finding['text'])}</td></tr>"
        for finding in card.get("findings", ())
    ]
    found = (
        table("<th>finding</th><td class=text>about</td>", findings)
        if findings
        else "<p class=note>The corpus doctor found nothing to say.</p>"
    )
    return table("<th>file</th><th>part</th><th>lines used</th>", texts) + found


def _settings(config: ExperimentConfig) -> str:
    rows = [
        f"<tr><td>{field.path}</td><td class=text>{_text(_shown(field.value_in(config)))}</td>"
        f"<td class=text>{_text(_shown(field.default))}</td></tr>"
        for field in fields_of(ExperimentConfig)
        if field.value_in(config) != field.default
    ]
    return table("<th>field</th><td class=text>value</td><td class=text>default</td>", rows)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _machine(card: Mapping[str, Any]) -> str:
    names = ("finished", "machine", "devices", "tensorflow", "stopped", "epochs", "restarts", "weights_sha256")
    rows = [
        f"<tr><td>{name}</td><td class=text>{_text(_shown(card[name]))}</td></tr>" for name in names if name in card
    ]
    return table("<th>of the last job</th><td></td>", rows) if rows else ""


def _commands(result: Mapping[str, Any]) -> str:
    run = shlex.quote(result["run_dir"])
    checkpoint = result.get("checkpoint", "best")
    with_checkpoint = f" --checkpoint={checkpoint}" if checkpoint != "best" else ""
    lines = [
        f"python -m pipelines.translate --run_dir={run}{with_checkpoint}",
        f"python -m pipelines.evaluate --run_dir={run}{with_checkpoint} --source=<test text> --reference=<translation>",
        f"python -m pipelines.export --run_dir={run}{with_checkpoint} --output=saved_models/<name>",
        f"python -m pipelines.train --config={run} --run_dir={run}  # goes on, where it is not done",
        f"tensorboard --logdir={run}/summaries",
    ]
    return f"<pre>{_text(chr(10).join(lines))}</pre>"

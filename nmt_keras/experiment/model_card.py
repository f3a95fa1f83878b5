"""The model card of an export."""

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_keras.config import ExperimentConfig
from nmt_keras.inference.evaluation import bleu_signature
from nmt_keras.reports import counted
from nmt_keras.runs.layout import checkpoints_of
from nmt_keras.runs.loading import Run


def model_card(
    trained: Run, run_dirs: Sequence[pathlib.Path], name: str, version: int, example: str, result: Mapping[str, Any]
) -> str:
    """Markdown: what the model is, what it was trained on, its limits, and how to call it.

    Args:
        trained: what was exported.
        run_dirs: of it.
        name: of the model on a server.
        version: of it.
        example: a source sentence.
        result: of the proof.
    """
    config, decoding = trained.config, trained.config.decoding
    data, model = config.data, config.model
    languages = data.target_languages
    inputs = {"text": [example], **({"target_language": [data.target_language]} if languages else {})}
    request = shlex.quote(json.dumps({"inputs": inputs}, ensure_ascii=False))
    into = f"{', '.join(languages)} ({data.target_language} unless asked)" if languages else data.target_language
    dev_source = _names(data.dev_source) if data.dev_source else f"{data.dev_pairs:,} pairs taken out of it"
    dev_sets = len(data.languages_of_dev)
    lines = f"{result['dev_lines']:,} lines of" + f" {dev_sets} dev sets," * (dev_sets > 1)
    by_language = "".join(f", {code} {bleu:.2f}" for code, bleu in result.get("dev_bleu_by_language", {}).items())
    flag = f" --target_language={data.target_language}" if languages else ""
    keyword = f"target_language={data.target_language!r}, " if languages else ""
    beside = f"(in float32 {result['dev_bleu_float32']:.2f}) " if "dev_bleu_float32" in result else ""
    ensemble = f"an ensemble of {len(run_dirs)} models, " if len(run_dirs) > 1 else ""
    shortlist = f", a shortlist of {decoding.shortlist} pieces a source piece" if decoding.shortlist else ""
    beams = decoding.most_beams
    about = _protected(trained.config) + int8_products(result)
    kind = "any number of sentences, translated one by one and joined" if decoding.split_sentences else "one sentence"
    return f"""# {name}

Translates {data.source_language} to {into}: {ensemble}encoder {model.encoder},
decoder {model.decoder}, {trained.model.count_params():,} weights in {result["precision"]}, {data.tokenizer} pieces,
after {trained.step:,} steps (checkpoint {result["checkpoint"]}).

- Trained on {_names([*data.train_source, *filter(None, data.train_target)])}, chosen on {dev_source}. Text unlike
  that is translated badly, and no translation is checked for truth.
- This export on the first {lines} {dev_source}: BLEU {result["dev_bleu"]:.2f}{by_language}
  {beside}({result["dev_bleu_signature"]}). Best in training: {_best(trained.config, run_dirs[0])}.
- A text is {kind}, of at most {decoding.max_source_characters:,} characters; a sentence has at most
  {decoding.max_source_length} pieces and its translation {decoding.max_length}. What is over a limit is left out,
  and `truncated` says so. A call has at most {decoding.max_request_sentences:,} texts, {beams} beams and as many
  hypotheses.
- Search: {decoding.beam_size} beams, length penalty {decoding.length_penalty:g}
  ({decoding.length_penalty_kind}){shortlist}.
{about}- `parity.json`: how the export was compared with the model it was made of. `config.json` of
  the run has all settings.

    # in the folder that {name}/ is in
    docker run -p 8500:8500 -p 8501:8501 -v "$PWD/{name}:/models/{name}" -e MODEL_NAME={name} tensorflow/serving \\
        --enable_batching --batching_parameters_file=/models/{name}/{version}/batching_parameters.txt
    curl -d {request} http://localhost:8501/v1/models/{name}:predict
    echo {shlex.quote(example)} | python -m pipelines.translate --server=grpc://localhost:8500/{name}{flag}

From Python, by REST or gRPC:

    from nmt_keras.serving.client import Client

    with Client("grpc://localhost:8500/{name}") as client:
        [translation] = client.translate([{example!r}], {keyword}beam_size={decoding.beam_size}, num_hypotheses=1)
        print(translation.text, [hypothesis.score for hypothesis in translation.hypotheses])
"""


def _protected(config: ExperimentConfig) -> str:
    """Markdown: what clients protect; "" where that is nothing."""
    patterns = [*config.decoding.protect, *config.data.placeholders]
    if not patterns:
        return ""
    names = ", ".join(f"`{pattern}`" for pattern in patterns)
    return (
        f"- The Python client takes out of a text what {names} finds (`decoding.protect`, `data.placeholders`), and\n"
        "  puts it back; other callers, and the BLEU of this export, have the text as it is.\n"
    )


def int8_products(result: Mapping[str, Any]) -> str:
    """Markdown: what an export with products in int8 needs, and the table of what was measured; "" of another.

    Args:
        result: of the proof.
    """
    if "int8_products" not in result:
        return ""
    rows = [
        f"| {each['rows']} | {each['input_width']} x {each['output_width']} | {each['weights']} "
        f"| {each['microseconds']:,.0f} | {each['int8_microseconds']:,.0f} | {'yes' if each['int8'] else 'no'} |"
        for each in result["int8_products"]
    ]
    head = ["rows", "kernel", "weights", f"microseconds in {result['computed_in']}", "in int8", "is in int8"]
    table = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|", *rows]
    needs = f"- Needs {result['needs']}:\n  its warm-up requests fail on a server without.\n" if result["needs"] else ""
    if not any(each["int8"] for each in result["int8_products"]):
        needs = (
            f"- No product was faster in int8 on the machine of the export: all are in {result['computed_in']},\n"
            "  which another --precision gives too.\n"
        )
    about = "- Products and their times on the machine of the export, which chose those that are in int8:\n\n"
    return needs + about + "".join(f"  {line}\n" for line in table) + "\n"


def _names(paths: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(paths))


def _best(config: ExperimentConfig, run_dir: pathlib.Path) -> str:
    """The best metric of training, with what it was measured with."""

    try:
        best = json.loads((checkpoints_of(run_dir) / "best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "not measured"
    measured = ""
    if best["metric"] == "dev_bleu":
        signature = bleu_signature(config.data.target_language, config.data.bleu_tokenizer)
        mean = ", the mean of several dev sets" * (len(config.data.languages_of_dev) > 1)
        measured = f" ({signature}{mean}), {counted(config.training.dev_beam_size, 'beam')},"
    return f"{best['metric']} {best['value']:.2f}{measured} at step {best['step']:,}"

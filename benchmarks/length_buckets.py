"""BLEU by source length for several runs, as JSON and a plot: what attention is worth on long sentences.

python -m benchmarks.length_buckets --runs=attention=runs/m30k,none=runs/m30k_none --source=test.en.gz \\
    --reference=test.de.gz --output=length_buckets.png
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_EDGES = (9, 12, 15, 19)  # words of the source; the last bucket is open


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_list("runs", [], "name=run directory, separated by commas.", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "best, latest, averaged or a step.", flag_values=values)
    flags.DEFINE_string("source", None, "Text to translate.", flag_values=values)
    flags.DEFINE_string("reference", None, "Its reference translation.", flag_values=values)
    flags.DEFINE_string("output", "length_buckets.png", "The plot.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if not (values.runs and values.source and values.reference):
        raise UserError("--runs, --source and --reference must be given")
    result = {
        name: _by_length(pathlib.Path(run_dir), values.checkpoint, values.source, values.reference)
        for name, _, run_dir in (run.partition("=") for run in values.runs)
    }
    _plot(result, values.output)
    print(json.dumps(result))


def _by_length(run_dir: pathlib.Path, checkpoint: str, source: str, reference: str) -> dict:
    import dataclasses

    from nmt_keras.experiment.text import open_corpus
    from nmt_keras.inference.evaluation import bleu_metric
    from nmt_keras.runs.loading import load

    run = load(run_dir, checkpoint=checkpoint, report=_process.report)
    data = dataclasses.replace(run.config.data, data_dir="")
    sources, references = open_corpus(data, [source], [reference], _process.report).text()
    hypotheses = [result.text for result in run.translator().translate(sources)]
    metric = bleu_metric(data.target_language)
    unspaced = data.source_language.startswith(("zh", "ja", "th"))
    lengths = [len(text) // 2 if unspaced else len(text.split()) for text in sources]  # about two characters a word
    buckets = {}
    for low, high in zip((0, *_EDGES), (*_EDGES, 10**9)):
        rows = [i for i, length in enumerate(lengths) if low < length <= high]
        if not rows:
            continue
        score = metric.corpus_score([hypotheses[i] for i in rows], [[references[i] for i in rows]]).score
        buckets[f"{low + 1}-{high}" if high < 10**9 else f"over {low}"] = {
            "sentences": len(rows),
            "bleu": round(score, 2),
        }
    overall = metric.corpus_score(hypotheses, [references]).score
    return {"step": run.step, "bleu": round(overall, 2), "signature": str(metric.get_signature()), "buckets": buckets}


def _plot(result: dict, path: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, scores in result.items():
        buckets = scores["buckets"]
        axes.plot(list(buckets), [bucket["bleu"] for bucket in buckets.values()], marker="o", label=name)
    axes.set_xlabel("source length (words)")
    axes.set_ylabel("BLEU")
    axes.legend(title="attention")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())

"""Curves of a training as a picture for a page."""

import io
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_POINTS = 600  # of a curve at most: more are not seen
_INK = "#123456"  # stands for the page's own colour of text until the picture is done


class _Panel(NamedTuple):
    title: str
    curves: Mapping[str, str]  # labels by names of scalars; a name that ends with * is any that begins so
    is_logarithmic: bool = False


_PANELS = (
    _Panel("loss a target piece", {"loss": "training, with smoothing and dropout", "dev_loss": "dev"}),
    _Panel("dev BLEU", {"dev_bleu": "", "dev_bleu_*": ""}),
    _Panel("learning rate", {"learning_rate": ""}),
    _Panel("norm of the gradient", {"gradient_norm": ""}, is_logarithmic=True),
    _Panel("target tokens/s", {"target_tokens_per_s": ""}),
    _Panel("share of padding", {"padding_share": ""}),
)


def rows_of(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """What `metrics.jsonl` of a run says, but for lines that are damaged; nothing where there is no such file."""
    try:
        text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def curves(rows: Sequence[Mapping[str, Any]], best_step: int | None = None) -> list[str]:
    """Draws what a training measured, as SVG whose text and lines have the colours of the page.

    Args:
        rows: of `metrics.jsonl`.
        best_step: that of the best checkpoint, which is marked.

    Returns:
        An `<svg>` element for each panel that has something to show.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    drawn = []
    for panel in _PANELS:
        found = {
            name: label or (name.removeprefix("dev_bleu_") if "*" in pattern else "")
            for pattern, label in panel.curves.items()
            for name in names
            if name == pattern or pattern.endswith("*") and name.startswith(pattern[:-1])
        }
        points = {name: _points(rows, name) for name in found}
        points = {name: each for name, each in points.items() if each[0]}
        if points:
            drawn.append(_svg(panel, found, points, best_step))
    return drawn


def _svg(
    panel: _Panel, labels: Mapping[str, str], curves_of: Mapping[str, tuple[list[int], list[float]]], best: int | None
) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ink = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor"), _INK
    )
    # Ids are hashes of what they name, with this salt: they must differ between the pictures of a page.
    style: dict[Any, Any] = {
        **ink,
        "svg.fonttype": "none",
        "svg.hashsalt": panel.title,
        "font.size": 9,
        "legend.frameon": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, (name, (steps, values)) in enumerate(curves_of.items()):
            axes.plot(steps, values, f"C{number}", label=labels[name] or None, marker="." if len(steps) < 3 else "")
        if best is not None and any(name.startswith("dev_") for name in curves_of):
            axes.axvline(best, color=_INK, linewidth=0.7, linestyle=":")
        if panel.is_logarithmic and all(value > 0 for _, values in curves_of.values() for value in values):
            axes.set_yscale("log")
        if len(curves_of) > 1:
            axes.legend()
        axes.set_title(panel.title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL).replace(
        _INK, "currentColor"
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # of figures, axes and lines: the same in each picture
    return svg.replace("<svg", f'<svg role="img" aria-label="{panel.title}, by step"', 1)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of a curve, thinned: of each of so many stretches the last point."""
    points = {row["step"]: float(row[name]) for row in rows if isinstance(row.get(name), (int, float))}
    steps = sorted(points)
    every = -(-len(steps) // _POINTS) or 1
    kept = steps[::-1][::every][::-1]
    return kept, [points[step] for step in kept]

"""What a run writes about itself: TensorBoard events and the same scalars as lines of `metrics.jsonl`."""

import contextlib
import functools
import importlib.util
import io
import json
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.data.scripts import script_of
from nmt_keras.training import dashboards

_PLAIN_FONT = "DejaVu Sans"
_CJK = ("Chinese", "Japanese", "Korean")
_FONT_PACKAGE = "notojp_matplotlib"  # holds Noto Sans CJK, which has the characters of all three; the extra `cjk`


class Summaries:
    """Writes to `summaries/` and `metrics.jsonl` of a run directory.

    Args:
        run_dir: the run directory.
        first_step: the step that training resumes from; what was written of later ones is dropped, it comes again.
        owes_evaluation: whether that step is still to be evaluated.
        enabled: False on workers that are not the chief.
    """

    def __init__(self, run_dir: pathlib.Path, first_step: int = 0, owes_evaluation: bool = False, enabled: bool = True):
        self._enabled = enabled
        self._jsonl = run_dir / "metrics.jsonl"
        self._folder = run_dir / "summaries"
        self._writer: Any = None
        self.go_on_from(first_step, owes_evaluation)

    def go_on_from(self, step: int, owes_evaluation: bool) -> None:
        """Drops what was written of steps after `step`, and its evaluation if that is owed: they come again."""
        if not self._enabled:
            return
        if self._writer is not None:
            self._writer.close()
        _start_session(self._folder, step if owes_evaluation else step + 1)
        self._writer = tf.summary.create_file_writer(str(self._folder))
        if not self._jsonl.exists():
            return
        rows = self._jsonl.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        kept = [row for row in rows if _step_of(row) <= step]
        if owes_evaluation:
            kept = [row for row in kept if _step_of(row) < step or "dev_loss" not in json.loads(row)]
            for row in kept:
                if _step_of(row) == step:  # TensorBoard was told to forget it
                    self._write_events(step, {name: v for name, v in json.loads(row).items() if name != "step"})
        files.write_text(self._jsonl, "".join(row + "\n" for row in kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one row: `step` and the scalars, whose names are those of `metrics.jsonl`."""
        if not self._enabled:
            return
        with open(self._jsonl, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._write_events(step, values)

    def _write_events(self, step: int, values: dict[str, float]) -> None:
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(_tag(name), value)
        self._writer.flush()

    def run(self, config: ExperimentConfig, name: str) -> None:
        """Writes what the run is: its hyperparameters, to compare runs by, and which curves are looked at first."""
        if not self._enabled:
            return
        with self._writer.as_default(step=0):
            dashboards.write_layout()
            dashboards.write_hyperparameters(config, name)
        self._writer.flush()

    def embeddings(self, tables: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
        """Writes tables of embeddings by name, vectors [V, D] and the piece of each, for the projector."""
        if self._enabled:
            dashboards.write_embeddings(self._folder, tables)

    def histograms(self, step: int, values: Iterable[tuple[str, np.ndarray]]) -> None:
        """Writes how numbers are distributed, by name; nothing is asked of `values` where nothing is written."""
        if not self._enabled:
            return
        with self._writer.as_default(step=step):
            for name, numbers in values:
                dashboards.write_histogram(name, numbers)
        self._writer.flush()

    def translations(
        self,
        step: int,
        sources: Sequence[str],
        references: Sequence[str],
        hypotheses: Sequence[str],
        before: Sequence[str] = (),
    ) -> None:
        """Writes sample translations as a table of text, beside those of the evaluation before, where there was one and
        they were others."""
        if not self._enabled:
            return
        changes = ["" if old == new else old for old, new in zip(before, hypotheses)] or [""] * len(hypotheses)
        rows = [
            "| " + " | ".join(text.replace("|", "&#124;") for text in row) + " |"
            for row in zip(sources, references, hypotheses, changes, strict=True)
        ]
        head = ["| source | reference | hypothesis | before |", "|---|---|---|---|"]
        with self._writer.as_default(step=step):
            tf.summary.text("dev/translations", "\n".join([*head, *rows]))

    def attention(self, step: int, picture: bytes, name: str = "attention") -> None:
        """Writes an attention heat map, a PNG."""
        if self._enabled:
            with self._writer.as_default(step=step):
                tf.summary.image(f"dev/{name}", tf.image.decode_png(picture, 3)[None])


def heads_picture(weights: Sequence[np.ndarray]) -> bytes:
    """Draws the attention of each head, a row of pictures a layer.

    Args:
        weights: of each layer, float32 [H, T, S].

    Returns:
        The picture as PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heads, target, source = weights[0].shape
    cell = 1.0 + 0.04 * max(target, source)
    figure = Figure(figsize=(cell * heads + 0.4, cell * len(weights) + 0.4), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for layer, own in enumerate(weights):
        for head, read in enumerate(own):
            axes = figure.add_subplot(len(weights), heads, layer * heads + head + 1)
            axes.imshow(read, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _tag(name: str) -> str:
    """The name of a scalar in TensorBoard: dev/bleu for `dev_bleu`, train/loss for `loss`."""
    return name.replace("dev_", "dev/", 1) if name.startswith("dev_") else f"train/{name}"


def _step_of(row: str) -> float:
    """The step of a row of `metrics.jsonl`; a damaged row counts as later than all."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _start_session(folder: pathlib.Path, first_step: int) -> None:
    """Writes the start of a session: from the second on, TensorBoard then forgets `first_step` and later steps."""
    writer = EventFileWriter(str(folder), filename_suffix=".start")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=start))
    writer.close()


def font_note(text: str) -> str:
    """A note for the user if no font of this machine has some characters of `text`, with their script; "" otherwise."""
    _, uncovered = _fonts_of(_without_font(text))
    if not uncovered:
        return ""
    script = script_of("".join(map(chr, uncovered)))
    font = "Noto Sans CJK" if script in _CJK else f"Noto Sans {script}".strip()
    package = "pip install 'nmt_keras[cjk]', or " if script in _CJK else ""
    return (
        f"no font with {script or 'some'} characters is installed: the labels are the pieces' ids; "
        f"{package}install one such as {font} and draw again"
    )


def _without_font(text: str) -> frozenset[int]:
    """The code points of `text` that the default font of pictures lacks."""
    from matplotlib import font_manager

    covered = font_manager.get_font(font_manager.findfont(_PLAIN_FONT)).get_charmap()
    return frozenset(ord(c) for c in text if not c.isspace() and ord(c) not in covered)


@functools.lru_cache(64)
def _fonts_of(characters: frozenset[int]) -> tuple[list[str], frozenset[int]]:
    """Chooses font families of this machine for some characters, each time the one with most of those left, and the
    font of the extra `cjk` for what they lack; returns the families, and the characters that none has."""
    families, left = _chosen(characters)
    if not left or not _add_packaged_fonts():
        return families, left
    more, left = _chosen(left)
    return families + more, left


def _add_packaged_fonts() -> bool:
    """Makes the fonts of the extra `cjk` known to Matplotlib; whether there are some."""
    from matplotlib import font_manager

    package = importlib.util.find_spec(_FONT_PACKAGE)  # not imported: that would change the fonts of all pictures
    folders = package.submodule_search_locations if package else None
    fonts = [font for folder in folders or () for font in pathlib.Path(folder).glob("fonts/*.otf")]
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for font in fonts:
        if str(font) not in known:
            font_manager.fontManager.addfont(font)
    return bool(fonts)


def _chosen(characters: frozenset[int]) -> tuple[list[str], frozenset[int]]:
    from matplotlib import font_manager

    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")]  # boxes
    families: list[str] = []
    while characters:
        covered: dict[str, frozenset[int]] = {}
        for font in sorted(fonts, key=lambda font: (font.name, font.fname)):
            with contextlib.suppress(OSError, RuntimeError):
                covered.setdefault(font.name, characters & font_manager.get_font(font.fname).get_charmap().keys())
        best = max(covered, key=lambda name: len(covered[name]), default="")
        if not best or not covered[best]:
            break
        families.append(best)
        characters -= covered[best]
    return families, characters


def attention_picture(
    weights: np.ndarray,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    source_ids: Sequence[int],
    target_ids: Sequence[int],
) -> tuple[bytes, str]:
    """Draws attention weights [T, S] as a heat map.

    Returns:
        The picture as PNG, and a note: which font the labels needed, or that on a side the pieces' ids stand in for
        them because no font of this machine has their characters.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts, uncovered = _fonts_of(_without_font("".join([*source_pieces, *target_pieces])))
    note, families = f"labels in {', '.join(fonts)}" * bool(fonts), [_PLAIN_FONT, *fonts]
    if uncovered:
        source_pieces, target_pieces = [
            list(map(str, ids)) if uncovered & set(map(ord, "".join(pieces))) else pieces
            for pieces, ids in ((source_pieces, source_ids), (target_pieces, target_ids))
        ]
        note = font_note("".join(map(chr, uncovered)))
    with rc_context({"font.family": families}):
        figure = Figure(figsize=(2 + 0.35 * len(source_pieces), 1.5 + 0.3 * len(target_pieces)), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(source_pieces)), source_pieces, rotation=90, parse_math=False)
        axes.set_yticks(range(len(target_pieces)), target_pieces, parse_math=False)
        axes.set_xlabel("source")
        axes.set_ylabel("target")
        figure.tight_layout()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue(), note

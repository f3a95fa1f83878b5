"""Begins a training with the weights of another run."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import Report
from nmt_keras.runs.loading import load
from nmt_keras.tokenizers.base import NUM_SPECIALS, Tokenizer, Tokenizers
from nmt_keras.training.precision import configure

_LISTED = 5  # weights that a line names


class _Known(NamedTuple):
    """Rows of another model, with the tokenizer whose ids they are of."""

    rows: np.ndarray  # [V, ...]
    tokenizer: Tokenizer


def initialise(model: Seq2Seq, tokenizers: Tokenizers, config: ExperimentConfig, report: Report) -> None:
    """Takes over the weights of the run `training.init_from`, by path and shape, and reports what it took.

    What belongs to an id, rows of embeddings and columns of the output, is taken over by its piece. A piece that the
    other vocabulary lacks starts from the mean of those that the other tokenizer cuts it into.

    Args:
        model: built.
        tokenizers: of its vocabularies.
        config: of the experiment.
        report: takes lines for the user.

    Raises:
        UserError: the run cannot be loaded, or a weight has another shape there.
    """
    folder = pathlib.Path(config.training.init_from)
    overrides = {
        "training.precision": config.training.precision,
        "training.deterministic": config.training.deterministic,
        "decoding.shortlist": 0,
    }
    base = load(folder, overrides, config.training.init_checkpoint, report=report)
    configure(config.training)
    assert isinstance(base.model, Seq2Seq)
    ours, theirs = ({weight.path: weight for weight in each.variables} for each in (model, base.model))
    counts = _take_rows(model, tokenizers, base.model, base.tokenizers, folder)
    by_rows = set(counts)
    frozen = {path for path in ours if path.endswith("/frozen") and counts}  # rows of vectors, of this vocabulary
    shared = [path for path in ours if path in theirs and path not in by_rows | frozen]
    for path in shared:
        _require_shape(folder, path, theirs[path].shape, ours[path].shape)
    for path in shared:
        ours[path].assign(theirs[path])
    report(f"weights from {folder}: {len(shared)} as they are{_rows_of(counts)}")
    for what, paths in (("new here", ours.keys() - theirs.keys()), ("left out", theirs.keys() - ours.keys())):
        if paths - by_rows:
            report(f"weights {what}: {_listed(sorted(paths - by_rows))}")


def _require_shape(folder: pathlib.Path, path: str, theirs: Sequence[int], ours: Sequence[int]) -> None:
    if tuple(theirs) != tuple(ours):
        raise UserError(
            f"{folder}, which training.init_from names, has the weight {path} as {list(theirs)}, and this model as "
            f"{list(ours)}: give the section model the sizes of its config.json, or another run"
        )


def _rows_of(counts: dict[str, tuple[int, int]]) -> str:
    if not counts:
        return ""
    rows = (f"{path.partition('/')[2]} ({known:,} of {number:,} known)" for path, (known, number) in counts.items())
    return f", {len(counts)} by their pieces, of which the others are the mean of their parts: {', '.join(rows)}"


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(path.partition("/")[2] for path in paths[:_LISTED]) + more


def _take_rows(
    model: Seq2Seq, tokenizers: Tokenizers, base: Seq2Seq, base_tokenizers: Tokenizers, folder: pathlib.Path
) -> dict[str, tuple[int, int]]:
    """Fills what belongs to the ids of another vocabulary; how many pieces were known, and of how many, by path."""
    source, target = base_tokenizers
    embeddings = {
        "source": _Known(np.array(base.source_embedding.table), source),
        "target": _Known(np.array(base.target_embedding.table), target),
    }
    output, base_output = model.output_projection, base.output_projection
    wanted: list[tuple[keras.Variable, Tokenizer, list[_Known]]] = [
        (model.target_embedding.table, tokenizers.target, [embeddings["target"]]),
        (output.bias, tokenizers.target, [_Known(np.array(base_output.bias), target)]),
    ]
    if model.source_embedding is model.target_embedding:
        wanted[0][2].append(embeddings["source"])
    else:
        wanted.append((model.source_embedding.table, tokenizers.source, [embeddings["source"]]))
    if not output.is_tied and not base_output.is_tied:
        wanted.append((output.kernel, tokenizers.target, [_Known(np.array(base_output.kernel).T, target)]))
    counts = {}
    for weight, tokenizer, known in wanted:
        is_same = all(tokenizer.sha256 == each.tokenizer.sha256 for each in known)
        if is_same and weight.path in {own.path for own in base.variables}:
            continue  # taken over as it is
        rows, found = rows_of_pieces(tokenizer, known)
        rows = rows.T if weight is getattr(output, "kernel", None) else rows
        _require_shape(folder, weight.path, rows.shape, weight.shape)
        weight.assign(rows)
        counts[weight.path] = (found, tokenizer.vocab_size)
    return counts


def rows_of_pieces(tokenizer: Tokenizer, known: Sequence[_Known]) -> tuple[np.ndarray, int]:
    """Rows for the ids of a tokenizer, out of those of others.

    Args:
        tokenizer: whose ids they are for.
        known: rows of others; the first that has a piece gives its row.

    Returns:
        The rows, [V, ...], and how many ids one of `known` has. A piece that none has is the mean of those that the
        first cuts it into.
    """
    pieces = [
        {each.tokenizer.piece(number): number for number in range(NUM_SPECIALS, each.tokenizer.vocab_size)}
        for each in known
    ]
    rows, found = [], 0
    for number in range(tokenizer.vocab_size):
        piece = tokenizer.piece(number)
        places = [(each.rows, ids[piece]) for each, ids in zip(known, pieces) if piece in ids]
        if number < NUM_SPECIALS:
            places = [(known[0].rows, number)]
        if places:
            found += 1
            rows.append(places[0][0][places[0][1]])
        else:
            parts = _parts(tokenizer.surface(number).decode("utf-8", errors="replace"), known[0].tokenizer)
            rows.append(known[0].rows[parts].mean(0) if parts else known[0].rows[NUM_SPECIALS:].mean(0))
    return np.stack(rows), found


def _parts(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a piece's text; without a beginning of a word of its own where the piece is inside one."""
    ids = tokenizer.encode(text)
    begins_word = text[:1] == " "
    if not begins_word and len(ids) > 1 and not tokenizer.surface(ids[0]).strip():
        return ids[1:]
    return ids

"""The tokenizers of a run."""

import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping

from nmt_keras.config import DataConfig
from nmt_keras.constants import PLACEHOLDERS, TERM_MARKS
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.errors import UserError
from nmt_keras.reports import Report
from nmt_keras.tokenizers.base import Tokenizer, Tokenizers
from nmt_keras.tokenizers.building import load_tokenizer, own_tokenizers, place_of_model, read_model, train_tokenizers
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer


def _require_symbols(data: DataConfig, tokenizers: Mapping[str, Tokenizer]) -> None:
    name = "placeholders" if data.placeholders else "annotated_terms"
    for tokenizer in tokenizers.values() if getattr(data, name) else ():
        for symbol in PLACEHOLDERS if data.placeholders else TERM_MARKS:
            if symbol not in map(tokenizer.piece, tokenizer.encode(symbol)):
                raise UserError(
                    f"The tokenizer of {data.tokenizer_from} has no piece for {symbol}, which data.{name} needs: set "
                    f"data.tokenizer_from to a run with data.{name}, or leave out either"
                )


def prepare_tokenizers(run_dir: pathlib.Path, data: DataConfig, corpus: ParallelCorpus, report: Report) -> Tokenizers:
    """Loads a run's tokenizers; makes them if it has none: those of another run, those of the user's models, or new
    ones, trained on `corpus`.

    Raises:
        UserError: a model cannot be read, or the text cannot fill the vocabulary.
    """
    folder = run_dir / "tokenizer"
    if folder.exists():
        kept = load_tokenizers(run_dir)
        for path, tokenizer in zip((data.source_tokenizer_model, data.target_tokenizer_model), kept):
            if not path or not os.path.exists(place_of_model(data, path)):
                continue
            if SentencePieceTokenizer(read_model(data, path), tokenizer.folds).sha256 != tokenizer.sha256:
                raise UserError(
                    f"{run_dir} was trained with another tokenizer than {path} is now; restore the file, or "
                    "give another --run_dir"
                )
        _require_same(run_dir, data, kept)
    else:
        if data.tokenizer_from:
            if not (pathlib.Path(data.tokenizer_from) / "tokenizer").is_dir():
                raise UserError(
                    f"{data.tokenizer_from}, which data.tokenizer_from names, has no folder tokenizer: give the run "
                    "directory of a training job"
                )
            source, target = load_tokenizers(pathlib.Path(data.tokenizer_from))
            if data.joint_vocabulary != (source is target):
                raise UserError(
                    f"data.joint_vocabulary={data.joint_vocabulary}, but {data.tokenizer_from}, which "
                    f"data.tokenizer_from names, has {'one tokenizer' if source is target else 'two tokenizers'}: set "
                    f"it to {source is target}"
                )
            made: dict[str, Tokenizer] = {"joint": source} if source is target else {"source": source, "target": target}
        elif data.source_tokenizer_model:
            paths = [data.source_tokenizer_model, data.target_tokenizer_model]
            source, target = own_tokenizers(data)
            if data.joint_vocabulary and source.sha256 != target.sha256:
                raise UserError(
                    "`data.joint_vocabulary` needs one SentencePiece model for both sides. Received: "
                    f"{paths[0]} and {paths[1]}; give the same, or set data.joint_vocabulary=False"
                )
            made = {"joint": source} if data.joint_vocabulary else {"source": source, "target": target}
        else:
            made = train_tokenizers(data, corpus, report)
        _require_symbols(data, made)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in run_dir.glob(".tmp-tokenizer-*"):  # of a job that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = run_dir / f".tmp-tokenizer-{uuid.uuid4().hex[:12]}"
        for name, tokenizer in made.items():
            tokenizer.save(temporary / name)
        temporary.rename(folder)
    return load_tokenizers(run_dir)


def _require_same(run_dir: pathlib.Path, data: DataConfig, kept: Tokenizers) -> None:
    """Checks that the tokenizers that a run has are those of `data.tokenizer_from`, if that is still there."""
    if not data.tokenizer_from or not (pathlib.Path(data.tokenizer_from) / "tokenizer").exists():
        return
    for own, theirs in zip(kept, load_tokenizers(pathlib.Path(data.tokenizer_from))):
        if own.sha256 != theirs.sha256:
            raise UserError(
                f"{run_dir} was trained with other tokenizers than data.tokenizer_from={data.tokenizer_from} has now; "
                "restore them, or give another --run_dir"
            )


def load_tokenizers(run_dir: pathlib.Path) -> Tokenizers:
    """Reads a run's tokenizers.

    Raises:
        UserError: there are none, or not whole ones.
    """
    folder = run_dir / "tokenizer"
    has_begun = folder.exists() or any((run_dir / "checkpoints").glob("step-*"))
    if not has_begun and (run_dir / "config.json").exists():
        raise UserError(
            f"{run_dir} has not begun to train: python -m pipelines.train --run_dir={run_dir} --config=<recipe>"
        )
    if (folder / "joint").exists():
        joint = load_tokenizer(folder / "joint")
        return Tokenizers(joint, joint)
    return Tokenizers(load_tokenizer(folder / "source"), load_tokenizer(folder / "target"))

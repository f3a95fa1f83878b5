"""A run directory: what training leaves and every later job starts from.

config.json  tokenizer/  data_card.json  checkpoints/  summaries/  metrics.jsonl  run_card.json  lexicon.npz
"""

import contextlib
import copy
import dataclasses
import fcntl
import itertools
import json
import math
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from sacrebleu.metrics import BLEU

from nmt_keras import files
from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig
from nmt_keras.data import corpus as corpora
from nmt_keras.data import doctor
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.languages import language_of
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.data.tokenizer import NUM_SPECIALS, SentencePieceTokenizer, Tokenizer, load_tokenizer, train_tokenizer
from nmt_keras.data.vectors import load_vectors
from nmt_keras.errors import UserError
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq, build_seq2seq
from nmt_keras.training.checkpoints import Checkpoints, by_path

# What may differ when a run goes on: how long it trains, and what is only reported or searched.
FREE_FIELDS = (
    "training.max_steps",
    "training.log_every",
    "training.evaluate_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.patience",
    "training.max_bad_steps",
    "data.data_dir",
    "data.cache_dir",
    "data.on_findings",
    "decoding",
)
# Defaults that have changed since: a run keeps its own value where the recipe leaves the default.
_MOVED_DEFAULTS = ("data.character_coverage",)
SCHEDULED_TO_THE_END = ("cosine", "luong_halving")
# What may differ where that is allowed: the variables of a checkpoint stay what they are, and the run is another one.
CHANGEABLE_FIELDS = (
    "data.train_source",
    "data.train_target",
    "data.train_weights",
    "data.train_example_weights",
    "data.dev_source",
    "data.dev_target",
    "data.bleu_tokenizer",
    "data.sampling_alpha",
    "data.max_source_length",
    "data.max_target_length",
    "data.static_shapes",
    "model.attention_dropout_rate",
    "model.input_dropout_rate",
    "model.state_dropout_rate",
    "model.output_dropout_rate",
    "training.batch_tokens",
    "training.batch_sentences",
    "training.accumulation_steps",
    "training.learning_rate",
    "training.schedule",
    "training.warmup_steps",
    "training.weight_decay",
    "training.adam_beta2",
    "training.adam_epsilon",
    "training.clip_norm",
    "training.label_smoothing",
    "training.precision",
    "training.distribution",
    "training.deterministic",
    "training.seed",
    "training.dev_sentences",
    "training.dev_beam_size",
    "training.best_metric",
)
_SAMPLED_LINES = 10_000
# Options of the search that dev BLEU is not measured with, or that change no translation.
_NOT_OF_DEV_SEARCH = (
    "beam_size",
    "shortlist",
    "max_beam_size",
    "max_request_sentences",
    "batch_sentences",
    "split_sentences",
)

Report = Callable[[str], None]


class Tokenizers(NamedTuple):
    """Of both sides; one object twice where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer


class Run(NamedTuple):
    """A trained model and all that belongs to it."""

    config: ExperimentConfig
    tokenizers: Tokenizers
    model: Seq2Seq | Ensemble
    step: int
    folder: pathlib.Path  # where it was loaded from

    @property
    def lexicon(self) -> Lexicon | None:
        """What the configuration's search takes its shortlist from; None where it has none.

        Raises:
            UserError: the run has no lexicon, a broken one, one that proposes too little, or that of another run.
        """
        if not self.config.decoding.shortlist:
            return None
        lexicon = Lexicon.read(lexicon_of(self.folder))
        lexicon.require(
            self.config.decoding.shortlist,
            self.tokenizers,
            f"make it anew with python -m pipelines.lexicon --run_dir={self.folder}",
        )
        return lexicon

    def translator(self, num_hypotheses: int = 1, sampling: Sampling | None = None) -> Translator:
        """A translator with the configuration's search."""
        return Translator(self.model, *self.tokenizers, self.config.decoding, num_hypotheses, sampling, self.lexicon)


def checkpoints_of(run_dir: pathlib.Path) -> pathlib.Path:
    """The folder of a run's checkpoints."""
    return run_dir / "checkpoints"


def lexicon_of(run_dir: pathlib.Path) -> pathlib.Path:
    """The file of a run's lexicon."""
    return run_dir / "lexicon.npz"


def read_config(run_dir: pathlib.Path) -> ExperimentConfig:
    """The configuration a run was trained with.

    Raises:
        UserError: `run_dir` is no run directory, or its configuration is broken.
    """
    try:
        return ExperimentConfig.from_json((run_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{run_dir} is no run directory: it has no readable config.json; give the --run_dir of a " "training job"
        ) from error


def load_run(run_dir: pathlib.Path, checkpoint: str = "best", report: Report = lambda line: None) -> Run:
    """Loads a trained model.

    Args:
        run_dir: of a training job.
        checkpoint: `best`, `latest`, a step, `averaged`, the mean of the latest `training.keep_checkpoints`, or `ema`,
            the moving average that `training.ema_decay` keeps, as it is in the latest.
        report: takes a line for the user.

    Raises:
        UserError: the directory is not a run's, or has no such checkpoint.
    """
    config = read_config(run_dir)
    tokenizers = load_tokenizers(run_dir)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    if checkpoint not in ("best", "latest", "averaged", "ema") and not checkpoint.isdecimal():
        raise UserError(f"`checkpoint` must be best, latest, averaged, ema or a step. Received: {checkpoint!r}")
    if checkpoint == "ema" and not config.training.ema_decay:
        raise UserError(
            f"{run_dir} keeps no moving average of its weights, which checkpoint ema asks for: train with "
            "training.ema_decay=0.999, or give --checkpoint=averaged"
        )
    checkpoints, variables = Checkpoints(checkpoints_of(run_dir), report=report), by_path(model.variables)
    if checkpoint == "averaged":
        steps = checkpoints.restore_average(variables, "model", config.training.keep_checkpoints)
        report(f"checkpoint: averaged, steps {', '.join(map(str, steps))} of {run_dir}")
        return Run(config, tokenizers, model, steps[-1], run_dir)
    objects = {"model": variables}
    if checkpoint == "ema":
        averaged = by_path(model.trainable_variables)
        objects = {"ema": averaged, "model": {path: variables[path] for path in variables.keys() - averaged.keys()}}
    which = "latest" if checkpoint == "ema" else checkpoint
    manifest = checkpoints.restore(tf.train.Checkpoint(**objects), which, partial=True)
    if manifest is None or not manifest["step"]:
        raise UserError(f"{run_dir} has no checkpoint of a trained model yet; train it first")
    report(f"checkpoint: {checkpoint}, step {manifest['step']:,} of {run_dir}")
    return Run(config, tokenizers, model, manifest["step"], run_dir)


def load_runs(run_dirs: Sequence[pathlib.Path], checkpoint: str = "best", report: Report = lambda line: None) -> Run:
    """Loads trained models as one, an ensemble where they are several; what is not the model is of the first.

    Args:
        run_dirs: of training jobs with the same tokenizers.
        checkpoint: of each, as for `load_run`.
        report: takes a line for the user.

    Raises:
        UserError: as `load_run`, or their tokenizers differ.
    """
    runs = [load_run(run_dir, checkpoint, report) for run_dir in run_dirs]
    fingerprints = [[tokenizer.sha256 for tokenizer in run.tokenizers] for run in runs]
    for run_dir, fingerprint in zip(run_dirs, fingerprints):
        if fingerprint != fingerprints[0]:
            raise UserError(
                f"{run_dir} has other tokenizers than {run_dirs[0]}, and an ensemble needs the same ones: train on the "
                "same text with the same options of data, and another training.seed"
            )
    members = [run.model for run in runs if isinstance(run.model, Seq2Seq)]
    return runs[0] if len(runs) == 1 else runs[0]._replace(model=Ensemble(members))


@contextlib.contextmanager
def open_run_dir(
    run_dir: pathlib.Path,
    config: ExperimentConfig,
    report: Report = lambda line: None,
    allow_change: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Makes a run directory with its `config.json`, or checks that an existing one is of the same experiment.

    Holds it, within the block, against every other training job of this machine. What may change and did is reported;
    with `allow_change`, `CHANGEABLE_FIELDS` may too. A `batch_tokens` of 0, "find it", becomes what was found before.
    `check` may refuse what else there is before anything is written.

    Raises:
        UserError: it belongs to another configuration, with the difference, or another job trains there; nothing is
            written.
    """
    path = run_dir / "config.json"
    if not path.exists() and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir} exists and is no run directory; give a new or empty --run_dir")
    files.make_folder(run_dir)
    with open(run_dir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another job is training in {run_dir}; wait for it, or give another --run_dir") from error
        _keep_config(run_dir, path, config, report, allow_change, check)
        yield


def _keep_config(
    run_dir: pathlib.Path,
    path: pathlib.Path,
    config: ExperimentConfig,
    report: Report,
    allow_change: bool,
    check: Callable[[], None],
) -> None:
    if path.exists():
        before = read_config(run_dir)
        if not any(Checkpoints(checkpoints_of(run_dir)).steps()):  # nothing was trained: no more than a false start
            for folder in (run_dir / "tokenizer", run_dir / "bad_batches", checkpoints_of(run_dir)):
                shutil.rmtree(folder, ignore_errors=True)
            (run_dir / "data_card.json").unlink(missing_ok=True)
        else:
            _keep_what_was_decided(before, config)
            changeable, changes = _require_allowed(run_dir, before, config, allow_change)
            check()
            if (
                config.training.max_steps != before.training.max_steps
                and config.training.schedule in SCHEDULED_TO_THE_END
            ):
                changes.append(
                    f"training.schedule {config.training.schedule} is one of max_steps: the rates change with it"
                )
            if changes + changeable:
                report(f"from now on: {'; '.join(changes + changeable)}")
    files.write_text(path, config.to_json())


def require_same_experiment(run_dir: pathlib.Path, config: ExperimentConfig, allow_change: bool) -> None:
    """Sees that a run directory, if it is one that was trained in, may go on with a configuration; for before the work
    that comes before `open_run_dir`.

    Raises:
        UserError: it belongs to another configuration, or cannot be written.
    """
    files.require_writable(run_dir / "config.json")
    if (run_dir / "config.json").exists() and any(Checkpoints(checkpoints_of(run_dir)).steps()):
        before, config = read_config(run_dir), copy.deepcopy(config)
        _keep_what_was_decided(before, config)
        _require_allowed(run_dir, before, config, allow_change)


def _keep_what_was_decided(before: ExperimentConfig, config: ExperimentConfig) -> None:
    """Gives a configuration the budget that was found before, and the defaults that there were then."""
    config.training.batch_tokens = config.training.batch_tokens or before.training.batch_tokens
    for field in _MOVED_DEFAULTS:
        section, name = field.split(".")
        if getattr(getattr(config, section), name) == getattr(getattr(ExperimentConfig(), section), name):
            setattr(getattr(config, section), name, getattr(getattr(before, section), name))


def _require_allowed(
    run_dir: pathlib.Path, before: ExperimentConfig, config: ExperimentConfig, allow_change: bool
) -> tuple[list[str], list[str]]:
    """What changes with permission, and what without."""
    differences, changeable, changes = _differences(before, config)
    refused = differences + ([] if allow_change else changeable)
    if refused:
        remedy = "" if differences else "give --allow_config_change to go on so, "
        raise UserError(
            f"{run_dir} belongs to another configuration: {'; '.join(refused)}; {remedy}give the same values, "
            "or another --run_dir"
        )
    return changeable, changes


def _differences(old: ExperimentConfig, new: ExperimentConfig) -> tuple[list[str], list[str], list[str]]:
    """What makes another experiment, what does unless it is allowed, and what does not."""
    differences: list[str] = []
    changeable: list[str] = []
    changes: list[str] = []
    for section in dataclasses.fields(ExperimentConfig):
        before, after = (dataclasses.asdict(getattr(c, section.name)) for c in (old, new))
        for name, value in before.items():
            field = f"{section.name}.{name}"
            value, now = (tuple(v) if isinstance(v, list) else v for v in (value, after[name]))
            if value != now:
                is_free = section.name in FREE_FIELDS or field in FREE_FIELDS
                kind = changes if is_free else changeable if field in CHANGEABLE_FIELDS else differences
                kind.append(f"{field} was {value!r}, now {after[name]!r}")
    return differences, changeable, changes


def open_corpus(
    data: DataConfig, sources: Sequence[str], targets: Sequence[str], report: Report, weights: Sequence[str] = ()
) -> ParallelCorpus:
    """Opens aligned text, with files of the weights of its lines ("" is none), and reports its oddities.

    Raises:
        UserError: a file cannot be read, or two files are not aligned.
    """

    pairs = [open_texts(data, *names) for names in zip(sources, targets)]
    sides = ([source for source, _ in pairs], [target for _, target in pairs])
    for texts, language in zip(sides, (data.source_language, data.target_language)):
        for text in texts:
            for finding in text.findings:
                report(f"{text.path}: {finding}")
            advice = [found.text for found in doctor.encoding_findings(text, language) if "looks like" in found.text]
            if advice and "like UTF-" in advice[0]:
                raise UserError(advice[0])
            for line in advice:
                report(f"warning: {line}")
    return ParallelCorpus(*sides, open_weights(data) if weights else ())


def open_weights(data: DataConfig) -> list[TextFile | None]:
    """The files of `data.train_example_weights`, None where a corpus has none.

    Raises:
        UserError: a file cannot be read.
    """
    cache_dir = data.cache_dir or corpora.default_cache_dir()
    return [
        TextFile(os.path.join(data.data_dir, name), cache_dir) if name else None for name in data.train_example_weights
    ]


def dev_references(data: DataConfig) -> list[str]:
    """The files of `data.dev_target`: several with commas, unless one has that name."""
    whole = os.path.join(data.data_dir, data.dev_target)
    return [data.dev_target] if os.path.exists(whole) else data.dev_target.split(",")


def open_references(data: DataConfig, source: str, references: Sequence[str], report: Report) -> ParallelCorpus:
    """Opens text to measure on: a source with its first reference, and the others in `references`.

    Raises:
        UserError: a file cannot be read, two are not aligned, or no pair has text on both sides.
    """
    corpus = open_corpus(data, [source], references[:1], report)
    corpus.require_text()
    for reference in references[1:]:
        corpus.references += open_corpus(data, [source], [reference], report).targets
    return corpus


def open_bleu(data: DataConfig, report: Report) -> BLEU:
    """sacreBLEU's BLEU for the target language; what a user should know of it is reported.

    Raises:
        UserError: it needs a package or a model that is not there.
    """
    metric = bleu_metric(data.target_language, data.bleu_tokenizer)
    remark = language_of(data.target_language).remark()
    if remark and not data.bleu_tokenizer:
        report(remark)
    return metric


def require_lexicon(run_dir: pathlib.Path, decoding: DecodingConfig) -> None:
    """Sees that a search among a shortlist has the lexicon that it needs, before anything is loaded.

    Raises:
        UserError: it has none, or a broken one.
    """
    if decoding.shortlist:
        Lexicon.read(lexicon_of(run_dir))


def open_texts(data: DataConfig, source: str, target: str) -> tuple[TextFile, TextFile]:
    """Opens both sides of a corpus, by the names that a recipe has for them.

    Raises:
        UserError: a file cannot be read.
    """
    cache_dir = data.cache_dir or corpora.default_cache_dir()
    first, second = (
        corpora.open_text(
            name if name.startswith("tfds:") else os.path.join(data.data_dir, name),
            cache_dir,
            language,
            data.data_dir or None,
        )
        for name, language in ((source, data.source_language), (target, data.target_language))
    )
    return first, second


def check_data_card(run_dir: pathlib.Path, train: ParallelCorpus, dev: ParallelCorpus) -> None:
    """Compares text with the `data_card.json` of a run, if it has one.

    Raises:
        UserError: the card shows other content, or cannot be read.
    """
    path = run_dir / "data_card.json"
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        hashes = {name: [(text["path"], text["sha256"]) for text in old[name]] for name in ("train", "dev")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or give another --run_dir") from error
    for name, corpus in (("train", train), ("dev", dev)):
        for before, now in itertools.zip_longest(hashes[name], _texts(corpus)):
            if before is None or now is None or before[1] != now.sha256:
                raise UserError(
                    f"{run_dir} was trained on other {name} text: {now.path if now else before[0]} has changed; "
                    "restore the file, give --allow_config_change to go on with it, or another --run_dir"
                )


def measure_of(config: ExperimentConfig, dev: ParallelCorpus) -> dict[str, Any]:
    """What evaluations measure, as JSON values by name: dev text, how much of it, by which search and metric."""
    tokenizer = config.data.bleu_tokenizer or language_of(config.data.target_language).bleu_tokenizer
    return _measure(config, [text.sha256 for text in _texts(dev)], len(dev), tokenizer)


def _measure(config: ExperimentConfig, hashes: Sequence[str], lines: int, tokenizer: str) -> dict[str, Any]:
    training, decoding = config.training, dataclasses.asdict(config.decoding)
    ignored = _NOT_OF_DEV_SEARCH + (("length_penalty", "length_penalty_kind") if training.dev_beam_size == 1 else ())
    about = {
        "dev text": list(hashes),
        "training.dev_sentences": min(training.dev_sentences or lines, lines),
        "training.dev_beam_size": training.dev_beam_size,
        "training.best_metric": training.best_metric,
        "bleu_tokenizer": tokenizer,
        **{f"decoding.{name}": value for name, value in decoding.items() if name not in ignored},
    }
    return json.loads(json.dumps(about))


def measure_before(run_dir: pathlib.Path) -> dict[str, Any]:
    """`measure_of` a run whose checkpoints do not tell it, by its configuration and data card; empty where they do
    not."""
    try:
        config = read_config(run_dir)
        language = config.data.target_language.partition("-")[0].partition("_")[0].lower()
        tokenizer = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}.get(language, "13a")  # as it was chosen then
        card = json.loads((run_dir / "data_card.json").read_text(encoding="utf-8"))
        return _measure(config, [text["sha256"] for text in card["dev"]], card["dev"][0]["lines"], tokenizer)
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def write_data_card(
    run_dir: pathlib.Path, train: ParallelCorpus, dev: ParallelCorpus, findings: Sequence[doctor.Finding] = ()
) -> None:
    """Writes `data_card.json`: each file with its lines, SHA-256 and oddities, and what the doctor found."""
    card: dict[str, Any] = {
        name: [
            {"path": text.path, "lines": len(text), "sha256": text.sha256, "findings": list(map(str, text.findings))}
            for text in _texts(corpus)
        ]
        for name, corpus in (("train", train), ("dev", dev))
    }
    card["findings"] = [finding.card() for finding in findings]
    files.write_json(run_dir / "data_card.json", card)


def _texts(corpus: ParallelCorpus) -> list[TextFile]:
    return [*corpus.sources, *corpus.targets, *corpus.references, *corpus.weight_texts]


def prepare_tokenizers(run_dir: pathlib.Path, data: DataConfig, corpus: ParallelCorpus, report: Report) -> Tokenizers:
    """Loads a run's tokenizers; makes them if it has none, from the user's models or by training on `corpus`.

    Raises:
        UserError: a model cannot be read, or the text cannot fill the vocabulary.
    """
    folder = run_dir / "tokenizer"
    if folder.exists():
        kept = load_tokenizers(run_dir)
        for path, tokenizer in zip((data.source_tokenizer_model, data.target_tokenizer_model), kept):
            if not path or not os.path.exists(_place_of_model(data, path)):
                continue
            if SentencePieceTokenizer(_read_model(data, path), tokenizer.folds).sha256 != tokenizer.sha256:
                raise UserError(
                    f"{run_dir} was trained with another tokenizer than {path} is now; restore the file, or "
                    "give another --run_dir"
                )
    else:
        if data.source_tokenizer_model:
            paths = [data.source_tokenizer_model, data.target_tokenizer_model]
            source, target = own_tokenizers(data)
            if data.joint_vocabulary and source.sha256 != target.sha256:
                raise UserError(
                    "`data.joint_vocabulary` needs one SentencePiece model for both sides. Received: "
                    f"{paths[0]} and {paths[1]}; give the same, or set data.joint_vocabulary=False"
                )
            made: dict[str, Tokenizer] = (
                {"joint": source} if data.joint_vocabulary else {"source": source, "target": target}
            )
        else:
            made = _train_tokenizers(data, corpus, report)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in run_dir.glob(".tmp-tokenizer-*"):  # of a job that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = run_dir / f".tmp-tokenizer-{uuid.uuid4().hex[:12]}"
        for name, tokenizer in made.items():
            tokenizer.save(temporary / name)
        temporary.rename(folder)
    return load_tokenizers(run_dir)


def require_sampling(tokenizers: Tokenizers, data: DataConfig) -> None:
    """Sees that tokenizers can sample segmentations where `data.sampling_alpha` asks for that.

    Raises:
        UserError: one cannot.
    """
    for side, tokenizer, path in zip(
        ("source", "target"), tokenizers, (data.source_tokenizer_model, data.target_tokenizer_model)
    ):
        if data.sampling_alpha and not tokenizer.samples:
            raise UserError(
                f"data.sampling_alpha={data.sampling_alpha:g} needs a SentencePiece model of type unigram or bpe, "
                f"which the {side} tokenizer{f' {path}' * bool(path)} is not: set data.sampling_alpha=0, or give "
                "another"
            )


def load_tokenizers(run_dir: pathlib.Path) -> Tokenizers:
    """Reads a run's tokenizers.

    Raises:
        UserError: there are none, or not whole ones.
    """
    folder = run_dir / "tokenizer"
    if (folder / "joint").exists():
        joint = load_tokenizer(folder / "joint")
        return Tokenizers(joint, joint)
    return Tokenizers(load_tokenizer(folder / "source"), load_tokenizer(folder / "target"))


def load_pretrained_vectors(model: Seq2Seq, tokenizers: Tokenizers, config: ExperimentConfig, report: Report) -> None:
    """Fills embeddings from `model.source_vectors` and `model.target_vectors`, and reports the share covered.

    Raises:
        UserError: a file cannot be read or has another width.
    """
    sides = (
        ("source", config.model.source_vectors, model.source_embedding, tokenizers.source),
        ("target", config.model.target_vectors, model.target_embedding, tokenizers.target),
    )
    for side, path, embedding, tokenizer in sides:
        if path:
            path = os.path.join(config.data.data_dir, path)
            pieces = [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]
            pieces[:NUM_SPECIALS] = [""] * NUM_SPECIALS  # the file's, if it has them, are of another corpus
            place = corpora.kept(path, config.data.cache_dir)
            vectors, found, coverage = load_vectors(place, pieces, embedding.d_embedding)
            embedding.load(vectors, found)
            report(f"{side} vectors: {path} covers {coverage}")


def own_tokenizers(data: DataConfig) -> Tokenizers:
    """The user's SentencePiece models.

    Raises:
        UserError: one cannot be read, or is none.
    """
    paths = (data.source_tokenizer_model, data.target_tokenizer_model)
    return Tokenizers(*(SentencePieceTokenizer(_read_model(data, path)) for path in paths))


def _place_of_model(data: DataConfig, path: str) -> str:
    """Under `data_dir`, or where it is by itself."""
    place = os.path.join(data.data_dir, path)
    return place if os.path.exists(place) else path


def sample_tokenizers(data: DataConfig, corpus: ParallelCorpus) -> Tokenizers:
    """Tokenizers as `data` asks for them, the user's or trained on some of a corpus, to count ids with.

    Vocabularies that the text cannot fill become smaller.
    """
    if data.source_tokenizer_model:
        return own_tokenizers(data)
    data = dataclasses.replace(data, tokenizer_lines=min(data.tokenizer_lines, _SAMPLED_LINES))
    while True:
        try:
            made = _train_tokenizers(data, corpus, lambda line: None)
            break
        except UserError:
            if max(data.source_vocab_size, data.target_vocab_size) < 64:
                data = dataclasses.replace(data, tokenizer="byte")
            halves = {f"{side}_vocab_size": getattr(data, f"{side}_vocab_size") // 2 for side in ("source", "target")}
            data = dataclasses.replace(data, **halves)
    return Tokenizers(made.get("joint") or made["source"], made.get("joint") or made["target"])


def lengths_of(corpus: ParallelCorpus, tokenizers: Tokenizers) -> dict[str, Any]:
    """Percentiles of the lengths of a corpus, and what they suggest: see `doctor.lengths_report`."""
    texts = corpus.fetch(doctor.sample_of(len(corpus)))
    lengths = [
        np.array([len(ids) + 1 for ids in map(tokenizer.encode, lines)]) for tokenizer, lines in zip(tokenizers, texts)
    ]
    return doctor.lengths_report(lengths[0], lengths[1], len(corpus))


def sampled_length_factor(tokenizers: Tokenizers, corpus: ParallelCorpus, alpha: float) -> float:
    """How much longer sampled segmentations are than best ones, on 10,000 pairs; 1 where nothing is sampled."""
    if not alpha:
        return 1.0
    texts = corpus.fetch(np.arange(min(len(corpus), _SAMPLED_LINES)))
    sampled = best = 0
    for tokenizer, lines in zip(tokenizers, texts):
        if tokenizer.samples:
            sampled += sum(len(ids) for ids in tokenizer.sample(lines, alpha, seed=1))
            best += sum(len(tokenizer.encode(line)) for line in lines)
    return sampled / max(best, 1)


def _train_tokenizers(data: DataConfig, corpus: ParallelCorpus, report: Report) -> dict[str, Tokenizer]:
    sides = {"source": [corpus.sources], "target": [corpus.targets]}
    if data.joint_vocabulary:
        sides = {"joint": [corpus.sources, corpus.targets]}
    made = {}
    for name, texts in sides.items():
        size = data.target_vocab_size if name == "target" else data.source_vocab_size
        made[name] = train_tokenizer(
            data.tokenizer,
            _Lines(list(itertools.chain(*texts)), data.tokenizer_lines * len(texts)),
            size,
            may_shrink=size == DataConfig.source_vocab_size,
            report=report,
            character_coverage=data.character_coverage,
            byte_fallback=data.byte_fallback,
            normalization=data.normalization,
        )
        report(f"tokenizer: {name} {data.tokenizer} with {made[name].vocab_size:,} ids")
    return made


class _Lines:
    """Every k-th line of each text, so that about `limit` come at most."""

    def __init__(self, texts: Sequence[TextFile], limit: int):
        self._texts = texts
        self._stride = math.ceil(sum(len(text) for text in texts) / limit)

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for start in range(0, len(text), 10_000 * self._stride):
                yield from text.lines(range(start, min(start + 10_000 * self._stride, len(text)), self._stride))


def _read_model(data: DataConfig, path: str) -> bytes:
    path = corpora.kept(_place_of_model(data, path), data.cache_dir)
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the SentencePiece model {path}: {error.strerror}; check the path") from error

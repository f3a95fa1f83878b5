"""Opens a trained model."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import DataConfig, ExperimentConfig
from nmt_keras.config.fields import REFUSED, fields_of
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.inference.exact import ExactTranslator
from nmt_keras.inference.minimum_bayes_risk import MBROptions, MinimumBayesRisk, require_enough, utility
from nmt_keras.inference.protection import protection_of
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.layers.recurrent import use_cudnn
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq, build_seq2seq
from nmt_keras.reports import Report, silent
from nmt_keras.runs.layout import checkpoints_of, lexicon_of, read_config
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.target_tags import TargetLanguages, tag_ids, target_languages
from nmt_keras.training.checkpoints import Checkpoints, by_path, weights_sha256
from nmt_keras.training.freezing import freeze
from nmt_keras.training.precision import configure

if TYPE_CHECKING:
    from nmt_keras.serving.client import Client


class Run(NamedTuple):
    """A trained model and all that belongs to it."""

    config: ExperimentConfig
    tokenizers: Tokenizers
    model: Seq2Seq | Ensemble
    step: int
    folder: pathlib.Path  # where it was loaded from

    @property
    def tags(self) -> list[int]:
        """The id before each source, of a model of several target languages: that of the configuration's."""
        return self.tags_of([self.config.data.target_language])

    def tags_of(self, languages: Sequence[str]) -> list[int]:
        """The tags of target languages; none of a model of one."""
        return tag_ids(self.config.data, self.tokenizers.source, languages)

    @property
    def languages(self) -> TargetLanguages | None:
        """The target languages of a model of several, the configuration's first."""
        return target_languages(self.config.data, self.tokenizers.source)

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

    @property
    def weights_sha256(self) -> list[str]:
        """The hash of the weights of each model."""
        return [weights_sha256(model) for model in getattr(self.model, "members", [self.model])]

    def translator(
        self, num_hypotheses: int = 1, sampling: Sampling | None = None, protects: bool = True
    ) -> Translator:
        """A translator with the configuration's search; if it `protects`, with what `decoding.protect` keeps, and of a
        model with placeholders with what they stand for."""
        return Translator(
            self.model,
            *self.tokenizers,
            self.config.decoding,
            num_hypotheses,
            sampling,
            self.lexicon,
            self.tags,
            protection_of(self.config) if protects else None,
        )

    def mbr_translator(self, options: MBROptions) -> MinimumBayesRisk:
        """A translator that chooses, of several translations of a text, the one that is most like the others.

        Raises:
            UserError: there is nothing to choose from, or the search cannot find so many.
        """
        require_enough(options, self.config.decoding.beam_size)
        models = self.model.members if options.each and isinstance(self.model, Ensemble) else [self.model]
        runs = [self._replace(model=model) for model in models]
        bleu = bleu_metric(self.config.data.target_language, self.config.data.bleu_tokenizer, of_sentences=True)
        translators = [run.translator(options.number, options.sampling) for run in runs]
        return MinimumBayesRisk(translators, utility(options.utility, bleu))

    def exact_translator(self, max_steps: int) -> ExactTranslator:
        """A translator that finds the most probable translation of all, within so many steps of the model a text.

        Raises:
            UserError: the model has placeholders, which stay in what it finds, or something is to be protected.
        """
        if self.config.data.placeholders:
            raise UserError(f"Exact search is of a model without placeholders, and {self.folder} has data.placeholders")
        if self.config.decoding.protect:
            raise UserError("Exact search protects nothing: give --decoding.protect='()', and no --protect")
        return ExactTranslator(self.translator(), self.model, self.config.decoding, max_steps)

    @property
    def language_pair(self) -> tuple[str, str]:
        """The codes of the languages that it translates from and, where nothing else is asked for, into."""
        return self.config.data.source_language, self.config.data.target_language

    def client(self) -> "Client":
        """A client of what an export of this run would be, in this process."""
        from nmt_keras.serving.client import Client
        from nmt_keras.serving.export import TranslationModule, signatures_of
        from nmt_keras.serving.local import LocalTransport  # brings tensorflow_text, 120 MiB

        def make() -> tuple[Any, Any]:
            for tokenizer in self.tokenizers:
                tokenizer.renew()
            module = TranslationModule(
                self.model,
                *self.tokenizers,
                self.config.decoding,
                lexicon=self.lexicon,
                languages=self.languages,
                placeholders=self.config.data.placeholders,
                annotates_terms=self.config.data.annotated_terms,
                language_pair=self.language_pair,
            )
            return signatures_of(module), module

        return Client(str(self.folder), transport=LocalTransport(*make(), make), concurrency=1)


def load(
    run_dirs: pathlib.Path | Sequence[pathlib.Path],
    overrides: Mapping[str, Any] = MappingProxyType({}),
    checkpoint: str | int = "best",
    *,
    report: Report = silent,
    check: Callable[[ExperimentConfig], None] = lambda config: None,
    portable: bool = False,
) -> Run:
    """Loads a trained model as it will be used, and sets the process to its precision.

    Args:
        run_dirs: of a training job; several with the same tokenizers are an ensemble, and what is not the model is of
            the first.
        overrides: values by the paths of fields, such as `{"decoding.beam_size": 3}`, in the place of the recipe's.
        checkpoint: `best`, `latest`, a step, `averaged`, the mean of the latest `training.keep_checkpoints`, or `ema`,
            the moving average that `training.ema_decay` keeps, as it is in the latest.
        report: takes a line for the user.
        check: may refuse the configuration before anything is loaded.
        portable: whether what is traced will run on other machines too, so that it may not need this one's GPU.

    Raises:
        UserError: a directory is not a run's, or has no such checkpoint; the configuration is not valid, or asks for a
            lexicon that is not there; a pattern of `decoding.protect` is none; the tokenizers of several runs differ.
    """
    folders = [run_dirs] if isinstance(run_dirs, pathlib.Path) else list(run_dirs)
    configs = [config_of(folder, overrides) for folder in folders]
    config = configs[0]
    check(config)
    protection_of(config)  # raises if a pattern is none
    if config.decoding.shortlist:
        Lexicon.read(lexicon_of(folders[0]))
    configure(config.training)
    runs = [_load(folder, own, checkpoint, report) for folder, own in zip(folders, configs)]
    hashes = [[tokenizer.sha256 for tokenizer in run.tokenizers] for run in runs]
    for folder, own in zip(folders, hashes):
        if own != hashes[0]:
            raise UserError(
                f"{folder} has other tokenizers than {folders[0]}, and an ensemble needs the same ones: train on the "
                "same text with the same options of data, and another training.seed"
            )
    known = [set(own.data.target_languages) for own in configs]
    for folder, languages in zip(folders, known):
        if languages != known[0]:
            both = [", ".join(sorted(each)) or "one alone" for each in (languages, known[0])]
            raise UserError(
                f"{folder} has the target languages {both[0]}, and {folders[0]} {both[1]}: the members of an ensemble "
                "need the same, give other runs"
            )
    if config.data.target_languages:
        report(f"target language: {config.data.target_language}, of {', '.join(config.data.target_languages)}")
    members = [run.model for run in runs if isinstance(run.model, Seq2Seq)]
    for member in members:
        use_cudnn(member, not portable and bool(tf.config.list_physical_devices("GPU")))
    return runs[0]._replace(model=members[0] if len(members) == 1 else Ensemble(members))


def config_of(run_dir: pathlib.Path, overrides: Mapping[str, Any] = MappingProxyType({})) -> ExperimentConfig:
    """The configuration of a run with values in the place of its own, as for `load`.

    Raises:
        UserError: the directory is not a run's, or a value is not valid; there is no such field, or another value of it
            would be another model.
    """
    config = read_config(run_dir)
    fields = {field.path: field for field in fields_of(ExperimentConfig)}
    for path, value in overrides.items():
        if path not in fields:
            raise UserError(f"There is no field {path!r}: give its path, such as decoding.beam_size")
        if path == "data.target_language":
            _require_language(run_dir, config.data, value)
        elif fields[path].section == "model" or fields[path].spec.resume == REFUSED:
            raise UserError(f"{path} is part of the model that {run_dir} has trained: it cannot be another one here")
        setattr(getattr(config, fields[path].section), fields[path].name, value)
    config.validate()
    return config


def _require_language(run_dir: pathlib.Path, data: DataConfig, language: str) -> None:
    """Checks that a run translates into a language."""
    known = data.target_languages or (data.target_language,)
    if language not in known:
        raise UserError(
            f"{run_dir} does not translate into {language!r}, it translates into {', '.join(known)}: give "
            f"{'one of them' if len(known) > 1 else 'that, or another run'}"
        )


def _load(run_dir: pathlib.Path, config: ExperimentConfig, checkpoint: str | int, report: Report) -> Run:
    """One run, as its configuration says."""
    tokenizers = load_tokenizers(run_dir)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    checkpoint = str(checkpoint)
    if checkpoint not in ("best", "latest", "averaged", "ema") and not checkpoint.isdecimal():
        raise UserError(f"There is no checkpoint {checkpoint!r}; give best, latest, averaged, ema or a step")
    if checkpoint == "ema" and not config.training.ema_decay:
        raise UserError(
            f"{run_dir} keeps no moving average of its weights, which checkpoint ema asks for: train with "
            "training.ema_decay=0.999, or take the checkpoint averaged"
        )
    checkpoints, variables = Checkpoints(checkpoints_of(run_dir), report=report), by_path(model.variables)
    if checkpoint == "averaged":
        steps = checkpoints.restore_average(variables, "model", config.training.keep_checkpoints)
        report(f"checkpoint: averaged, steps {', '.join(map(str, steps))} of {run_dir}")
        return Run(config, tokenizers, model, steps[-1], run_dir)
    objects = {"model": variables}
    if checkpoint == "ema":
        freeze(model, config.training.freeze)  # of what stayed as it was there is no average
        averaged = by_path(model.trainable_variables)
        objects = {"ema": averaged, "model": {path: variables[path] for path in variables.keys() - averaged.keys()}}
    which = "latest" if checkpoint == "ema" else checkpoint
    manifest = checkpoints.restore(tf.train.Checkpoint(**objects), which, partial=True)
    if manifest is None or not manifest["step"]:
        raise UserError(f"{run_dir} has no checkpoint of a trained model yet; train it first")
    report(f"checkpoint: {checkpoint}, step {manifest['step']:,} of {run_dir}")
    return Run(config, tokenizers, model, manifest["step"], run_dir)

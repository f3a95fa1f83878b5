"""What may differ between the configuration of a run and one that it goes on with."""

import dataclasses
import pathlib

from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError

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


def keep_what_was_decided(before: ExperimentConfig, config: ExperimentConfig) -> None:
    """Gives a configuration the budget that was found before, and the defaults that there were then."""
    config.training.batch_tokens = config.training.batch_tokens or before.training.batch_tokens
    for field in _MOVED_DEFAULTS:
        section, name = field.split(".")
        if getattr(getattr(config, section), name) == getattr(getattr(ExperimentConfig(), section), name):
            setattr(getattr(config, section), name, getattr(getattr(before, section), name))


def require_allowed(
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

"""The copy task of the tests: a recipe whose text is made by `copy_text` in conftest.py."""

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig


def get_config() -> ExperimentConfig:
    """The experiment."""
    return ExperimentConfig(
        DataConfig(
            source_language="xx",
            target_language="yy",
            train_source=("train.src",),
            train_target=("train.tgt",),
            dev_source=("dev.src",),
            dev_target=("dev.tgt",),
            tokenizer="char",
            max_source_length=32,
            max_target_length=32,
            on_findings="report",  # a copy task is nothing but untranslated lines
        ),
        ModelConfig(d_model=48, input_dropout_rate=0.0, output_dropout_rate=0.0),
        TrainingConfig(
            max_steps=250,
            batch_tokens=1024,
            learning_rate=1e-2,
            schedule="constant",
            label_smoothing=0.0,
            ema_decay=0.9,
            log_every=50,
            evaluate_every=250,
            checkpoint_every=125,
        ),
        DecodingConfig(beam_size=2, max_source_length=32, terms_beam_size=0),
    )

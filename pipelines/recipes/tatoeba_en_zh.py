"""Tatoeba, English to Chinese: a recurrent model with attention on 26,000 sentences (CC-BY 2.0 FR, tatoeba.org).

Give the folder of {train,val}.{en,zh}.gz as --data_dir. Layer-normalised cells take the high learning rate, which plain
ones, and so the presets, do not (benchmarks/NOTES.md).
"""

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.models.presets import apply_preset


def get_config(preset: str = "") -> ExperimentConfig:
    """The experiment; or that of a network of `nmt_keras/models/presets.py`, if one is named."""
    config = ExperimentConfig(
        DataConfig(
            source_language="en",
            target_language="zh",
            train_source=("train.en.gz",),
            train_target=("train.zh.gz",),
            dev_source=("val.en.gz",),
            dev_target=("val.zh.gz",),
            tokenizer="unigram",
            joint_vocabulary=False,
            source_vocab_size=4000,
            target_vocab_size=4000,
            character_coverage=0.9995,
            max_source_length=64,
            max_target_length=64,
        ),
        ModelConfig(
            attention="luong_general",
            d_model=512,
            num_encoder_layers=1,
            num_decoder_layers=1,
            cell="lstm",
            input_dropout_rate=0.3,
            output_dropout_rate=0.4,
            tie_output=True,
        ),
        TrainingConfig(
            max_steps=3000,
            batch_tokens=1536,
            learning_rate=2e-3,
            schedule="cosine",
            warmup_steps=200,
            precision="auto",
            log_every=50,
            evaluate_every=250,
            checkpoint_every=250,
        ),
        DecodingConfig(beam_size=5, length_penalty=1.0, max_length=100),
    )
    if preset:
        return apply_preset(config, preset)
    model, training = config.model, config.training
    model.cell = "normed_lstm"
    model.state_dropout_rate = model.source_word_dropout_rate = model.target_word_dropout_rate = 0.1
    training.max_steps = 7000
    training.batch_tokens = 2048
    training.learning_rate = 3e-3
    training.ema_decay = 0.999
    training.evaluate_every = 500
    return config

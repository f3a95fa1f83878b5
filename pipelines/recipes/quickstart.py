"""The embedded English-Chinese corpus of `python -m pipelines.quickstart`, at a size that a laptop learns in minutes.

The quickstart writes the text to <run_dir>_corpus; give that folder as --data_dir to train on it again.
"""

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig


def get_config() -> ExperimentConfig:
    """The experiment."""
    return ExperimentConfig(
        DataConfig(
            source_language="en",
            target_language="zh",
            train_source=("train.en",),
            train_target=("train.zh",),
            dev_source=("dev.en",),
            dev_target=("dev.zh",),
            tokenizer="unigram",
            tokenizer_lines=15_000,
            joint_vocabulary=False,
            source_vocab_size=1300,
            target_vocab_size=1500,
            character_coverage=1.0,
            byte_fallback=False,
            max_source_length=48,
            max_target_length=48,
        ),
        ModelConfig(
            attention="luong_scaled",
            d_model=256,
            num_encoder_layers=1,
            num_decoder_layers=1,
            cell="lstm",
            input_dropout_rate=0.0,
            output_dropout_rate=0.0,
        ),
        TrainingConfig(
            max_steps=900,
            batch_tokens=1536,
            learning_rate=3e-3,
            schedule="cosine",
            warmup_steps=100,
            label_smoothing=0.0,
            precision="auto",
            log_every=50,
            evaluate_every=300,
            checkpoint_every=300,
        ),
        DecodingConfig(beam_size=4, length_penalty=0.6, max_length=60),
    )

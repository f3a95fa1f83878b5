"""Multi30k, English to German (Elliott et al. 2016): a recurrent model with attention on 29,000 captions.

The files are those of the multi30k/dataset repository, raw and gzipped; give their folder as --data_dir.
"""

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.models.presets import apply_preset


def get_config(preset: str = "") -> ExperimentConfig:
    """The experiment, with a network of `nmt_keras/models/presets.py` if one is named."""
    config = ExperimentConfig(
        DataConfig(
            source_language="en",
            target_language="de",
            train_source=("train.en.gz",),
            train_target=("train.de.gz",),
            dev_source=("val.en.gz",),
            dev_target=("val.de.gz",),
            tokenizer="unigram",
            joint_vocabulary=True,
            source_vocab_size=6000,
            max_source_length=64,
            max_target_length=64,
        ),
        ModelConfig(
            attention="luong_general",
            d_model=512,
            num_encoder_layers=1,
            num_decoder_layers=1,
            cell="lstm",
            input_dropout_rate=0.2,
            output_dropout_rate=0.3,
            share_embeddings=True,
            tie_output=True,
        ),
        TrainingConfig(
            max_steps=8700,
            batch_tokens=1536,
            learning_rate=1.5e-3,
            schedule="cosine",
            warmup_steps=300,
            label_smoothing=0.1,
            precision="auto",
            log_every=50,
            evaluate_every=725,
            checkpoint_every=250,
        ),
        DecodingConfig(beam_size=5, length_penalty=1.0),
    )
    return apply_preset(config, preset)

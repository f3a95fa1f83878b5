"""Multi30k, English to German, French or Czech (Elliott et al. 2016 to 2018): a small Transformer on 29,000 captions.

--config=pipelines/recipes/multi30k_transformer.py:fr takes French, :all one model of all three; without an argument it
is German. French has a wider network and fewer updates. The files are those of the multi30k/dataset repository, raw and
gzipped; give their folder as --data_dir. Translate with --checkpoint=ema, French with --checkpoint=latest.
"""

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.errors import UserError

_LANGUAGES = ("de", "fr", "cs")


def get_config(language: str = "de") -> ExperimentConfig:
    """The experiment, for a target language, or for all."""
    if language not in (*_LANGUAGES, "all"):
        raise UserError(f"The recipe's argument must be one of {', '.join(_LANGUAGES)}, all. Received: {language!r}")
    several, is_wide = language == "all", language == "fr"
    languages = _LANGUAGES if several else (language,)
    return ExperimentConfig(
        DataConfig(
            source_language="en",
            target_language=languages[0],
            train_source=("train.en.gz",) * len(languages),
            train_target=tuple(f"train.{each}.gz" for each in languages),
            train_languages=languages if several else (),
            dev_source=("val.en.gz",) * len(languages),
            dev_target=tuple(f"val.{each}.gz" for each in languages),
            tokenizer="unigram",
            joint_vocabulary=True,
            source_vocab_size=10_000 if several else 6000,
            max_source_length=64,
            max_target_length=64,
        ),
        ModelConfig(
            encoder="transformer",
            decoder="transformer",
            d_model=192 if is_wide else 128,
            d_ff=512 if is_wide else 256,
            num_heads=4,
            num_encoder_layers=3 if is_wide else 4,
            num_decoder_layers=3 if is_wide else 4,
            input_dropout_rate=0.2,
            output_dropout_rate=0.2,
            attention_dropout_rate=0.2,
            share_embeddings=True,
            tie_output=True,
        ),
        TrainingConfig(
            max_steps=18_000 if several else 5500 if is_wide else 7500,
            batch_tokens=4096,
            adam_beta2=0.98,
            adam_epsilon=1e-9,
            learning_rate=4e-3,
            schedule="cosine",
            warmup_steps=1000,
            clip_norm=0.0,
            label_smoothing=0.1,
            ema_decay=0.999,
            precision="auto",
            log_every=50,
            evaluate_every=1000,
            checkpoint_every=500,
            keep_checkpoints=5,
        ),
        DecodingConfig(beam_size=5, length_penalty=1.0),
    )

"""Multi30k, English to German, in minutes: the recipe of `make speedrun`, small and with a short schedule.

Give the folder of {train,val}.{en,de}.gz as --data_dir.
"""

from nmt_keras.config import ExperimentConfig
from pipelines.recipes import multi30k_transformer


def get_config() -> ExperimentConfig:
    """The experiment."""
    config = multi30k_transformer.get_config()
    model, training = config.model, config.training
    model.d_model, model.d_ff = 192, 512
    model.num_encoder_layers = model.num_decoder_layers = 2
    model.input_dropout_rate = model.output_dropout_rate = 0.15
    model.attention_dropout_rate = 0.1
    training.max_steps, training.warmup_steps = 2000, 200
    training.batch_tokens = 2048
    training.ema_decay = 0.0
    training.evaluate_every = training.checkpoint_every = 500
    return config

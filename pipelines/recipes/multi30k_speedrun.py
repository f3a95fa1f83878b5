"""Multi30k, English to German, in minutes: the recipe of `make speedrun`, small and with a short schedule.

--config=pipelines/recipes/multi30k_speedrun.py:fr takes French, :cs Czech, :all one deeper model of all with three
times the updates. Give the folder of {train,val}.{en,de,fr,cs}.gz as --data_dir.
"""

from nmt_keras.config import ExperimentConfig
from pipelines.recipes import multi30k_transformer


def get_config(language: str = "de") -> ExperimentConfig:
    """The experiment, for a target language, or for all."""
    config = multi30k_transformer.get_config(language)
    model, training = config.model, config.training
    model.d_model, model.d_ff = 192, 512
    model.num_encoder_layers = model.num_decoder_layers = 2
    if language == "all":
        model.d_ff, model.num_encoder_layers, model.num_decoder_layers = 1024, 3, 3
        training.learning_rate = 3e-3
    model.input_dropout_rate = model.output_dropout_rate = 0.15
    model.attention_dropout_rate = 0.1
    training.max_steps, training.warmup_steps = 6000 if language == "all" else 2000, 200
    training.batch_tokens = 2048
    training.ema_decay = 0.0
    training.evaluate_every = training.checkpoint_every = 500
    return config

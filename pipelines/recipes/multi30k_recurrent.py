"""Multi30k, English to German: a recurrent model with attention that knows little text well, by dropout everywhere.

The files are those of the multi30k/dataset repository, raw and gzipped; give their folder as --data_dir.
Layer-normalised cells take the high learning rate, which plain ones do not (benchmarks/NOTES.md).
"""

from nmt_keras.config import ExperimentConfig
from pipelines.recipes import multi30k_en_de


def get_config() -> ExperimentConfig:
    """The experiment."""
    config = multi30k_en_de.get_config()
    model, training = config.model, config.training
    model.cell = "normed_lstm"
    model.input_dropout_rate, model.output_dropout_rate = 0.3, 0.4
    model.state_dropout_rate = 0.1
    model.source_word_dropout_rate = model.target_word_dropout_rate = 0.1
    training.max_steps = 9000
    training.batch_tokens = 2048
    training.learning_rate = 3e-3
    training.ema_decay = 0.999
    training.evaluate_every = 500
    return config

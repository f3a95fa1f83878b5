"""Networks of the literature by name, with the hyperparameters of their papers.

A recipe takes one as its argument, `--config=pipelines/recipes/multi30k_en_de.py:gnmt`, and calls `apply_preset`;
overrides of the command line win over it. The comment above a preset says what its paper has and this toolkit
lacks. This module imports no TensorFlow.
"""

import dataclasses

from nmt_keras.config import ExperimentConfig, ModelConfig
from nmt_keras.errors import UserError

_TRANSFORMER = {
    "encoder": "transformer",
    "decoder": "transformer",
    "num_encoder_layers": 6,
    "num_decoder_layers": 6,
    "pre_norm": False,
    "positions": "sinusoidal",
    "share_embeddings": True,
    "tie_output": True,
}
# Vaswani et al. 2017, 5.3: Adam with beta_2 0.98 and epsilon 1e-9, inverse square root of the step, 4,000 steps of
# warm-up, no clipping; the peak is d_model^-0.5 * warmup^-0.5.
_TRANSFORMER_TRAINING = {
    "optimizer": "adam",
    "schedule": "inverse_sqrt",
    "warmup_steps": 4000,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-9,
    "label_smoothing": 0.1,
    "clip_norm": 0.0,
}

PRESETS: dict[str, tuple[dict, dict]] = {
    # Luong et al. 2015, 4.1: 4 layers of 1,000 cells, dropout 0.2, input feeding, SGD from 1.0 for 12 epochs, halved
    # after each from the eighth on, clipping at 5. Theirs takes the gradient of a sentence's sum, ours of a token's
    # mean: with 25 tokens a sentence, 1.0 and 5 would be 25 and 0.2 here, which nobody has tried.
    "rnn_luong": (
        {
            "encoder": "rnn",
            "decoder": "rnn",
            "attention": "luong_general",
            "cell": "lstm",
            "d_model": 1000,
            "num_encoder_layers": 4,
            "num_decoder_layers": 4,
            "bidirectional": False,
            "input_feeding": True,
            "bridge": "copy",
            "input_dropout_rate": 0.2,
            "output_dropout_rate": 0.2,
        },
        {
            "optimizer": "sgd",
            "learning_rate": 1.0,
            "schedule": "luong_halving",
            "clip_norm": 5.0,
            "label_smoothing": 0.0,
        },
    ),
    # Bahdanau et al. 2015, A.2 and B: bidirectional GRU, decoder of 1,000 units, embeddings of 620, alignment read
    # before the step. Theirs has 1,000 units each way where ours has 500, a maxout layer before the softmax, and
    # Adadelta; its reset gate comes before the product, ours after it, as in cuDNN.
    "rnn_bahdanau": (
        {
            "encoder": "rnn",
            "decoder": "rnn",
            "attention": "bahdanau",
            "cell": "gru",
            "d_model": 1000,
            "d_embedding": 620,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "input_feeding": True,
            "input_dropout_rate": 0.0,
            "output_dropout_rate": 0.0,
        },
        {"optimizer": "adam", "learning_rate": 1e-3, "schedule": "constant", "clip_norm": 1.0, "label_smoothing": 0.0},
    ),
    # Wu et al. 2016, 3 and 8.3: 8 layers each, 1,024 wide, dropout 0.2, Adam at 2e-4 and then SGD, clipping at 5. Its
    # bidirectional layer has 1,024 units each way, ours 512.
    "gnmt": (
        {
            "encoder": "gnmt",
            "decoder": "gnmt",
            "attention": "bahdanau_normed",
            "cell": "lstm",
            "d_model": 1024,
            "num_encoder_layers": 8,
            "num_decoder_layers": 8,
            "input_feeding": True,
            "input_dropout_rate": 0.2,
            "output_dropout_rate": 0.2,
        },
        {"optimizer": "adam", "learning_rate": 2e-4, "schedule": "constant", "clip_norm": 5.0, "label_smoothing": 0.0},
    ),
    # Chen et al. 2018, 4.1 and A: 6 bidirectional and 8 unidirectional layers of layer-normalised LSTM, 1,024 wide,
    # residuals from the third on, 4 heads whose context every decoder layer and the softmax read, dropout 0.3 (En-De),
    # label smoothing 0.1. Theirs has 1,024 units each way and a projection of both where ours has 512, normalises each
    # gate alone, decays weights by 1e-5, and decays the rate exponentially after a plateau.
    "rnmt_plus": (
        {
            "encoder": "rnn",
            "decoder": "rnmt_plus",
            "attention": "multi_head",
            "num_heads": 4,
            "cell": "normed_lstm",
            "d_model": 1024,
            "num_encoder_layers": 6,
            "num_decoder_layers": 8,
            "residual": True,
            "first_residual_layer": 3,
            "input_feeding": True,
            "input_dropout_rate": 0.3,
            "output_dropout_rate": 0.3,
        },
        {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "schedule": "inverse_sqrt",
            "warmup_steps": 500,
            "label_smoothing": 0.1,
        },
    ),
    # Gehring et al. 2017, 4.1 and 5.1, English-Romanian: 20 layers each, kernels of 3, 512 wide, dropout 0.2. Theirs
    # trains with Nesterov momentum at 0.25 and clips at 0.1.
    "conv_s2s": (
        {
            "encoder": "conv",
            "decoder": "conv",
            "d_model": 512,
            "num_encoder_layers": 20,
            "num_decoder_layers": 20,
            "kernel_size": 3,
            "positions": "learned",
            "input_dropout_rate": 0.2,
            "output_dropout_rate": 0.2,
        },
        {
            "optimizer": "adam",
            "learning_rate": 5e-4,
            "schedule": "inverse_sqrt",
            "warmup_steps": 400,
            "clip_norm": 0.1,
            "label_smoothing": 0.0,
        },
    ),
    # Of no paper: tensor2tensor's `transformer_tiny`, with pre-norm and dropout for small corpora.
    "transformer_tiny": (
        {
            **_TRANSFORMER,
            "d_model": 128,
            "num_heads": 4,
            "d_ff": 512,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "pre_norm": True,
            "input_dropout_rate": 0.1,
            "output_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1,
        },
        {**_TRANSFORMER_TRAINING, "learning_rate": 2e-3, "warmup_steps": 1000},
    ),
    # Vaswani et al. 2017, table 3.
    "transformer_base": (
        {
            **_TRANSFORMER,
            "d_model": 512,
            "num_heads": 8,
            "d_ff": 2048,
            "input_dropout_rate": 0.1,
            "output_dropout_rate": 0.1,
        },
        {**_TRANSFORMER_TRAINING, "learning_rate": 7e-4},
    ),
    "transformer_big": (
        {
            **_TRANSFORMER,
            "d_model": 1024,
            "num_heads": 16,
            "d_ff": 4096,
            "input_dropout_rate": 0.3,
            "output_dropout_rate": 0.3,
        },
        {**_TRANSFORMER_TRAINING, "learning_rate": 5e-4},
    ),
    # Kim et al. 2019, 3: a Transformer encoder of 6 layers and a decoder of 2 with SSRU, the sizes of the base model.
    "transformer_ssru": (
        {
            **_TRANSFORMER,
            "decoder": "ssru",
            "num_decoder_layers": 2,
            "d_model": 512,
            "num_heads": 8,
            "d_ff": 2048,
            "input_dropout_rate": 0.1,
            "output_dropout_rate": 0.1,
        },
        {**_TRANSFORMER_TRAINING, "learning_rate": 7e-4},
    ),
}


def apply_preset(config: ExperimentConfig, name: str) -> ExperimentConfig:
    """Replaces the network, and what its training needs, by those of a preset.

    Args:
        config: a recipe's. Its vocabulary decides whether embeddings can be shared, its number of steps how long a
            warm-up can be (a quarter).
        name: a key of `PRESETS`; "" leaves all as it is.

    Raises:
        UserError: there is no such preset.
    """
    if not name:
        return config
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}; valid ones: {', '.join(PRESETS)}")
    network, training = PRESETS[name]
    model = ModelConfig(**network)
    if not config.data.joint_vocabulary:
        model.share_embeddings = False
    result = dataclasses.replace(config, model=model, training=dataclasses.replace(config.training, **training))
    result.training.warmup_steps = min(result.training.warmup_steps, result.training.max_steps // 4)
    return result

"""The section `model` of an experiment."""

from dataclasses import dataclass

from nmt_keras.config.fields import ALLOWED, spec


@dataclass
class ModelConfig:
    """The network. `d_model` is the width of embeddings and states alike."""

    encoder: str = spec("rnn", "the encoder", choices=("rnn", "gnmt", "conv", "transformer"))
    decoder: str = spec(
        "rnn", "the decoder", choices=("rnn", "gnmt", "rnmt_plus", "conditional_gru", "conv", "transformer", "ssru")
    )
    attention: str = spec(
        "luong_general",
        "attention of recurrent decoders",
        choices=(
            "none",
            "bahdanau",
            "bahdanau_normed",
            "luong_dot",
            "luong_general",
            "luong_scaled",
            "local_m",
            "local_p",
            "location",
            "coverage",
            "monotonic",
            "monotonic_hard",
            "multi_head",
        ),
    )
    d_model: int = spec(512, "width of embeddings and states", positive=True)
    num_encoder_layers: int = spec(1, "layers of the encoder", positive=True)
    num_decoder_layers: int = spec(1, "layers of the decoder", positive=True)
    cell: str = spec("lstm", "cell of recurrent layers", choices=("lstm", "gru", "rnn", "normed_lstm"))
    bidirectional: bool = spec(True, "a recurrent encoder reads both ways")
    residual: bool = spec(False, "residual connections around recurrent layers")
    first_residual_layer: int = spec(1, "the first layer, counted from 1, that has one", positive=True)
    input_feeding: bool = spec(False, "a recurrent decoder reads what attention read before (Luong et al. 2015)")
    bridge: str = spec(
        "dense",
        "a recurrent decoder's first state: a learned bridge, the encoder's last states, or zeros",
        choices=("dense", "copy", "zeros"),
    )
    num_heads: int = spec(8, "heads of multi-head attention", positive=True)
    d_ff: int = spec(2048, "inner width of the feed-forward layers of Transformers", positive=True)
    activation: str = spec("relu", "of the feed-forward layers", choices=("relu", "gelu", "swiglu"))
    pre_norm: bool = spec(True, "Transformers normalise before each sublayer, not after it")
    attention_dropout_rate: float = spec(
        0.0, "on attention weights and inside the feed-forward layers", rate=True, resume=ALLOWED
    )
    positions: str = spec(
        "sinusoidal",
        "positions of Transformers and convolutions",
        choices=("sinusoidal", "learned", "rotary", "relative", "none"),
    )
    max_positions: int = spec(
        0,
        "number of learned positions; those beyond share the last one's vector; 0 is the longest of training",
        not_negative=True,
    )
    kernel_size: int = spec(3, "width of convolutions", positive=True)
    input_dropout_rate: float = spec(0.1, "on embeddings", rate=True, resume=ALLOWED)
    state_dropout_rate: float = spec(
        0.0, "on h_{t-1}, one mask a sentence (Gal and Ghahramani 2016)", rate=True, resume=ALLOWED
    )
    output_dropout_rate: float = spec(
        0.1, "on what a recurrent layer or the attention hands up", rate=True, resume=ALLOWED
    )
    source_word_dropout_rate: float = spec(
        0.0, "on whole source ids, whose vectors become 0 (Sennrich and Zhang 2019)", rate=True, resume=ALLOWED
    )
    target_word_dropout_rate: float = spec(0.0, "the same of what the decoder reads", rate=True, resume=ALLOWED)
    share_embeddings: bool = spec(False, "one table for source and target; needs a joint vocabulary")
    tie_output: bool = spec(False, "one table for target embeddings and softmax (Press and Wolf 2017)")
    d_embedding: int = spec(
        0, "width of the embedding tables, which are then mapped to d_model; 0 is d_model", not_negative=True
    )
    source_vectors: str = spec(
        "", "a word2vec, GloVe or fastText text file that the table starts from; of both sides if shared"
    )
    target_vectors: str = spec("", "the same of the target")
    freeze_vectors: bool = spec(False, "keep the vectors of the file as they are; rows that it lacks are trained")

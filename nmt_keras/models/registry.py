"""The components by name. To add one: write the class, add its line here; the contract tests pick it up."""

from nmt_keras.layers import attention, multihead_attention, stateful_attention, windowed_attention
from nmt_keras.models import convolutional, decoders, encoders, transformer

ENCODERS = {
    "rnn": encoders.RNNEncoder,
    "gnmt": encoders.GNMTEncoder,
    "conv": convolutional.ConvEncoder,
    "transformer": transformer.TransformerEncoder,
}

DECODERS = {
    "rnn": decoders.RNNDecoder,
    "gnmt": decoders.GNMTDecoder,
    "rnmt_plus": decoders.RNMTPlusDecoder,
    "conditional_gru": decoders.ConditionalGRUDecoder,
    "conv": convolutional.ConvDecoder,
    "transformer": transformer.TransformerDecoder,
    "ssru": transformer.SSRUDecoder,
}

ATTENTIONS = {
    "none": attention.NoAttention,
    "bahdanau": attention.BahdanauAttention,
    "bahdanau_normed": attention.NormedBahdanauAttention,
    "luong_dot": attention.LuongDotAttention,
    "luong_general": attention.LuongGeneralAttention,
    "luong_scaled": attention.LuongScaledAttention,
    "local_m": windowed_attention.LocalMonotonicAttention,
    "local_p": windowed_attention.LocalPredictiveAttention,
    "location": stateful_attention.LocationAttention,
    "coverage": stateful_attention.CoverageAttention,
    "monotonic": stateful_attention.MonotonicAttention,
    "monotonic_hard": stateful_attention.HardMonotonicAttention,
    "multi_head": multihead_attention.MultiHeadAdditiveAttention,
}

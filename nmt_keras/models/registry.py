"""The components by name. To add one: write the class, add its line here; the contract tests pick it up."""

from nmt_keras.layers import attention
from nmt_keras.models import decoders, encoders

ENCODERS = {"rnn": encoders.RNNEncoder}

DECODERS = {"rnn": decoders.RNNDecoder}

ATTENTIONS = {
    "none": attention.NoAttention,
    "bahdanau": attention.BahdanauAttention,
    "luong_dot": attention.LuongDotAttention,
    "luong_general": attention.LuongGeneralAttention,
    "luong_scaled": attention.LuongScaledAttention,
}

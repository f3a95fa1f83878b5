"""The peer's recurrent model at the shape of the comparison: BiLSTM encoder, one attentional LSTM decoder, 512 wide."""

import opennmt
import tensorflow as tf
import tensorflow_addons as tfa


def model():
    return opennmt.models.SequenceToSequence(
        source_inputter=opennmt.inputters.WordEmbedder(embedding_size=512),
        target_inputter=opennmt.inputters.WordEmbedder(embedding_size=512),
        encoder=opennmt.encoders.LSTMEncoder(
            num_layers=1,
            num_units=256,
            bidirectional=True,
            residual_connections=False,
            dropout=0.2,
            reducer=opennmt.layers.ConcatReducer(),
        ),
        decoder=opennmt.decoders.AttentionalRNNDecoder(
            num_layers=1,
            num_units=512,
            bridge_class=opennmt.layers.DenseBridge,
            attention_mechanism_class=tfa.seq2seq.LuongAttention,
            cell_class=tf.keras.layers.LSTMCell,
            dropout=0.2,
            residual_connections=False,
        ),
    )

"""The peer's Transformer at the shape of the comparison: 3+3 layers, 512 wide, 8 heads, feed-forward 2048."""

import opennmt


def model():
    return opennmt.models.Transformer(
        source_inputter=opennmt.inputters.WordEmbedder(embedding_size=512),
        target_inputter=opennmt.inputters.WordEmbedder(embedding_size=512),
        num_layers=3,
        num_units=512,
        num_heads=8,
        ffn_inner_dim=2048,
        dropout=0.1,
        attention_dropout=0.1,
        ffn_dropout=0.1,
    )

"""The loss of text that is not trained on."""

import numpy as np
import tensorflow as tf

from nmt_keras.training.dev_loss import compile_dev_loss, perplexity
from tests.cross_entropy_of import small_batch, small_model


def test_it_is_the_mean_of_a_token_over_all_batches_without_smoothing():
    model, batches = small_model(), [small_batch(), small_batch((1.0, 0.0, 2.0))]
    total = weight = 0.0
    for batch in batches:
        hidden, _ = model(batch.source_ids, batch.target_input_ids)
        log_probs = tf.nn.log_softmax(model.project(hidden)).numpy()
        for row, ids in enumerate(batch.target_output_ids.numpy()):
            own = float(batch.weights[row])
            for position, number in enumerate(ids):
                total -= own * log_probs[row, position, number] if number else 0.0
                weight += own if number else 0.0
    loss = compile_dev_loss(model)
    np.testing.assert_allclose(loss(batches), total / weight, rtol=1e-5)
    assert perplexity(2.0) == np.exp(2.0) and perplexity(1e9) == np.exp(80.0)
    wider = small_batch()._replace(source_ids=tf.pad(small_batch().source_ids, [[0, 0], [0, 3]]))
    np.testing.assert_allclose(loss([wider]), loss([small_batch()]), rtol=1e-5)

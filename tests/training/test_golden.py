"""A checkpoint that an earlier version wrote keeps loading, and means what it meant.

`tests/golden/run` was trained for three steps on the copy task of the tests: `pipelines.train` with the recipe of
`tests/pipelines`, `d_model=4`, `bidirectional=False`, `ema_decay=0.5`. A change that needs another format counts up
`checkpoints.FORMAT` and says so in CHANGELOG.md; it does not make this one anew.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.data.batching import Batch, make_batch
from nmt_keras.data.padding import rows_of
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.runs.layout import checkpoints_of, read_config
from nmt_keras.runs.loading import load
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.training.checkpoints import Checkpoints, weights_sha256
from nmt_keras.training.trainer import Trainer
from nmt_keras.training.workers import Workers
from tests.cross_entropy_of import cross_entropy_of

RUN = pathlib.Path(__file__).parents[1] / "golden" / "run"
SHA256 = "03320e64be1b50069b0010124acbdcc1de25a5671b879ef0a2c23d22e7852b75"


def test_training_goes_on_from_it():
    """Every variable is found, and none is left over."""
    config, tokenizers = read_config(RUN), load_tokenizers(RUN)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    trainer = Trainer(model, config.training, Workers(tf.distribute.get_strategy()))
    checkpoints = Checkpoints(checkpoints_of(RUN), is_chief=False)
    assert trainer.restore(checkpoints, allow_change=True)
    assert (trainer.step, trainer.restarts, trainer.best_step, trainer.owes_evaluation) == (3, 0, 3, False)
    assert trainer.best == pytest.approx(0.5551, abs=1e-4)
    assert weights_sha256(model) == SHA256
    step = trainer.train_step
    assert (step.steps.numpy(), step.skipped.numpy(), step.optimizer.iterations.numpy()) == (3, 0, 3)


@pytest.mark.parametrize("checkpoint, loss", [("best", 25.7586), ("ema", 25.8417)])
def test_it_gives_a_pair_the_loss_it_gave(checkpoint, loss):
    run = load(RUN, checkpoint=checkpoint)
    ids = rows_of([run.tokenizers.source.encode("a b c h g")])
    batch = Batch(*map(tf.constant, make_batch(ids, ids, np.ones(1, np.float32), np.zeros(1, np.int64), 16, 16)))
    assert float(cross_entropy_of(run.model, batch, None, 0.0).loss) == pytest.approx(loss, abs=1e-3)

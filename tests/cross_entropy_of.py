"""The loss of a batch as training takes it, for tests of other things."""

from nmt_keras.config import TrainingConfig
from nmt_keras.training.losses import Forward
from nmt_keras.training.losses.cross_entropy import CrossEntropy


def cross_entropy_of(model, batch, seed, smoothing):
    """`LossSums` of a batch."""
    return CrossEntropy(TrainingConfig(label_smoothing=smoothing))(Forward(model, batch), batch, seed)

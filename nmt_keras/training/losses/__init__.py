"""What training minimises: a loss a file, and its line in `LOSSES`.

A loss is made of the configuration and of the `Resources` that it needs. Called with a `Forward`, a batch and a dropout
seed it returns `LossSums`. The training step does the rest for any loss: accumulation, replicas, loss scaling, steps
that are not finite, resuming.
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.errors import UserError
from nmt_keras.training.losses.cross_entropy import CrossEntropy
from nmt_keras.training.losses.distillation import Distillation
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.guided_alignment import GuidedAlignment
from nmt_keras.training.losses.minimum_risk import MinimumRisk
from nmt_keras.training.losses.r_drop import RDrop
from nmt_keras.training.losses.resources import Resources


class Loss(Protocol):
    """What is minimised.

    Attributes:
        names: of the scalars that it reports, in a fixed order; the first, "loss", is the cross entropy of a target
            token in nats, without smoothing, so that it can be compared with the dev loss.
        name_of_minimised: the log's name for what is minimised; "" where that is "loss".
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def name_of_minimised(self) -> str: ...

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """Sums over a batch.

        A row of weight 0, and a position without a label, add nothing to them. Gradients flow only from `loss`, times
        the scale of `forward`.

        Args:
            forward: passes of the model over the batch.
            batch: B sentence pairs.
            seed: int32 [2], of dropout; None for no dropout.
        """


LOSSES: dict[str, Callable[[TrainingConfig, Resources], Loss]] = {
    "cross_entropy": CrossEntropy,
    "r_drop": RDrop,
    "distillation": Distillation,
    "minimum_risk": MinimumRisk,
    "guided_alignment": GuidedAlignment,
}


def build_loss(config: TrainingConfig, resources: Resources = Resources()) -> Loss:
    """The loss that `training.loss` names.

    Args:
        config: names it, and has its options.
        resources: what it needs beside them, once it is computed.

    Raises:
        UserError: there is none of that name.
    """
    if config.loss not in LOSSES:
        raise UserError(f"`training.loss` must be one of {', '.join(LOSSES)}. Received: {config.loss!r}")
    return LOSSES[config.loss](config, resources)

"""What some losses need beside the configuration."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq


class Resources(NamedTuple):
    """What a loss may be given; None where the training has no use for it."""

    teacher: Seq2Seq | Ensemble | None = None  # with the vocabularies of the model
    # Takes candidate translations, int32 [B, N, L], and references, int32 [B, T]; returns the candidates' errors,
    # float32 [B, N], from 0 to 1.
    errors: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

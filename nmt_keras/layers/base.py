"""The base of the project's layers."""

import keras


class Layer(keras.layers.Layer):
    """A Keras layer whose inputs and weights Keras never casts.

    Under a mixed policy Keras casts every float input of a layer and every weight it reads to the compute type. Here
    only operands of products are cast (`nmt_keras.layers.dense`), so both habits are off; `compute_dtype` still says
    which type products take.
    """

    def __init__(self, name: str | None = None):
        super().__init__(name=name, autocast=False)

    def add_weight(self, *args, **kwargs):
        """As Keras's, for a weight that is read in float32 under any policy."""
        return super().add_weight(*args, autocast=False, **kwargs)

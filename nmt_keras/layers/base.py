"""The base of the project's layers."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras

_Layer = TypeVar("_Layer", bound=keras.layers.Layer)


class Layer(keras.layers.Layer):
    """A Keras layer whose inputs and weights Keras never casts.

    Under a mixed policy Keras casts every float input of a layer and every weight it reads to the compute type. Here
    only operands of products are cast (`nmt_keras.layers.dense`), so both habits are off; `compute_dtype` still says
    which type products take.
    """

    def __init__(self, name: str | None = None):
        super().__init__(name=name, autocast=False)

    def add_weight(self, *args, **kwargs):
        """Adds a weight as Keras does, for a weight that is read in float32 under any policy."""
        return super().add_weight(*args, autocast=False, **kwargs)


def layers_of(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """A layer and those in its attributes, in lists and dicts too, each once, by the paths of the attributes."""
    return dict(_layers_in(model, model.name, set()))


def _layers_in(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _layers_in(item, f"{path}/{number}", seen)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(item, f"{path}/{key}", seen)
    elif isinstance(value, keras.layers.Layer) and id(value) not in seen:
        seen.add(id(value))
        yield path, value
        for name, item in vars(value).items():
            if not name.startswith("_"):
                yield from _layers_in(item, f"{path}/{name}", seen)


def with_weights(layer: _Layer, replace: Callable[[keras.Variable], Any]) -> _Layer:
    """A copy of a layer, and of the layers in it, that computes with other weights; the layer stays as it is.

    It is for loops whose products take a weight in another form (`nmt_keras.layers.dense`). The copy shares all else
    with the layer, Keras's own records of weights included: it is made to be called.

    Args:
        layer: built.
        replace: what stands in the place of a weight.
    """

    def replaced(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return replace(value)
        if isinstance(value, keras.layers.Layer):
            return with_weights(value, replace)
        if isinstance(value, list):
            return [replaced(each) for each in value]
        return value

    copy = object.__new__(type(layer))
    attributes = vars(layer).items()
    vars(copy).update({name: value if name.startswith("_") else replaced(value) for name, value in attributes})
    return copy

"""Which products of a model are faster in int8 than as they were, found by doing both, and the model that has them so.

What pays depends on the processor, on the number of rows and on the other precision: beside float32 nearly all do,
beside bfloat16 wide ones of many rows.
"""

import collections
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.decoding.hypotheses import repeat_state
from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dense import ProductCall
from nmt_keras.layers.int8 import Int8Kernel
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.serving.compression import StoredWeight, compress_kernels

_MARGIN = 0.95  # of the time as it was: what int8 must be below
_TURNS = 7
_POSITIONS = 16  # of a search: weights are cast once for all of them


class Choice(NamedTuple):
    """What was found of products of one shape."""

    call: ProductCall
    weights: int  # how many are multiplied so
    seconds: float  # as the product was
    int8_seconds: float

    @property
    def is_int8(self) -> bool:
        """Whether int8 is faster by a margin."""
        return self.int8_seconds < _MARGIN * self.seconds

    def record(self) -> dict[str, Any]:
        """For parity.json."""
        names = ("rows", "input_width", "output_width", "transpose_kernel", "is_gathered", "sharing")
        times = {"microseconds": self.seconds, "int8_microseconds": self.int8_seconds}
        return {
            **{name: getattr(self.call, name) for name in names},
            "weights": self.weights,
            **{name: round(1e6 * seconds, 1) for name, seconds in times.items()},
            "int8": self.is_int8,
        }


class Int8Export(NamedTuple):
    """A model some of whose products are in int8."""

    model: Seq2Seq | Ensemble
    stored: list[StoredWeight]  # what to keep of each weight
    choices: list[Choice]
    weights: int  # how many are multiplied in int8: those that are faster, of several shapes by the sum of them


def to_int8(
    model: Seq2Seq | Ensemble, source_ids: tf.Tensor, beam_size: int, shortlist_ids: tf.Tensor | None = None
) -> Int8Export:
    """Rounds a model's weights to int8, in place, and multiplies in int8 where that is faster.

    Args:
        model: built.
        source_ids: int32 [B, S], a batch as it will be asked for: B * S rows for the encoder, B * `beam_size` for the
            decoder.
        beam_size: K.
        shortlist_ids: int32 [U], what the batch is searched among; None for all target ids.
    """
    members = model.members if isinstance(model, Ensemble) else [model]
    calls = [products_of(member, source_ids, beam_size, shortlist_ids) for member in members]
    counts: dict[ProductCall, int] = {}
    for call in (call for own in calls for each in own.values() for call in set(each)):
        counts[call] = counts.get(call, 0) + 1
    with tf.device("CPU"):  # where int8 is
        choices = {call: Choice(call, count, *measured(call)) for call, count in counts.items()}
    stored, converted = [], []
    for member, own in zip(members, calls):
        transposed = {path: each[0].transpose_kernel for path, each in own.items() if _pays(each, choices)}
        kept, kernels = compress_kernels(member.variables, transposed)
        stored += kept
        converted.append(member.in_int8(kernels))
    number = sum(len(member.int8_kernels) for member in converted)
    whole = converted[0] if len(converted) == 1 else Ensemble(converted)
    return Int8Export(whole, stored, list(choices.values()), number)


def products_of(
    model: Seq2Seq, source_ids: tf.Tensor, beam_size: int, shortlist_ids: tf.Tensor | None = None
) -> dict[str, list[ProductCall]]:
    """The products of an encoding and of a step of a search, by the paths of their weights.

    Of a weight that is multiplied both ways, transposed and not, those of the first way alone. Arguments as `to_int8`.
    """
    seen: dict[str, list[tuple[tf.Tensor, ProductCall]]] = {}

    def see(path: str, x: tf.Tensor, call: ProductCall) -> None:
        calls = seen.setdefault(path, [])
        if not calls or calls[0][1].transpose_kernel == call.transpose_kernel:
            calls.append((x, call))

    watched = dense.watched(model, see)
    memory = watched.prepare(source_ids)
    state = repeat_state(watched.init_state(memory), beam_size)
    columns = None
    if shortlist_ids is not None:
        columns = watched.columns(shortlist_ids, tf.zeros([source_ids.shape[0], 1, shortlist_ids.shape[0]]))
    watched.step(tf.zeros([source_ids.shape[0], beam_size], tf.int32), tf.constant(0), state, memory, columns)
    sharing = collections.Counter(id(x) for calls in seen.values() for x, _ in calls)
    return {path: [call._replace(sharing=sharing[id(x)]) for x, call in calls] for path, calls in seen.items()}


def _pays(calls: Sequence[ProductCall], choices: Mapping[ProductCall, Choice]) -> bool:
    """Whether a weight's products, together, are faster in int8."""
    seconds, int8_seconds = (sum(getattr(choices[c], name) for c in calls) for name in ("seconds", "int8_seconds"))
    return int8_seconds < _MARGIN * seconds


def measured(call: ProductCall) -> tuple[float, float]:
    """Seconds of a product in the precision that is set, and in int8: the least of several turns of each."""
    products = [_Product(call, f"product_{number}") for number in range(call.sharing)]
    kernels: dict[str, Int8Kernel] = {}
    for product in products:
        product.build((call.rows, call.input_width))
        kernels |= compress_kernels([product.kernel], {product.kernel.path: call.transpose_kernel})[1]
    x = tf.constant(np.random.default_rng(1).normal(size=(call.rows, call.input_width)), tf.float32)
    ways = [_repeated(products, {}), _repeated(products, kernels)]

    def seconds(way: Callable[[tf.Tensor], tf.Tensor]) -> float:
        started = time.perf_counter()
        way(x).numpy()
        return (time.perf_counter() - started) / (_POSITIONS * call.sharing)

    for way in ways:  # the first run is slower
        seconds(way)
    as_it_was, in_int8 = np.min([[seconds(way) for way in ways] for _ in range(_TURNS)], 0).tolist()
    return as_it_was, in_int8


class _Product(Layer):
    """A product as a layer of a model asks for it."""

    def __init__(self, asked: ProductCall, name: str):
        super().__init__(name=name)
        self.asked = asked

    def build(self, shape: tuple[int, int]) -> None:
        widths = (shape[-1], self.asked.output_width)
        self.kernel = self.add_weight(shape=widths[::-1] if self.asked.transpose_kernel else widths, name="kernel")
        self.bias = self.add_weight(shape=widths[1:], name="bias")
        self.gathered: Any = None

    def gather(self) -> None:
        """Makes the columns of a shortlist, where it is of these."""
        if self.asked.is_gathered:
            ids, transposed = tf.range(self.asked.output_width), self.asked.transpose_kernel
            self.gathered = dense.columns(self.kernel, ids, self.compute_dtype, transpose_kernel=transposed)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x [rows, I] to [rows, O]."""
        return dense.product(
            x,
            self.kernel if self.gathered is None else self.gathered,
            self.compute_dtype,
            bias=self.bias if self.asked.has_bias else None,
            activation=self.asked.activation,
            transpose_kernel=self.asked.transpose_kernel,
            is_operand=self.asked.is_operand,
        )


def _repeated(products: Sequence[_Product], kernels: Mapping[str, Int8Kernel]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Products of the same x at each position of a search."""

    def run(x: tf.Tensor) -> tf.Tensor:
        cast = dense.cast_once(_Products(products), kernels)
        for product in cast.products:
            product.gather()

        def body(i: tf.Tensor, total: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return i + 1, total + tf.add_n([tf.cast(own.call(x)[0, 0], tf.float32) for own in cast.products]), x

        return tf.while_loop(lambda i, *_: i < _POSITIONS, body, (0, 0.0, x))[1]

    return tf.function(run, autograph=False)


class _Products(Layer):
    """Products of the same x."""

    def __init__(self, products: Sequence[_Product]):
        super().__init__(name="products")
        self.products = list(products)

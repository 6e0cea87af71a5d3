"""Compression room: what the loss would lose, to first order, with a head, a feed-forward column or a layer.

Putting a gate of 1 on the output of a unit, the derivative of the loss by the gate is the sum of gradient times weight
over the unit's outgoing weights; its absolute value, averaged over batches, is the importance (Michel et al. 2019;
Molchanov et al. 2019). A head counts as the sum of its dimensions, each gated by itself: with one gate for all, their
signs would cancel, and heads would look cheap beside columns, which are summed one by one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from app.encoder.parts import parts_of


@dataclass(frozen=True)
class LayerImportance:
    """Importances of one layer, in units of the loss.

    Attributes:
        heads: float64 [heads].
        columns: float64 [columns].
        layer: of both halves of the layer together.
    """

    heads: np.ndarray
    columns: np.ndarray
    layer: float


def measure_importance(
    layers: Sequence[Any], batches: Iterable[dict[str, tf.Tensor]], loss: Callable[[dict[str, tf.Tensor]], tf.Tensor]
) -> list[LayerImportance]:
    """Importances of all units.

    Args:
        layers: the transformer layers of the network.
        batches: training data.
        loss: batch -> mean loss, through the layers.
    """
    parts = [parts_of(layer) for layer in layers]
    outputs = [(each.attention_parts.output, each.outer) for each in parts]
    kernels = [(attention.kernel, feed_forward.kernel) for attention, feed_forward in outputs]
    biases = [(attention.bias, feed_forward.bias) for attention, feed_forward in outputs]

    @tf.function(reduce_retracing=True, autograph=False)
    def gates(batch: dict[str, tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        with tf.GradientTape() as tape:
            value = loss(batch)
        by_kernel, by_bias = tape.gradient(value, (kernels, biases))
        found = []
        for number, (attention, feed_forward) in enumerate(kernels):
            vectors = tf.reduce_sum(by_kernel[number][0] * attention, axis=2)  # [heads, size, width]
            columns = tf.reduce_sum(by_kernel[number][1] * feed_forward, axis=1)  # [columns, width]
            rest = [tf.reduce_sum(by_bias[number][half] * biases[number][half]) for half in (0, 1)]
            whole = tf.reduce_sum(vectors) + tf.reduce_sum(columns) + tf.add_n(rest)
            heads = tf.reduce_sum(tf.abs(vectors), axis=1)
            found.append((heads, tf.abs(columns), tf.abs(whole)))
        return found

    sums: list[list[np.ndarray]] = []
    count = 0
    for batch in batches:
        values = [[part.numpy().astype(np.float64) for part in layer] for layer in gates(batch)]
        pairs = zip(sums, values, strict=True) if sums else ()
        sums = [[a + b for a, b in zip(old, new, strict=True)] for old, new in pairs] or values
        count += 1
    return [LayerImportance(heads / count, columns / count, float(whole / count)) for heads, columns, whole in sums]


BLOCK = 8  # feed-forward columns go in eights, which vector units compute at a time


@dataclass(frozen=True)
class LayerUnits:
    """The units of one layer that are left: its number, heads and feed-forward columns, ascending."""

    number: int
    heads: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Costs:
    """Floating-point operations a piece, multiply-adds counted as two; or what else units cost.

    Attributes:
        head: of an attention head: its four projections, and scores and sums over a text.
        column: of a feed-forward column: into it and out of it.
        layer: of a layer beside its heads and columns.
        unit: what is counted.
    """

    head: float
    column: float
    layer: float = 0.0
    unit: str = "operations"

    @classmethod
    def of(cls, *, width: int, head_dim: int, length: int) -> "Costs":
        """Costs in a network of a width, for texts of a length in pieces."""
        return cls(head=2.0 * 4 * width * head_dim + 2.0 * 2 * length * head_dim, column=2.0 * 2 * width)

    def total(self, layers: Sequence[LayerUnits]) -> float:
        return sum(map(self.of_layer, layers))

    def of_layer(self, layer: LayerUnits) -> float:
        return self.layer + len(layer.heads) * self.head + len(layer.columns) * self.column


def whole_shape(importances: Sequence[LayerImportance]) -> list[LayerUnits]:
    """All units there are."""
    return [
        LayerUnits(number, tuple(range(len(layer.heads))), tuple(range(len(layer.columns))))
        for number, layer in enumerate(importances)
    ]


def drop_layers(layers: Sequence[LayerUnits], importances: Sequence[LayerImportance], count: int) -> list[LayerUnits]:
    """Without the `count` least important layers."""
    order = sorted(layers, key=lambda layer: importances[layer.number].layer)
    gone = {layer.number for layer in order[:count]}
    return [layer for layer in layers if layer.number not in gone]


def shrink(
    layers: Sequence[LayerUnits], importances: Sequence[LayerImportance], costs: Costs, *, budget: float
) -> list[LayerUnits]:
    """Removes the units of least importance for their cost until the rest is within a budget, or nothing can go.

    A layer keeps a head and a block of columns while it is there. When these are next, the whole layer goes; where a
    layer costs something beside its units, already when all that is left of it matters less for its cost than what
    else would go. The last layer stays.

    Args:
        layers: what there is.
        importances: of every unit.
        costs: of a unit.
        budget: in the unit of the costs.
    """
    queues = {layer.number: _Queue(layer, importances[layer.number], costs) for layer in layers}
    total = costs.total(layers)
    while total > budget:
        losing = {number: queue for number, queue in queues.items() if queue.may_lose(len(queues) > 1)}
        choices = [(*queue.cheapest(len(queues) > 1), number) for number, queue in losing.items()]
        if not choices:
            break
        _, kind, number = min(choices)
        total -= queues[number].remove(kind)
        if not queues[number].heads:
            del queues[number]
    return [queue.units() for queue in queues.values()]


class _Queue:
    """The units of a layer in the order in which they would go."""

    def __init__(self, layer: LayerUnits, importance: LayerImportance, costs: Costs) -> None:
        self._layer, self._costs = layer, costs
        by_importance = sorted(layer.heads, key=lambda head: importance.heads[head])
        self.heads = [(float(importance.heads[head]), (head,)) for head in by_importance]
        columns = sorted(layer.columns, key=lambda column: importance.columns[column])
        # The odd ones go first, so that whole blocks are left.
        first = len(columns) % BLOCK or min(BLOCK, len(columns))
        cuts = [0, *range(first, len(columns) + 1, BLOCK)]
        self.blocks = [
            (float(np.sum(importance.columns[columns[a:b]])), tuple(columns[a:b]))
            for a, b in pairwise(cuts)
        ]

    def may_lose(self, may_go: bool) -> bool:
        return may_go or len(self.heads) > 1 or len(self.blocks) > 1

    def cheapest(self, may_go: bool) -> tuple[float, str]:
        """(importance for the cost, kind) of what would go next: a head, a block of columns or the layer."""
        found = []
        if len(self.heads) > 1:
            found.append((self.heads[0][0] / self._costs.head, "head"))
        if len(self.blocks) > 1:
            value, block = self.blocks[0]
            found.append((value / (self._costs.column * len(block)), "columns"))
        if may_go and (self._costs.layer or not found):
            value = sum(importance for importance, _ in (*self.heads, *self.blocks))
            found.append((value / self._costs.of_layer(self.units()), "layer"))
        return min(found)

    def remove(self, kind: str) -> float:
        """Removes it and returns what it cost."""
        if kind == "head":
            self.heads.pop(0)
            return self._costs.head
        if kind == "columns":
            return self._costs.column * len(self.blocks.pop(0)[1])
        cost = self._costs.of_layer(self.units())
        self.heads, self.blocks = [], []
        return cost

    def units(self) -> LayerUnits:
        heads = tuple(sorted(head for _, unit in self.heads for head in unit))
        return LayerUnits(self._layer.number, heads, tuple(sorted(c for _, unit in self.blocks for c in unit)))

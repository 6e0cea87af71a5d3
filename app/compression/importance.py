"""Compression room: what the loss would lose, to first order, with a head, a feed-forward column or a layer.

Putting a gate of 1 on the output of a unit, the derivative of the loss by the gate is the sum of gradient times weight
over the unit's outgoing weights; its absolute value, averaged over batches, is the importance (Michel et al. 2019;
Molchanov et al. 2019). A head counts as the sum of its dimensions, each gated by itself: with one gate for all, their
signs would cancel, and heads would look cheap beside columns, which are summed one by one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


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
    outputs = [(layer._self_attention_layer._output_dense, layer._feedforward_output_dense) for layer in layers]
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

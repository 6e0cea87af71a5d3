"""Compression room: the matrices of an encoder that steps work on."""

from typing import Any

import tensorflow as tf


def attention_kernels(layer: Any) -> list[tf.Variable]:
    """Query, key and value [width, heads, size] and output [heads, size, width] of a transformer layer."""
    attention = layer._self_attention_layer
    parts = (attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense)
    return [part.kernel for part in parts]


def feed_forward_kernels(layer: Any) -> list[tf.Variable]:
    """[width, columns] and [columns, width] of a transformer layer."""
    return [layer._feedforward_intermediate_dense.kernel, layer._feedforward_output_dense.kernel]


def input_axes(kernel: tf.Variable, layer: Any) -> list[int]:
    """The axes of a kernel that a product sums over; the others make up its output channels."""
    if kernel is layer._self_attention_layer._output_dense.kernel:
        return [0, 1]
    return [0]

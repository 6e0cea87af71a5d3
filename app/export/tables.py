"""Export room: embedding tables as TFLite holds them: float, int8 with a scale a row, int4 with a scale a block.

TFLite quantizes the matrices of a network but leaves embedding tables, half of a small BERT, in float32 or gives the
whole table one scale. Here a table is stored as integers and looked up before it is scaled, so only the rows in use
become floats.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

Lookup = Callable[[tf.Tensor], tf.Tensor]  # ids int32 [...] -> float32 [..., width]


def make_float_lookup(table: np.ndarray, *, block: int = 0) -> Lookup:
    """The table as it is, float32 [rows, width]."""
    constant = tf.constant(table)
    return lambda ids: tf.gather(constant, ids)


def make_int8_lookup(table: np.ndarray, *, block: int = 0) -> Lookup:
    """Symmetric int8, one scale a row."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    integers = tf.constant(np.rint(table / scales).astype(np.int8))
    scale_column = tf.constant(scales.astype(np.float32))
    return lambda ids: tf.cast(tf.gather(integers, ids), tf.float32) * tf.gather(scale_column, ids)


def make_int4_lookup(table: np.ndarray, *, block: int) -> Lookup:
    """Symmetric int4, two numbers in a byte; a block's scale is an int8 part of the float32 scale of its row.

    The first half of a row is in the low, the second in the high four bits, so unpacking needs no interleaving. A width
    that does not divide into blocks is kept in int8.
    """
    rows, width = table.shape
    if width % 2 or width % block:
        return make_int8_lookup(table)
    blocks = table.reshape(rows, width // block, block)
    wanted = np.maximum(np.abs(blocks).max(axis=2), 1e-12) / 7  # [rows, blocks]
    row_scales = wanted.max(axis=1, keepdims=True) / 127
    parts = np.ceil(wanted / row_scales).clip(1, 127)
    scales = (parts * row_scales)[..., np.newaxis]
    integers = np.rint(blocks / scales).clip(-7, 7).astype(np.int16).reshape(rows, width) + 8  # 1 .. 15
    low, high = integers[:, : width // 2], integers[:, width // 2 :]
    packed = tf.constant((low + 16 * high - 128).astype(np.int8))
    part_table, row_table = tf.constant(parts.astype(np.int8)), tf.constant(row_scales.astype(np.float32))

    def lookup(ids: tf.Tensor) -> tf.Tensor:
        both = tf.cast(tf.gather(packed, ids), tf.float32) + 128.0  # [..., width / 2], exact
        upper = tf.floor(both * (1 / 16))
        numbers = tf.concat([both - 16.0 * upper, upper], axis=-1) - 8.0
        per_block = tf.cast(tf.gather(part_table, ids), tf.float32) * tf.gather(row_table, ids)
        shape = tf.shape(ids)
        spread = tf.reshape(numbers, tf.concat([shape, [width // block, block]], axis=0))
        return tf.reshape(spread * tf.expand_dims(per_block, -1), tf.concat([shape, [width]], axis=0))

    return lookup


LOOKUPS: dict[str, Callable[..., Lookup]] = {
    "float": make_float_lookup,
    "int8": make_int8_lookup,
    "int4": make_int4_lookup,
}

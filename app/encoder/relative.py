"""Encoder room: what MPNet adds to the attention scores, by how far a piece is from the one it reads.

All layers share one table [32 buckets, heads] (Song et al. 2020). The buckets are those of Raffel et al. 2020, section
2.1: half are for pieces before, half for pieces after; near ones have a bucket each, those further off share some.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from keras_nlp.models import BertBackbone

from app.one_keras import keras

BUCKETS = 32  # published MPNets have no other number: their code counts to 32 whatever their configuration says
_SIDE, _NEAR = BUCKETS // 2, BUCKETS // 4


def find_buckets(distances: np.ndarray) -> np.ndarray:
    """The bucket of each distance, the place of what is read less that of who reads: int [...] -> int32 [...].

    Beyond 8 pieces, a bucket ends at 8 times 16 ** (n / 8), n = 1, 2, ...: at 128 the last one begins. Compared as
    squares, in whole numbers, so that no rounding of logarithms moves a border.
    """
    far = np.abs(distances)
    borders = [_NEAR**2 << number for number in range(1, _SIDE - _NEAR)]
    beyond = sum((far * far >= border).astype(np.int32) for border in borders)
    return (np.where(far < _NEAR, far, _NEAR + beyond) + _SIDE * (distances > 0)).astype(np.int32)


@keras.saving.register_keras_serializable(package="app")
class RelativeBias(keras.layers.Layer):
    """The table of an MPNet, looked up for rows of pieces.

    Args:
        heads: columns of the table.
        positions: pieces of the longest row.
    """

    def __init__(self, *, heads: int, positions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.positions = positions

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(
            name="relative_attention_bias",
            shape=(BUCKETS, self.heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        super().build(shape)

    def call(self, windows: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] -> float [heads, length, length], those that ask before those that are read.

        Within a window, distances are those within the row; nothing is read outside.
        """
        length = tf.shape(windows)[1]
        buckets = tf.constant(self.distance_buckets())
        near = buckets[self.positions - length : self.positions + length - 1]  # of -(length - 1) .. length - 1
        # From a table by head, because the gradient of a lookup in rows is not dense.
        values = tf.gather(tf.transpose(tf.convert_to_tensor(self.table)), near, axis=1)  # [heads, 2 * length - 1]
        # Row after row shifted by one place: the row of 2 * length values is repeated and cut one value shorter.
        repeated = tf.tile(tf.pad(values, [[0, 0], [0, 1]]), [1, length])[:, : length * (2 * length - 1)]
        shifted = tf.reshape(repeated, [self.heads, length, 2 * length - 1])
        return shifted[:, :, length - 1 :]

    def distance_buckets(self) -> np.ndarray:
        """The buckets of all distances there can be, from 1 - positions to positions - 1."""
        return find_buckets(np.arange(1 - self.positions, self.positions))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "positions": self.positions}


def relative_bias_of(model: BertBackbone) -> RelativeBias | None:
    """The table of an MPNet; None of a BERT."""
    return getattr(model, "relative_bias", None)

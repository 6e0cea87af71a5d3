"""Encoder room: the layers of a backbone connected anew, so that pieces read their own window only.

`BertBackbone` as KerasNLP connects it lets every piece of a row read every other. Rows here hold windows of several
documents (`app/data/packing.py`), and taggers add an embedding of their own to the input.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras_nlp.layers import PositionEmbedding
from keras_nlp.models import BertBackbone

from app.one_keras import keras

Replace = Callable[[keras.layers.Layer], keras.layers.Layer]


@keras.saving.register_keras_serializable(package="app")
class WindowMask(keras.layers.Layer):
    """Window numbers int32 [batch, length] -> bool [batch, length, length], true within one window."""

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        return tf.equal(numbers[:, :, tf.newaxis], numbers[:, tf.newaxis, :])


def compute_positions(windows: tf.Tensor) -> tf.Tensor:
    """How far each piece is from the first one of its window: int32 [batch, length]; for `windows` see below."""
    same = tf.equal(windows[:, :, tf.newaxis], windows[:, tf.newaxis, :])
    first = tf.argmax(tf.cast(same, tf.int32), axis=-1, output_type=tf.int32)  # [batch, length]
    return tf.range(tf.shape(windows)[1])[tf.newaxis] - first


@keras.saving.register_keras_serializable(package="app")
class WindowPositions(keras.layers.Layer):
    """Position embeddings counted from the beginning of each window, on the weights of a `PositionEmbedding`.

    Several windows share a row in training, one has it to itself when a text is scored: a window is read alike in both.
    """

    def __init__(self, embedding: PositionEmbedding, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, windows: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] -> float [batch, length, width]."""
        return tf.gather(tf.convert_to_tensor(self.embedding.position_embeddings), compute_positions(windows))


def connect_encoder(
    model: BertBackbone,
    tokens: tf.Tensor,
    segments: tf.Tensor,
    windows: tf.Tensor,
    *,
    added: tf.Tensor | None = None,
    replace: Replace = lambda layer: layer,
) -> list[tf.Tensor]:
    """Connects Keras inputs through the layers of a backbone, which keep their weights.

    Args:
        model: the backbone.
        tokens: piece ids int32 [batch, length].
        segments: segment ids int32 [batch, length].
        windows: int32 [batch, length], 0 for padding and otherwise the number of the window a piece belongs to. A plain
            0/1 padding mask is the case of one window a row.
        added: float [batch, length, width], added to the input embeddings.
        replace: gives what is called in place of the word-piece embedding and of each transformer layer.

    Returns:
        the input of the first layer and then the output of every layer, float [batch, length, width] each.
    """
    embedded = replace(model.token_embedding)(tokens)
    positions = WindowPositions(model.position_embedding, name="window_positions")(windows)
    parts = [embedded, positions, model.segment_embedding(segments)]
    if added is None:
        x = model.embeddings_add(parts)
    else:
        x = keras.layers.Add(name="inputs_add")([*parts, added])
    states = [model.embeddings_dropout(model.embeddings_layer_norm(x))]
    mask = WindowMask(name="window_mask")(windows)
    for layer in model.transformer_layers:
        states.append(replace(layer)(states[-1], attention_mask=mask))
    return states

"""Models room: the layers of a backbone connected anew, so that pieces read their own window only.

`BertBackbone` as KerasNLP connects it lets every piece of a row read every other. Rows here hold windows of several
documents (`app/data/packing.py`), and taggers add an embedding of their own to the input.
"""

from collections.abc import Callable

import tensorflow as tf
from keras_nlp.models import BertBackbone

from app.one_keras import keras

Replace = Callable[[keras.layers.Layer], keras.layers.Layer]


@keras.saving.register_keras_serializable(package="app")
class WindowMask(keras.layers.Layer):
    """Window numbers int32 [batch, length] -> bool [batch, length, length], true within one window."""

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        return tf.equal(numbers[:, :, tf.newaxis], numbers[:, tf.newaxis, :])


def connect_encoder(
    model: BertBackbone,
    tokens: tf.Tensor,
    segments: tf.Tensor,
    windows: tf.Tensor,
    *,
    added: tf.Tensor | None = None,
    replace: Replace = lambda layer: layer,
) -> tf.Tensor:
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
        hidden states, float [batch, length, width].
    """
    return connect_layers(model, tokens, segments, windows, added=added, replace=replace)[-1]


def connect_layers(
    model: BertBackbone,
    tokens: tf.Tensor,
    segments: tf.Tensor,
    windows: tf.Tensor,
    *,
    added: tf.Tensor | None = None,
    replace: Replace = lambda layer: layer,
) -> list[tf.Tensor]:
    """As `connect_encoder`, with the input of the first layer and then the output of every layer."""
    embedded = replace(model.token_embedding)(tokens)
    parts = [embedded, model.position_embedding(embedded), model.segment_embedding(segments)]
    if added is None:
        x = model.embeddings_add(parts)
    else:
        x = keras.layers.Add(name="inputs_add")([*parts, added])
    states = [model.embeddings_dropout(model.embeddings_layer_norm(x))]
    mask = WindowMask(name="window_mask")(windows)
    for layer in model.transformer_layers:
        states.append(replace(layer)(states[-1], attention_mask=mask))
    return states

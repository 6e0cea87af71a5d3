"""Encoder room: KerasNLP's layers, which keep their weights and compute by `forward.py`.

Keras computes the four projections of `MultiHeadAttention` with `einsum`, which on a CPU transposes operands before and
after each product, backwards too. The same numbers come out of plain products, and a training step of MiniLM takes a
sixth less time (docs/results.md).
"""

import tensorflow as tf
from keras_nlp import layers as keras_nlp

from app.encoder.forward import attend, run_layer
from app.encoder.parts import attention_parts_of, parts_of
from app.one_keras import keras


class SelfAttention(keras.layers.MultiHeadAttention):
    """Scaled dot-product self-attention (Vaswani et al. 2017, section 3.2) on the weights of a `MultiHeadAttention`.

    Made from a built layer by `use_matrix_products`; its weights, their names and its dropout stay as they are.
    """

    def call(
        self,
        query: tf.Tensor,
        value: tf.Tensor,
        attention_mask: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Hidden states to hidden states, float [batch, asking, width].

        Args:
            query: hidden states of the pieces that ask, [batch, asking, width].
            value: hidden states of the pieces that may be read, [batch, length, width]; often the same tensor.
            attention_mask: bool [batch, 1 or asking, length], true where a piece (row) may read another (column).
            training: whether attention weights are dropped.
        """
        batch, asking = tf.unstack(tf.shape(query)[:2])
        askers = tf.reshape(query, [-1, query.shape[-1]])  # [batch * asking, width]
        pieces = askers if value is query else tf.reshape(value, [-1, value.shape[-1]])
        mixed = attend(attention_parts_of(self), askers, pieces, attention_mask, batch=batch, training=training)
        return tf.reshape(mixed, [batch, asking, mixed.shape[-1]])


class TransformerEncoder(keras_nlp.TransformerEncoder):
    """A transformer layer that normalises after each of its two sums, as BERT's do.

    Made from KerasNLP's built layer by `use_own_forward`; weights, names and settings stay as they are. It bears the
    same name because weights files (`backbone.weights.h5`) call the layers of a backbone after their class.
    """

    def call(
        self,
        inputs: tf.Tensor,
        padding_mask: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Hidden states to hidden states, float [batch, length, width].

        Args:
            inputs: hidden states.
            padding_mask: [batch, length], not 0 at the pieces that may be read.
            attention_mask: bool [batch, length, length], true where a piece (row) may read another (column).
            training: whether anything is dropped.
        """
        mask = attention_mask
        if padding_mask is not None:
            real = tf.cast(padding_mask, tf.bool)[:, tf.newaxis]
            mask = real if mask is None else real & tf.cast(mask, tf.bool)
        return run_layer(self, inputs, mask, training=training)


def use_matrix_products(attention: keras.layers.MultiHeadAttention) -> None:
    """Makes a built self-attention layer compute by `SelfAttention.call` from the next trace on."""
    if type(attention) is keras.layers.MultiHeadAttention:
        attention.__class__ = SelfAttention


def use_own_forward(layer: keras_nlp.TransformerEncoder) -> None:
    """Makes a built transformer layer, its attention included, compute by `forward.py` from the next trace on."""
    use_matrix_products(parts_of(layer).attention)
    if type(layer) is keras_nlp.TransformerEncoder:
        layer.__class__ = TransformerEncoder

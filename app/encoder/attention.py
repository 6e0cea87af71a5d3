"""Encoder room: self-attention by matrix products over all pieces of a batch at once.

Keras computes the four projections of `MultiHeadAttention` with `einsum`, which on a CPU transposes operands before and
after each product, backwards too. The same numbers come out of plain products, and a training step of MiniLM takes a
sixth less time (docs/results.md).
"""

import math

import tensorflow as tf

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
        """Hidden states to hidden states, float [batch, length, width].

        Args:
            query: hidden states.
            value: the same hidden states; queries, keys and values of self-attention come from one place.
            attention_mask: bool [batch, 1 or length, length], true where a piece (row) may read another (column).
            training: whether attention weights are dropped.
        """
        pieces = tf.reshape(query, [-1, query.shape[-1]])  # [batch * length, width]
        return self._attend(pieces, pieces, tf.shape(query), attention_mask, training)

    def call_for(self, asking: tf.Tensor, states: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        """What `call` gives for some of the pieces, without dropout: float [batch, asking, width].

        Args:
            asking: hidden states of these pieces, float [batch, asking, width].
            states: hidden states of all pieces, float [batch, length, width].
            attention_mask: bool [batch, asking, length].
        """
        askers, pieces = (tf.reshape(each, [-1, each.shape[-1]]) for each in (asking, states))
        return self._attend(askers, pieces, tf.shape(asking), attention_mask, training=False)

    def _attend(
        self,
        askers: tf.Tensor,
        pieces: tf.Tensor,
        shape: tf.Tensor,
        attention_mask: tf.Tensor | None,
        training: bool | None,
    ) -> tf.Tensor:
        """Flat hidden states, of those that ask and of all they may read, to hidden states of `shape`."""
        batch, asking = tf.unstack(shape[:2])
        heads, size = self._num_heads, self._key_dim
        width = heads * size

        def per_head(x: tf.Tensor, dense: keras.layers.EinsumDense) -> tf.Tensor:
            kernel, bias = tf.reshape(dense.kernel, [-1, width]), tf.reshape(dense.bias, [width])
            projected = tf.nn.bias_add(tf.matmul(x, kernel), bias)
            return tf.transpose(tf.reshape(projected, [batch, -1, heads, size]), [0, 2, 1, 3])

        queries = per_head(askers, self._query_dense)
        keys, values = per_head(pieces, self._key_dense), per_head(pieces, self._value_dense)
        scores = tf.matmul(queries / math.sqrt(size), keys, transpose_b=True)  # [batch, heads, asking, length]
        weights = self._dropout_layer(self._masked_softmax(scores, attention_mask), training=training)
        read = tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [-1, width])
        output = tf.reshape(self._output_dense.kernel, [width, -1])
        mixed = tf.nn.bias_add(tf.matmul(read, output), self._output_dense.bias)
        return tf.reshape(mixed, [batch, asking, output.shape[-1]])


def use_matrix_products(attention: keras.layers.MultiHeadAttention) -> None:
    """Makes a built self-attention layer compute by `SelfAttention.call` from the next trace on."""
    if type(attention) is keras.layers.MultiHeadAttention:
        attention.__class__ = SelfAttention

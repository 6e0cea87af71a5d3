"""Compression room: training with the rounding that an int8 runtime does (Jacob et al. 2018).

Weights are rounded to int8 with one scale an output channel, the embedding table with one a row, the input of each
product with one scale a piece, found at run time. Rounding has no gradient; that of the identity stands in (Bengio et
al. 2013). Afterwards the rounded weights are the weights of the plain network: a converter that scales by the largest
weight of a channel finds the same integers.
"""

from functools import partial
from typing import Any

import tensorflow as tf

from app.compression.step import Bench
from app.encoder.forward import Arithmetic, attend, run_layer
from app.encoder.parts import attention_parts_of, count_outputs, input_axes, is_transformer_layer, parts_of
from app.one_keras import keras

LEVELS = 127.0  # symmetric int8


def fake_quantize(values: tf.Tensor, axes: list[int]) -> tf.Tensor:
    """The values rounded to 255 levels between -m and m, m the largest magnitude along the axes; gradient 1.

    It is computed in float32 whatever the type of the values: in bfloat16, a level number has no digits left to round.
    """
    exact = tf.cast(values, tf.float32)
    largest = tf.reduce_max(tf.abs(exact), axis=axes, keepdims=True)
    scale = tf.where(largest > 0, largest / LEVELS, tf.ones_like(largest))
    return tf.cast(exact + tf.stop_gradient(tf.round(exact / scale) * scale - exact), values.dtype)


class QuantizeAware:
    """Trains through rounded weights and inputs, then rounds the weights for good."""

    def run(self, bench: Bench) -> None:
        bench.once("train", partial(self._train, bench))

    def _train(self, bench: Bench, tagger: Any) -> Any:
        view = bench.with_layers(tagger, quantized)
        bench.train(tagger, part="train", epochs=bench.config.quantize_aware.epochs, view=view)
        round_weights(tagger.backbone.model)
        return tagger


def quantized(layer: keras.layers.Layer, *, inputs: bool = True) -> keras.layers.Layer:
    """What stands for a transformer layer, or the word-piece embedding, while its rounding is simulated."""
    if is_transformer_layer(layer):
        return QuantizedEncoder(layer, inputs=inputs)
    return QuantizedEmbedding(layer)


def round_weights(model: Any) -> None:
    """Rounds the weights of an encoder as `quantized` does."""
    table = model.token_embedding.embeddings
    table.assign(fake_quantize(table, [1]))
    for layer in model.transformer_layers:
        for dense in parts_of(layer).dense:
            dense.kernel.assign(fake_quantize(dense.kernel, input_axes(dense)))


class QuantizedEmbedding(keras.layers.Layer):
    """Rows of an embedding table, rounded one by one, before they become 16 bits in mixed precision."""

    def __init__(self, embedding: keras.layers.Layer) -> None:
        super().__init__(name=f"quantized_{embedding.name}")
        self.embedding = embedding

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        rows = tf.nn.embedding_lookup(self.embedding.embeddings, ids)
        return tf.cast(fake_quantize(rows, [-1]), self.embedding.compute_dtype)


class QuantizedEncoder(keras.layers.Layer):
    """A KerasNLP `TransformerEncoder` (layer norms after the sums) on its own weights, rounded.

    It computes in the encoder's precision, but reads the weights as they are stored, so that it is those that are
    rounded.

    Args:
        encoder: built.
        inputs: whether the inputs of products are rounded too.
    """

    def __init__(self, encoder: keras.layers.Layer, *, inputs: bool = True) -> None:
        super().__init__(name=f"quantized_{encoder.name}", dtype="float32", autocast=False)
        self.encoder = encoder
        self._arithmetic = RoundedArithmetic(inputs=inputs)

    def call(
        self, x: tf.Tensor, attention_mask: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """Hidden states float [batch, length, width] and a mask bool [batch, length, length] to hidden states."""
        return run_layer(self.encoder, x, attention_mask, arithmetic=self._arithmetic, training=training)


class RoundedArithmetic(Arithmetic):
    """Products of rounded kernels and, if wanted, rounded inputs; everything else as the layers do it."""

    def __init__(self, *, inputs: bool) -> None:
        self._rounds_inputs = inputs

    def attend(
        self,
        attention: keras.layers.MultiHeadAttention,
        asking: tf.Tensor,
        states: tf.Tensor,
        mask: tf.Tensor | None,
        *,
        training: bool | None,
    ) -> tf.Tensor:
        parts, batch = attention_parts_of(attention), tf.shape(asking)[0]
        mixed = attend(parts, asking, states, mask, batch=batch, arithmetic=self, training=training)
        return tf.reshape(mixed, tf.shape(asking))

    def product(self, x: tf.Tensor, dense: keras.layers.Layer) -> tf.Tensor:
        """Float [..., inputs] -> [..., outputs]."""
        kernel = fake_quantize(tf.convert_to_tensor(dense.kernel), input_axes(dense))
        kernel = tf.cast(tf.reshape(kernel, [-1, count_outputs(dense)]), x.dtype)
        bias = tf.cast(tf.reshape(dense.bias, [-1]), x.dtype)
        pieces = tf.reshape(x, [-1, x.shape[-1]])
        pieces = fake_quantize(pieces, [1]) if self._rounds_inputs else pieces
        product = tf.nn.bias_add(tf.matmul(pieces, kernel), bias)
        return tf.reshape(product, tf.concat([tf.shape(x)[:-1], [product.shape[-1]]], axis=0))

    def expand(self, x: tf.Tensor, inner: keras.layers.Layer) -> tf.Tensor:
        return inner.activation(self.product(x, inner))

    def contract(self, x: tf.Tensor, outer: keras.layers.Layer) -> tf.Tensor:
        return self.product(x, outer)

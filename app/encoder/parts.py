"""Encoder room: the layers inside a transformer layer, which KerasNLP and Keras keep in private attributes.

No other file names these attributes (`tests/encoder/test_parts.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras_nlp.layers import TransformerEncoder

from app.one_keras import keras

_LAYER = {
    "attention": "_self_attention_layer",
    "attention_dropout": "_self_attention_dropout",
    "attention_norm": "_self_attention_layer_norm",
    "inner": "_feedforward_intermediate_dense",
    "outer": "_feedforward_output_dense",
    "dropout": "_feedforward_dropout",
    "norm": "_feedforward_layer_norm",
}
_ATTENTION = {
    "query": "_query_dense",
    "key": "_key_dense",
    "value": "_value_dense",
    "output": "_output_dense",
    "dropout": "_dropout_layer",
}


@dataclass(frozen=True)
class AttentionParts:
    """What a self-attention layer consists of.

    Attributes:
        query, key, value: projections; kernel [width, heads, size], bias [heads, size].
        output: back to the width of the network; kernel [heads, size, width], bias [width].
        dropout: of the attention weights.
        heads: number of heads.
        size: width of a head.
        masked_softmax: (scores [batch, heads, asking, length], mask bool [batch, 1 or asking, length] or None) ->
            attention weights.
        bias_heads: of an MPNet, its heads' columns in the table of `app/encoder/relative.py`; empty of a BERT.
    """

    query: keras.layers.Layer
    key: keras.layers.Layer
    value: keras.layers.Layer
    output: keras.layers.Layer
    dropout: keras.layers.Layer
    heads: int
    size: int
    masked_softmax: Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
    bias_heads: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Of all heads together."""
        return self.heads * self.size

    @property
    def projections(self) -> tuple[keras.layers.Layer, ...]:
        """Query, key, value, output."""
        return self.query, self.key, self.value, self.output


@dataclass(frozen=True)
class LayerParts:
    """What a transformer layer consists of, in the order of the computation.

    Attributes:
        attention: its self-attention, a layer to call; `attention_parts` looks into it.
        attention_dropout: of what was read.
        attention_norm: normalises the sum of the layer's input and what was read.
        inner: the wide dense layer, activation included; kernel [width, columns].
        outer: the dense layer back; kernel [columns, width].
        dropout: of its output.
        norm: normalises the last sum.
    """

    attention: keras.layers.MultiHeadAttention
    attention_dropout: keras.layers.Layer
    attention_norm: keras.layers.Layer
    inner: keras.layers.Layer
    outer: keras.layers.Layer
    dropout: keras.layers.Layer
    norm: keras.layers.Layer

    @property
    def attention_parts(self) -> AttentionParts:
        return attention_parts_of(self.attention)

    @property
    def dense(self) -> tuple[keras.layers.Layer, ...]:
        """All layers with a kernel: query, key, value, output, inner, outer."""
        return (*self.attention_parts.projections, self.inner, self.outer)

    @property
    def norms(self) -> tuple[keras.layers.Layer, ...]:
        return self.attention_norm, self.norm


def is_transformer_layer(layer: Any) -> bool:
    """Whether `parts_of` can take it."""
    return isinstance(layer, TransformerEncoder)


def parts_of(layer: TransformerEncoder) -> LayerParts:
    """The parts of a built transformer layer."""
    return LayerParts(**{name: getattr(layer, attribute) for name, attribute in _LAYER.items()})


def attention_parts_of(attention: keras.layers.MultiHeadAttention) -> AttentionParts:
    """The parts of a built self-attention layer."""
    return AttentionParts(
        **{name: getattr(attention, attribute) for name, attribute in _ATTENTION.items()},
        heads=attention._num_heads,
        size=attention._key_dim,
        masked_softmax=attention._masked_softmax,
        bias_heads=tuple(getattr(attention, "bias_heads", ())),
    )


def input_axes(dense: keras.layers.Layer) -> list[int]:
    """The axes of a kernel that a product sums over; the others make up its output channels, as the bias has them."""
    return list(range(len(dense.kernel.shape) - len(dense.bias.shape)))


def count_outputs(dense: keras.layers.Layer) -> int:
    """Output channels of a dense layer, all heads together where it has heads."""
    return int(np.prod(dense.bias.shape))


def set_attention_dropout(layer: TransformerEncoder, rate: float) -> None:
    """The dropout of attention weights, from the next trace on."""
    attention = parts_of(layer).attention
    attention._dropout = rate  # what its get_config() reads
    attention_parts_of(attention).dropout.rate = rate


def build_attention(layer: TransformerEncoder, attention: keras.layers.MultiHeadAttention, shape: Any) -> None:
    """Builds a self-attention layer for inputs of a shape and puts it in the place of a transformer layer's own."""
    attention._build_from_signature(query=shape, value=shape)
    setattr(layer, _LAYER["attention"], attention)


def find_path(part: str) -> str:
    """A regular expression for where a weight is kept, as a path of attributes that ends in a transformer layer.

    Args:
        part: names of `LayerParts` and `AttentionParts` and then of the weight, such as `attention.query.kernel`.
    """
    first, *between, weight = part.split(".")
    attributes = [_LAYER[first], *(_ATTENTION[name] for name in between), weight]
    return r".*" + r"\.".join(attributes)

"""Export room: the network of a tagger written anew for inference, with embedding tables in any precision.

Plain two-dimensional matrix products, which TFLite runs as `FULLY_CONNECTED`; no dropout, no Keras masks. The tests
compare it with the Keras network, and every export is scored before it is kept.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from app.data.packing import FEATURES

UNREAD = -1e9  # added to the attention score of a piece that must not be read


class InferenceModule(tf.Module):
    """A model for export: packed rows -> logits, and what its task makes of them.

    Args:
        tagger: a loaded tagger (`app/tasks/network.py`); its weights are copied as constants.
        table: precision of the embedding tables, a key of `LOOKUPS`.
        block: numbers that share a scale in an int4 table.
        boundary_ids: ids of `[CLS]` and `[SEP]`.
        unread: see `UNREAD`; full-integer models need a small one, or their scores have no resolution left.
    """

    def __init__(
        self, tagger: Any, *, table: str, block: int, boundary_ids: tuple[int, int], unread: float = UNREAD
    ) -> None:
        super().__init__()
        self._backbone = tagger.backbone.model
        self._head = tagger.head
        self._boundary_ids = boundary_ids
        self._unread = unread
        self._multiple = block if table == "int4" else 1  # a kernel's rows are cut into blocks without a rest
        self.labels = tuple(tagger.labels)
        self._model = tagger
        make_lookup = LOOKUPS[table]
        self._tokens = make_lookup(self._backbone.token_embedding.embeddings.numpy(), block=block)
        positions = self._backbone.position_embedding.position_embeddings.numpy()
        segment = self._backbone.segment_embedding.embeddings.numpy()[:1]  # every piece is in segment 0
        self._positions = make_lookup(positions + segment, block=block)
        shapes = next((v for name, v in tagger.own_variables().items() if name.startswith("word_shape")), None)
        self._shapes = None if shapes is None else tf.constant(shapes.numpy())

    def undivided_widths(self) -> list[int]:
        """Widths of kernels that cannot be cut into blocks: of the network, and of a layer's heads together."""
        layers = [layer._self_attention_layer for layer in self._backbone.transformer_layers]
        widths = {self._backbone.hidden_dim, *(each._num_heads * each._key_dim for each in layers)}
        return sorted(width for width in widths if width % self._multiple)

    def embed(self, token_ids: tf.Tensor, shape_ids: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] three times -> normalised input embeddings float32 [batch, length, width]."""
        x = self._tokens(token_ids) + self._positions(positions)
        if self._shapes is not None:
            x += tf.gather(self._shapes, shape_ids)
        return _normalise(x, self._backbone.embeddings_layer_norm)

    def compute_logits(self, token_ids: tf.Tensor, shape_ids: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] three times -> logits float32 [batch, length, labels]."""
        shape = tf.shape(token_ids)
        same = tf.equal(tf.expand_dims(windows, 2), tf.expand_dims(windows, 1))  # [batch, length, length]
        first = tf.argmax(tf.cast(same, tf.int32), axis=-1, output_type=tf.int32)  # of each piece's window
        x = self.embed(token_ids, shape_ids, tf.expand_dims(tf.range(shape[1]), 0) - first)
        width = x.shape[-1]
        bias = tf.expand_dims((1.0 - tf.cast(same, tf.float32)) * self._unread, 1)
        x = tf.reshape(x, [-1, width])  # [batch * length, width]
        for layer in self._backbone.transformer_layers:
            attention = layer._self_attention_layer
            x = _normalise(x + _attend(x, attention, bias, shape), layer._self_attention_layer_norm)
            inner = layer._feedforward_intermediate_dense
            more = -inner.kernel.shape[1] % self._multiple  # columns that nothing reads; zeros would have no scale
            kernel = np.pad(_array(inner.kernel), [(0, 0), (0, more)], mode="wrap")
            inner_bias = np.pad(_array(inner.bias), (0, more))
            hidden = _activation(layer.activation)(tf.matmul(x, kernel) + inner_bias)
            outer = layer._feedforward_output_dense
            back = tf.matmul(hidden, np.pad(_array(outer.kernel), [(0, more), (0, 0)])) + _array(outer.bias)
            x = _normalise(x + back, layer._feedforward_layer_norm)
        logits = self._head.infer(x, same)
        return tf.reshape(logits, tf.concat([shape, [len(self.labels)]], axis=0))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, all int32 [batch, length]."""
        unit_input = self._model.task.unit_input
        return (*FEATURES, unit_input) if unit_input else FEATURES

    def answer(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The exported function: `inputs` to the outputs of the task.

        `padding_mask` is 0 for padding and otherwise the number of the window a piece belongs to.
        """
        named = dict(zip(self.inputs, inputs, strict=True))
        logits = self.compute_logits(*(named[name] for name in FEATURES))
        return self._model.task.finish_graph(self._model, logits, named, self._boundary_ids)

    def concrete(self) -> Any:
        """The exported function, traced for any batch and length."""
        spec = [tf.TensorSpec([None, None], tf.int32, name=name) for name in self.inputs]
        return tf.function(self.answer, input_signature=spec, autograph=False).get_concrete_function()


def _array(variable: tf.Variable) -> np.ndarray:
    """The value of a weight, also while a graph is being built: exported weights are constants."""
    with tf.init_scope():
        return variable.numpy()


def _normalise(x: tf.Tensor, norm: Any) -> tf.Tensor:
    """Layer normalisation over the last axis (Ba et al. 2016)."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + norm.epsilon) * _array(norm.gamma) + _array(norm.beta)


def _attend(x: tf.Tensor, attention: Any, bias: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Self-attention, [batch * length, width] to the same; scores are scaled in the query weights."""
    heads, size = attention._num_heads, attention._key_dim

    def per_head(dense: Any, factor: float = 1.0) -> tf.Tensor:
        kernel = _array(dense.kernel).reshape(-1, heads * size) * np.float32(factor)
        projected = tf.matmul(x, kernel) + _array(dense.bias).reshape(-1) * np.float32(factor)
        return tf.transpose(tf.reshape(projected, tf.concat([shape, [heads, size]], axis=0)), [0, 2, 1, 3])

    queries = per_head(attention._query_dense, 1 / math.sqrt(size))
    scores = tf.matmul(queries, per_head(attention._key_dense), transpose_b=True)  # [batch, heads, length, length]
    read = tf.matmul(tf.nn.softmax(scores + bias), per_head(attention._value_dense))
    joined = tf.reshape(tf.transpose(read, [0, 2, 1, 3]), [-1, heads * size])
    output = attention._output_dense
    kernel = _array(output.kernel)
    return tf.matmul(joined, kernel.reshape(heads * size, -1)) + _array(output.bias)


def _activation(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """GELU, exact or by tanh as the backbone has it, in the form that TFLite knows as one operation."""
    exact = "approximate" not in getattr(function, "__name__", "")
    return lambda x: tf.nn.gelu(x, approximate=not exact)


# Embedding tables as TFLite holds them: float, int8 with a scale a row, int4 with a scale a block.
#
# TFLite quantizes the matrices of a network but leaves embedding tables, half of a small BERT, in float32 or gives the
# whole table one scale. Here a table is stored as integers and looked up before it is scaled, so only the rows in use
# become floats.


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

"""Encoder room: the forward pass of BERT, written once.

`run_encoder` leads from piece ids to the hidden states of all layers, through `run_layer` and `attend`. It runs on
Keras inputs, which makes a functional model, and on tensors. Others reach in at these places:

    added        something is added to the input embeddings (word shapes)
    replace      another Keras layer is called in place of one of the backbone's (simulated rounding, pruning masks)
    places       the last layer is computed for chosen pieces alone (a tagger in a SavedModel)
    only         all layers are, and the other pieces stay as they are (words that have left by an exit)
    depth        the layers above are left out (exits at inner layers); `run_layers` goes on from there
    arithmetic   operations are computed in another way (rounded weights, constants for an export)

MPNet (Song et al. 2020) is the same network with something added to all attention scores (`app/encoder/relative.py`):
what its layers take as a mask is then a `Reading`.

Pieces read their own window only: rows hold windows of several documents (`app/data/packing.py`), where `BertBackbone`
as KerasNLP connects it lets every piece of a row read every other.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from keras_nlp.layers import PositionEmbedding, TransformerEncoder
from keras_nlp.models import BertBackbone

from app.encoder.parts import AttentionParts, count_outputs, parts_of
from app.encoder.relative import RelativeBias, relative_bias_of
from app.one_keras import keras

Replace = Callable[[keras.layers.Layer], keras.layers.Layer]


@keras.saving.register_keras_serializable(package="app")
class WindowMask(keras.layers.Layer):
    """Window numbers int32 [batch, length] -> bool [batch, length, length], true within one window."""

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        return compare_windows(numbers)


def compare_windows(windows: tf.Tensor) -> tf.Tensor:
    """Int32 [batch, length] -> bool [batch, length, length], true where two pieces are in one window."""
    return tf.equal(tf.expand_dims(windows, 2), tf.expand_dims(windows, 1))


def compute_positions(windows: tf.Tensor) -> tf.Tensor:
    """How far each piece is from the first one of its window: int32 [batch, length]; for `windows` see below."""
    first = tf.argmax(tf.cast(compare_windows(windows), tf.int32), axis=-1, output_type=tf.int32)  # [batch, length]
    return tf.expand_dims(tf.range(tf.shape(windows)[1]), 0) - first


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


class Reading(NamedTuple):
    """What the layers of an MPNet take as a mask.

    Attributes:
        may_read: what those of a BERT take.
        bias: added to the attention scores, float [heads, length, length] with those that ask before those that are
            read, [batch, heads, asking, length] of chosen pieces; an attention layer picks its own heads.
    """

    may_read: Any
    bias: tf.Tensor

    def bias_of(self, attention: AttentionParts) -> tf.Tensor:
        """What is added to the scores [batch, heads, asking, length] of a layer."""
        heads = attention.bias_heads
        if heads == tuple(range(self.bias.shape[-3])):
            return self.bias
        return tf.gather(self.bias, heads, axis=-3)


class Arithmetic:
    """How the operations of the forward pass are computed: here, by the layers of the backbone themselves.

    A subclass overrides the operations that it computes in another way. Its `enter` may lay out hidden states otherwise
    than as [batch, length, width] if its operations of a layer agree to that.
    """

    def embed(
        self, model: BertBackbone, tokens: tf.Tensor, segments: tf.Tensor, windows: tf.Tensor, *, replace: Replace
    ) -> list[tf.Tensor]:
        """What is summed up to the input embeddings, float [batch, length, width] each; see `run_encoder`."""
        embedded = replace(model.token_embedding)(tokens)
        positions = WindowPositions(model.position_embedding, name="window_positions")(windows)
        return [embedded, positions, model.segment_embedding(segments)]

    def add(self, model: BertBackbone, parts: Sequence[tf.Tensor], added: tf.Tensor | None) -> tf.Tensor:
        """The sum of what `embed` gives and of what is added."""
        if added is None:
            return model.embeddings_add(list(parts))
        return keras.layers.Add(name="inputs_add")([*parts, added])

    def enter(self, model: BertBackbone, x: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        """Normalised input embeddings [batch, length, width] to the input of the first layer: here by dropout."""
        return self.drop(x, model.embeddings_dropout, training=training)

    def mask(self, windows: tf.Tensor) -> Any:
        """Window numbers to what `attend` takes as a mask: here bool [batch, length, length]."""
        return WindowMask(name="window_mask")(windows)

    def relate(self, bias: RelativeBias, windows: tf.Tensor) -> tf.Tensor:
        """What is added to attention scores, for `Reading`."""
        return bias(windows)

    def run(self, layer: keras.layers.Layer, x: tf.Tensor, mask: Any, *, training: bool | None) -> tf.Tensor:
        """A whole layer, or what replaces it: here a call of the Keras layer, which computes by `run_layer`."""
        return layer(x, attention_mask=mask, training=training)

    def attend(
        self,
        attention: keras.layers.MultiHeadAttention,
        asking: tf.Tensor,
        states: tf.Tensor,
        mask: Any,
        *,
        training: bool | None,
    ) -> tf.Tensor:
        """What the pieces that ask read in all states, laid out as `asking` is."""
        return attention(query=asking, value=states, attention_mask=mask, training=training)

    def project(
        self, askers: tf.Tensor, pieces: tf.Tensor, attention: AttentionParts, *, batch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Queries, divided by the square root of their width, keys and values: [batch, heads, asking or all, size]."""
        query = split_heads(self.product(askers, attention.query), attention, batch) / math.sqrt(attention.size)
        key, value = (
            split_heads(self.product(pieces, dense), attention, batch) for dense in (attention.key, attention.value)
        )
        return query, key, value

    def product(self, x: tf.Tensor, dense: keras.layers.Layer) -> tf.Tensor:
        """A projection of the attention: float [pieces, inputs] -> [pieces, outputs]."""
        outputs = count_outputs(dense)
        kernel, bias = tf.reshape(dense.kernel, [-1, outputs]), tf.reshape(dense.bias, [outputs])
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)

    def weigh(self, attention: AttentionParts, scores: tf.Tensor, mask: Any, *, training: bool | None) -> tf.Tensor:
        """Attention scores to attention weights, float [batch, heads, asking, length]."""
        if isinstance(mask, Reading):
            mask, scores = mask.may_read, scores + tf.cast(mask.bias_of(attention), scores.dtype)
        return attention.dropout(attention.masked_softmax(scores, mask), training=training)

    def expand(self, x: tf.Tensor, inner: keras.layers.Layer) -> tf.Tensor:
        """The wide dense layer with its activation."""
        return inner(x)

    def contract(self, x: tf.Tensor, outer: keras.layers.Layer) -> tf.Tensor:
        """The dense layer back to the width of the network."""
        return outer(x)

    def normalise(self, x: tf.Tensor, norm: keras.layers.Layer) -> tf.Tensor:
        """Layer normalisation over the last axis (Ba et al. 2016)."""
        return norm(x)

    def drop(self, x: tf.Tensor, dropout: keras.layers.Layer, *, training: bool | None) -> tf.Tensor:
        """Dropout."""
        return dropout(x, training=training)

    def choose(self, places: Any, windows: tf.Tensor) -> "Chosen":
        """Pieces for which alone a layer is to be computed: here int32 [chosen, 2] as row and piece, rows ascending."""
        return Chosen(places, tf.shape(windows)[0])


KERAS = Arithmetic()

# What follows is marked `do_not_convert`: nothing in it branches on a tensor, and translating it takes a third of a
# second a process.


class Chosen:
    """Pieces for which alone a layer is computed; the layer reads all pieces.

    Args:
        places: int32 [chosen, 2] as row and piece, rows ascending.
        rows: number of rows of the batch.
    """

    def __init__(self, places: tf.Tensor, rows: tf.Tensor) -> None:
        row = places[:, 0]
        by_row = tf.RaggedTensor.from_value_rowids(places[:, 1], row, nrows=rows, validate=False)
        self._pieces = by_row.to_tensor()  # [rows, most]; a row with fewer asks for its first piece again
        column = tf.range(tf.size(row)) - tf.gather(by_row.row_starts(), row)
        self._places, self._at = places, tf.stack([row, column], axis=1)

    def asking(self, values: tf.Tensor) -> tf.Tensor:
        """[rows, length, ...] -> [rows, most, ...]."""
        return tf.gather(values, self._pieces, batch_dims=1)

    def asking_mask(self, mask: Any) -> Any:
        """Of what `attend` takes as a mask, the rows of those that ask."""
        if not isinstance(mask, Reading):
            return self.asking(mask)
        by_head = tf.gather(mask.bias, self._pieces, axis=1)  # [heads, rows, most, length]
        return Reading(self.asking(mask.may_read), tf.transpose(by_head, [1, 0, 2, 3]))

    def pick(self, values: tf.Tensor) -> tf.Tensor:
        """[rows, most, width] -> [1, chosen, width]: as one row, without padding."""
        return tf.gather_nd(values, self._at)[tf.newaxis]

    def spread(self, states: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
        """The states of all pieces, with those of the chosen ones as `run_layer` gives them."""
        return tf.tensor_scatter_nd_update(states, self._places, moved[0])


@tf.autograph.experimental.do_not_convert
def run_encoder(
    model: BertBackbone,
    tokens: tf.Tensor,
    segments: tf.Tensor,
    windows: tf.Tensor,
    *,
    added: tf.Tensor | None = None,
    replace: Replace = lambda layer: layer,
    places: tf.Tensor | None = None,
    depth: int | None = None,
    arithmetic: Arithmetic = KERAS,
    training: bool | None = None,
) -> list[tf.Tensor]:
    """The hidden states of all layers of a backbone.

    Args:
        model: the backbone, whose weights are used.
        tokens: piece ids int32 [batch, length].
        segments: segment ids int32 [batch, length].
        windows: int32 [batch, length], 0 for padding and otherwise the number of the window a piece belongs to. A plain
            0/1 padding mask is the case of one window a row.
        added: float [batch, length, width], added to the input embeddings.
        replace: gives what is called in place of the word-piece embedding and of each transformer layer.
        places: int32 [chosen, 2] as row and piece, rows ascending: the last layer is computed for these pieces alone,
            and nothing replaces it.
        depth: number of layers to run; None = all.
        arithmetic: how operations are computed, see `Arithmetic`.
        training: whether anything is dropped; None leaves it to the Keras model that is made of the inputs.

    Returns:
        the input of the first layer and then the output of every layer, float [batch, length, width] each; with
        `places`, the last one float [chosen, width].
    """
    parts = arithmetic.embed(model, tokens, segments, windows, replace=replace)
    x = arithmetic.normalise(arithmetic.add(model, parts, added), model.embeddings_layer_norm)
    return run_layers(
        model,
        arithmetic.enter(model, x, training=training),
        windows,
        replace=replace,
        places=places,
        depth=depth,
        arithmetic=arithmetic,
        training=training,
    )


@tf.autograph.experimental.do_not_convert
def run_layers(
    model: BertBackbone,
    x: tf.Tensor,
    windows: tf.Tensor,
    *,
    begin: int = 0,
    replace: Replace = lambda layer: layer,
    only: Any = None,
    places: Any = None,
    depth: int | None = None,
    arithmetic: Arithmetic = KERAS,
    training: bool | None = None,
) -> list[tf.Tensor]:
    """The part of `run_encoder` above the embeddings, from any layer on.

    Args:
        model: the backbone.
        x: output of layer `begin`, or the input of the first layer; the rows of it may be fewer than there were.
        windows: int32 [batch, length], of these rows.
        begin: number of layers that have been run.
        replace: see `run_encoder`; so are `places`, `depth`, `arithmetic` and `training`.
        only: int32 [computed, 2] as row and piece, rows ascending, or what else `Arithmetic.choose` takes: these layers
            are computed for these pieces alone, and nothing replaces them. The others keep the states they have, in
            which they are still read ("halt and copy", Li et al. 2021, section 3.3).
        places: likewise; the last of these layers is computed for these pieces alone.
        depth: number of layers after which to stop, those before `begin` included; None = after all.
        arithmetic: how operations are computed.
        training: whether anything is dropped.

    Returns:
        `x` and the outputs of the layers that were run.
    """
    states = [x]
    mask = arithmetic.mask(windows)
    bias = relative_bias_of(model)
    if bias is not None:
        mask = Reading(mask, arithmetic.relate(bias, windows))
    layers = model.transformer_layers[begin:depth]
    going_on = None if only is None else arithmetic.choose(only, windows)
    for layer in layers if places is None else layers[:-1]:
        if going_on is None:
            states.append(arithmetic.run(replace(layer), states[-1], mask, training=training))
        else:
            moved = run_layer(layer, states[-1], mask, arithmetic=arithmetic, chosen=going_on, training=training)
            states.append(going_on.spread(states[-1], moved))
    if places is not None:
        chosen = arithmetic.choose(places, windows)
        last = run_layer(layers[-1], states[-1], mask, arithmetic=arithmetic, chosen=chosen, training=training)
        states.append(tf.reshape(last, [-1, last.shape[-1]]))
    return states


@tf.autograph.experimental.do_not_convert
def run_layer(
    layer: TransformerEncoder,
    x: tf.Tensor,
    mask: Any,
    *,
    arithmetic: Arithmetic = KERAS,
    chosen: Chosen | None = None,
    training: bool | None = None,
) -> tf.Tensor:
    """A transformer layer that normalises after each of its two sums, as BERT's do.

    Args:
        layer: whose weights are used.
        x: its input.
        mask: from `Arithmetic.mask`, in a `Reading` if the network is an MPNet.
        arithmetic: how operations are computed.
        chosen: the pieces for which it is computed; None = all.
        training: whether anything is dropped.

    Returns:
        its output, laid out as the input is; float [1, chosen, width] of chosen pieces.
    """
    parts = parts_of(layer)
    asking, may_read = (x, mask) if chosen is None else (chosen.asking(x), chosen.asking_mask(mask))
    read = arithmetic.attend(parts.attention, asking, x, may_read, training=training)
    total = asking + arithmetic.drop(read, parts.attention_dropout, training=training)
    x = arithmetic.normalise(total if chosen is None else chosen.pick(total), parts.attention_norm)
    narrow = arithmetic.contract(arithmetic.expand(x, parts.inner), parts.outer)
    return arithmetic.normalise(x + arithmetic.drop(narrow, parts.dropout, training=training), parts.norm)


@tf.autograph.experimental.do_not_convert
def attend(
    attention: AttentionParts,
    askers: tf.Tensor,
    pieces: tf.Tensor,
    mask: Any,
    *,
    batch: tf.Tensor,
    arithmetic: Arithmetic = KERAS,
    training: bool | None = None,
) -> tf.Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2) by plain matrix products.

    Args:
        attention: whose weights are used.
        askers: hidden states of those that ask, row after row, float [batch * asking, width] or whatever else
            `Arithmetic.product` takes.
        pieces: hidden states of all they may read, likewise; often the same tensor.
        mask: what `Arithmetic.weigh` takes.
        batch: number of rows, int32.
        arithmetic: how products and weights are computed.
        training: whether attention weights are dropped.

    Returns:
        float [batch * asking, width].
    """
    queries, keys, values = arithmetic.project(askers, pieces, attention, batch=batch)
    scores = tf.matmul(queries, keys, transpose_b=True)  # [batch, heads, asking, length]
    weights = arithmetic.weigh(attention, scores, mask, training=training)
    read = tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [-1, attention.width])
    return arithmetic.product(read, attention.output)


def split_heads(x: tf.Tensor, attention: AttentionParts, batch: tf.Tensor) -> tf.Tensor:
    """[batch * length, heads * size] -> [batch, heads, length, size]."""
    return tf.transpose(tf.reshape(x, [batch, -1, attention.heads, attention.size]), [0, 2, 1, 3])

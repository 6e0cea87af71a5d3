"""Tasks room: a backbone, the word-shape embedding and the head of a task assembled into one network."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from keras_nlp.layers import TransformerEncoder

from app.config import DataConfig, ModelConfig
from app.config.rules import check_row_length
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.bert import Backbone, find_depths
from app.encoder.forward import Replace, compute_positions, connect_encoder
from app.one_keras import keras
from app.tasks.task import Facts, Head, Task
from app.text.word_pieces import WordPieces


class SegmentIds(keras.layers.Layer):
    """Segment of each piece: 0 up to the first `[SEP]` of its window, 1 after it; for pairs of texts.

    Args:
        end_id: id of `[SEP]`.
    """

    def __init__(self, end_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.end_id = end_id

    def call(self, tokens: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] twice -> int32 [batch, length]."""
        return compute_segments(tokens, windows, self.end_id)


def compute_segments(tokens: tf.Tensor, windows: tf.Tensor, end_id: int) -> tf.Tensor:
    """See `SegmentIds`."""
    ends = tf.cumsum(tf.cast(tf.equal(tokens, end_id), tf.int32), axis=1, exclusive=True)  # before each piece
    first = tf.range(tf.shape(tokens)[1])[tf.newaxis] - compute_positions(windows)  # of each piece's window
    before = tf.gather(ends, first, batch_dims=1)
    return tf.minimum(ends - before, 1)


@dataclass(frozen=True)
class TaskModel:
    """A network for a task.

    Attributes:
        network: {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> logits float32 [batch, length, labels].
            `padding_mask` is 0 for padding and otherwise the number of the window a piece belongs to; pieces attend to
            their own window only. A plain 0/1 mask is the case of one window a row.
        encoder: the network below the head: the same inputs -> hidden states [batch, length, width].
        backbone: the pretrained encoder inside, which shares its weights with the network.
        head: of the task, inside.
        config: how it was assembled.
        task: what it is for.
        facts: what it has to know beside its labels.
    """

    network: keras.Model
    encoder: keras.Model
    backbone: Backbone
    head: Any
    config: ModelConfig
    task: Task
    facts: Facts = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def own_variables(self) -> dict[str, tf.Variable]:
        """Variables that are not the backbone's, by a short name."""
        backbone = {id(variable) for variable in self.backbone.model.variables}
        own = [v for v in self.network.trainable_variables if id(v) not in backbone]
        return {variable.name.split(":")[0]: variable for variable in own}

    def layer_depths(self) -> list[int]:
        """Depth of each trainable variable of the network, in its order; see `find_depths`."""
        return find_depths(self.backbone, self.network.trainable_variables)


def build_model(
    backbone: Backbone,
    config: ModelConfig,
    *,
    task: Task,
    labels: Sequence[str],
    shape_count: int,
    facts: Facts | None = None,
    freeze_embeddings: bool = False,
) -> TaskModel:
    """Assembles the network on the layers of a backbone.

    Args:
        backbone: from `build_backbone`.
        config: head and word shapes.
        task: what the network is for.
        labels: label names in id order.
        shape_count: number of word shapes.
        facts: what the model has to know beside its labels.
        freeze_embeddings: keep the word-piece embeddings as they are.
    """
    backbone.model.token_embedding.trainable = not freeze_embeddings
    shapes = None
    if config.word_shape:
        # Near zero, so that training starts from the published network.
        near_zero = keras.initializers.TruncatedNormal(stddev=0.002)
        shapes = keras.layers.Embedding(
            shape_count, backbone.model.hidden_dim, embeddings_initializer=near_zero, name="word_shape"
        )

    facts = facts or {}
    view = _connect(
        backbone,
        shapes,
        lambda: task.build_head(labels, config, facts),
        lambda layer: layer,
        segments=task.segments(facts),
    )
    return TaskModel(*view, config, task, facts)


def with_layers(tagger: TaskModel, replace: Replace) -> TaskModel:
    """A second network on the weights of a tagger, some layers of its encoder in another's place.

    Args:
        tagger: its own network stays as it is.
        replace: a transformer layer, or the word-piece embedding, to what stands in its place; the layer itself where
            nothing does. What it returns is called like the layer and shares the layer's weights.
    """
    names = {layer.name: layer for layer in tagger.network.layers}
    view = _connect(
        tagger.backbone,
        names.get("word_shape"),
        lambda: tagger.head,
        replace,
        segments=tagger.task.segments(tagger.facts),
    )
    return TaskModel(*view, tagger.config, tagger.task, tagger.facts)


@tf.autograph.experimental.do_not_convert
def _connect(
    backbone: Backbone,
    shapes: keras.layers.Layer | None,
    make_head: Callable[[], Head],
    replace: Replace,
    *,
    segments: bool,
) -> tuple[keras.Model, keras.Model, Backbone, Head]:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    added = shapes(inputs["shape_ids"]) if shapes else None
    segment_ids = tf.zeros_like(inputs["token_ids"])
    if segments:
        end_id = backbone.vocabulary.index("[SEP]")
        segment_ids = SegmentIds(end_id, name="segment_ids")(inputs["token_ids"], inputs["padding_mask"])
    states = connect_encoder(
        backbone.model, inputs["token_ids"], segment_ids, inputs["padding_mask"], added=added, replace=replace
    )
    head = make_head()
    network = keras.Model(inputs, head.connect(states[-1], inputs), name="tagger")
    return network, keras.Model(inputs, states[-1], name="encoder"), backbone, head


# The logits of chosen pieces alone, for whoever reads no others.
#
# Only the first piece of a word, and only in the window the word is scored in, becomes a tag: about half of the pieces
# of long texts. The last transformer layer need not compute what nobody reads; it still reads all pieces.


def build_word_network(tagger: TaskModel) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
    """A function that gives what the network of a tagger gives at some places, with its weights and without dropout.

    Returns:
        (features int32 [batch, length], places int32 [chosen, 2] as row and piece, rows ascending) ->
            logits float32 [chosen, labels].
    """
    last = tagger.backbone.model.transformer_layers[-1]

    def is_left_out(x: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        return x

    below = with_layers(tagger, lambda layer: is_left_out if layer is last else layer).encoder

    def compute_logits(features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        states = below(features, training=False)
        return tagger.head(_run_at(last, states, features["padding_mask"], places), training=False)

    return compute_logits


def _run_at(layer: TransformerEncoder, states: tf.Tensor, windows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Output of a layer that normalises after each block, as BERT's do, at some places: float32 [chosen, width].

    Args:
        layer: the layer.
        states: its input, float32 [batch, length, width].
        windows: int32 [batch, length], see `connect_encoder`.
        places: int32 [chosen, 2].
    """
    rows = places[:, 0]
    by_row = tf.RaggedTensor.from_value_rowids(places[:, 1], rows, nrows=tf.shape(states)[0], validate=False)
    pieces = by_row.to_tensor()  # [batch, most]; a row with fewer asks for its first piece again
    asking = tf.gather(states, pieces, batch_dims=1)
    may_read = tf.equal(tf.gather(windows, pieces, batch_dims=1)[:, :, tf.newaxis], windows[:, tf.newaxis, :])
    read = layer._self_attention_layer.call_for(asking, states, may_read)
    column = tf.range(tf.size(rows)) - tf.gather(by_row.row_starts(), rows)
    x = tf.gather_nd(asking + read, tf.stack([rows, column], axis=1))[tf.newaxis]  # as one row, without padding
    x = layer._self_attention_layer_norm(x)
    inner = layer._feedforward_intermediate_dense(x)
    return layer._feedforward_layer_norm(x + layer._feedforward_output_dense(inner))[0]


def build_encoder(model: TaskModel, data: DataConfig) -> Encoder:
    """What turns examples into the rows of a model: its vocabulary, its labels, its row length."""
    backbone = model.backbone
    check_row_length(data, positions=backbone.model.max_sequence_length)
    return model.task.build_encoder(
        WordPieces(backbone.vocabulary, lowercase=backbone.lowercase), model.labels, data, model.facts
    )

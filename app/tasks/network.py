"""Tasks room: a backbone, the word-shape embedding and a tagging head assembled into one network."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
from keras_nlp.layers import TransformerEncoder

from app.config import DataConfig, ModelConfig
from app.config.rules import check_row_length
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.bert import Backbone, find_depths
from app.encoder.forward import Replace, connect_encoder
from app.one_keras import keras
from app.tasks.tagging.head import TaggingHead
from app.text.shapes import word_shapes
from app.text.word_pieces import WordPieces


@dataclass(frozen=True)
class Tagger:
    """A network that tags words.

    Attributes:
        network: {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> logits float32 [batch, length, labels].
            `padding_mask` is 0 for padding and otherwise the number of the window a piece belongs to; pieces attend to
            their own window only. A plain 0/1 mask is the case of one window a row.
        encoder: the network below the head: the same inputs -> hidden states [batch, length, width].
        backbone: the pretrained encoder inside, which shares its weights with the network.
        head: the tagging head inside.
        config: how it was assembled.
        non_name_types: entity types that the training corpus has on dates, mail addresses and the like.
    """

    network: keras.Model
    encoder: keras.Model
    backbone: Backbone
    head: TaggingHead
    config: ModelConfig
    non_name_types: tuple[str, ...] = ()

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


def build_tagger(
    backbone: Backbone, config: ModelConfig, *, labels: Sequence[str], shape_count: int, freeze_embeddings: bool = False
) -> Tagger:
    """Assembles the network on the layers of a backbone.

    Args:
        backbone: from `build_backbone`.
        config: head and word shapes.
        labels: label names in id order, `O` first.
        shape_count: number of word shapes.
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

    def make_head() -> TaggingHead:
        return TaggingHead(labels, kind=config.head, dropout=config.head_dropout, name="tagging_head")

    return _connect(backbone, config, shapes, make_head, lambda layer: layer)


def with_layers(tagger: Tagger, replace: Replace) -> Tagger:
    """A second network on the weights of a tagger, some layers of its encoder in another's place.

    Args:
        tagger: its own network stays as it is.
        replace: a transformer layer, or the word-piece embedding, to what stands in its place; the layer itself where
            nothing does. What it returns is called like the layer and shares the layer's weights.
    """
    names = {layer.name: layer for layer in tagger.network.layers}
    view = _connect(tagger.backbone, tagger.config, names.get("word_shape"), lambda: tagger.head, replace)
    return dataclasses.replace(view, non_name_types=tagger.non_name_types)


@tf.autograph.experimental.do_not_convert
def _connect(
    backbone: Backbone,
    config: ModelConfig,
    shapes: keras.layers.Layer | None,
    make_head: Callable[[], TaggingHead],
    replace: Replace,
) -> Tagger:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    added = shapes(inputs["shape_ids"]) if shapes else None
    segments = tf.zeros_like(inputs["token_ids"])
    states = connect_encoder(
        backbone.model, inputs["token_ids"], segments, inputs["padding_mask"], added=added, replace=replace
    )
    head = make_head()
    network = keras.Model(inputs, head(states[-1]), name="tagger")
    return Tagger(network, keras.Model(inputs, states[-1], name="encoder"), backbone, head, config)


# The logits of chosen pieces alone, for whoever reads no others.
#
# Only the first piece of a word, and only in the window the word is scored in, becomes a tag: about half of the pieces
# of long texts. The last transformer layer need not compute what nobody reads; it still reads all pieces.


def build_word_network(tagger: Tagger) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
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


def build_encoder(tagger: Tagger, data: DataConfig) -> Encoder:
    """The encoder that belongs to a tagger: its vocabulary, its labels, its row length."""
    backbone = tagger.backbone
    check_row_length(data, positions=backbone.model.max_sequence_length)
    return Encoder(
        pieces=WordPieces(backbone.vocabulary, lowercase=backbone.lowercase),
        labels=tagger.labels,
        shapes=word_shapes,
        max_length=data.max_length,
        overlap=data.overlap_tokens,
        by_document=data.packing == "document",
    )

"""Tasks room: a backbone, the word-shape embedding and a tagging head assembled into one network."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from app.config import DataConfig, ModelConfig
from app.config.rules import check_row_length
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.bert import Backbone, find_depths
from app.encoder.forward import Replace, run_encoder
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
        shapes: the word-shape embedding inside; None if there is none.
        head: the tagging head inside.
        config: how it was assembled.
        non_name_types: entity types that the training corpus has on dates, mail addresses and the like.
    """

    network: keras.Model
    encoder: keras.Model
    backbone: Backbone
    shapes: keras.layers.Embedding | None
    head: TaggingHead
    config: ModelConfig
    non_name_types: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def own_variables(self) -> dict[str, tf.Variable]:
        """Variables that are not the backbone's, by their names in the file of a bundle."""
        shapes = {} if self.shapes is None else {"word_shape/embeddings": self.shapes.embeddings}
        return shapes | {f"tagging_head/{name}": variable for name, variable in self.head.own_variables().items()}

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

    return _assemble(backbone, config, shapes, make_head)


def with_layers(tagger: Tagger, replace: Replace) -> Tagger:
    """A second network on the weights of a tagger, some layers of its encoder in another's place.

    Args:
        tagger: its own network stays as it is.
        replace: a transformer layer, or the word-piece embedding, to what stands in its place; the layer itself where
            nothing does. What it returns is called like the layer and shares the layer's weights.
    """
    view = _assemble(tagger.backbone, tagger.config, tagger.shapes, lambda: tagger.head, replace)
    return dataclasses.replace(view, non_name_types=tagger.non_name_types)


def connect(
    backbone: Backbone, shapes: keras.layers.Layer | None, *, replace: Replace = lambda layer: layer
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """Keras inputs of a network and, on top of them, the hidden states of all layers, see `run_encoder`.

    Args:
        backbone: the encoder.
        shapes: the word-shape embedding.
        replace: see `with_layers`.
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    return inputs, _run(backbone, shapes, inputs, replace=replace)


def _run(
    backbone: Backbone, shapes: keras.layers.Layer | None, features: dict[str, tf.Tensor], **guise: Any
) -> list[tf.Tensor]:
    """Hidden states of rows; `guise` is for `run_encoder`."""
    added = None if shapes is None else shapes(features["shape_ids"])
    segments = tf.zeros_like(features["token_ids"])
    return run_encoder(
        backbone.model, features["token_ids"], segments, features["padding_mask"], added=added, **guise
    )


@tf.autograph.experimental.do_not_convert
def _assemble(
    backbone: Backbone,
    config: ModelConfig,
    shapes: keras.layers.Layer | None,
    make_head: Callable[[], TaggingHead],
    replace: Replace = lambda layer: layer,
) -> Tagger:
    inputs, states = connect(backbone, shapes, replace=replace)
    head = make_head()
    network = keras.Model(inputs, head(states[-1]), name="tagger")
    encoder = keras.Model(inputs, states[-1], name="encoder")
    return Tagger(network=network, encoder=encoder, backbone=backbone, shapes=shapes, head=head, config=config)


def build_word_network(tagger: Tagger) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
    """A function that gives what the network of a tagger gives at some places, with its weights and without dropout.

    Only the first piece of a word, and only in the window the word is scored in, becomes a tag: about half of the
    pieces of long texts. The last transformer layer need not compute what nobody reads; it still reads all pieces.

    Returns:
        (features int32 [batch, length], places int32 [chosen, 2] as row and piece, rows ascending) ->
            logits float32 [chosen, labels].
    """

    def compute_logits(features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        states = _run(tagger.backbone, tagger.shapes, features, places=places, training=False)
        return tagger.head(states[-1], training=False)

    return compute_logits


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

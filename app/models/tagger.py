"""Models room: a backbone, the word-shape embedding and a tagging head assembled into one network."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from app.config import ModelConfig
from app.models.bert import Backbone
from app.models.encoder import Replace, connect_encoder
from app.models.heads import TaggingHead
from app.one_keras import keras

INPUT_NAMES = ("token_ids", "shape_ids", "padding_mask")


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

    def layer_depths(self) -> dict[str, int]:
        """Depth of every trainable variable by name: 0 embeddings, 1.. transformer layers, one more for the head."""
        layers = {layer.name: number for number, layer in enumerate(self.backbone.model.transformer_layers, start=1)}
        top = len(layers) + 1
        own = {self.head.name: top, "word_shape": top}  # new layers learn at the full rate
        return {v.name: {**layers, **own}.get(v.name.split("/")[0], 0) for v in self.network.trainable_variables}


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
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
    added = shapes(inputs["shape_ids"]) if shapes else None
    segments = tf.zeros_like(inputs["token_ids"])
    states = connect_encoder(
        backbone.model, inputs["token_ids"], segments, inputs["padding_mask"], added=added, replace=replace
    )
    head = make_head()
    network = keras.Model(inputs, head(states[-1]), name="tagger")
    return Tagger(network, keras.Model(inputs, states[-1], name="encoder"), backbone, head, config)

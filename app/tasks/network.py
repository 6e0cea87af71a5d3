"""Tasks room: a backbone, the word-shape embedding and the head of a task assembled into one network."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from app.config import DataConfig, ModelConfig
from app.config.rules import check_exits, check_row_length
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.bert import Backbone, find_depths
from app.encoder.forward import Replace, compute_positions, run_encoder
from app.one_keras import keras
from app.tasks.head import Exit, Head
from app.tasks.task import Facts, Task
from app.text.word_pieces import WordPieces

PLACES_ROUNDED_TO = 32
LOGITS = "logits"  # of the last head, among several outputs


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
        whole: what is trained: the network, and with exits the same with their logits, {"logits", "exit_N": float32
            [batch, length, labels]}; its variables are all that there are.
        encoder: the network below the head: the same inputs -> hidden states [batch, length, width].
        backbone: the pretrained encoder inside, which shares its weights with the network.
        shapes: the word-shape embedding inside; None if there is none.
        head: of the task, inside.
        exits: heads after inner layers, in rising order.
        config: how it was assembled.
        task: what it is for.
        facts: what it has to know beside its labels.
    """

    network: keras.Model
    whole: keras.Model
    encoder: keras.Model
    backbone: Backbone
    shapes: keras.layers.Embedding | None
    head: Any
    config: ModelConfig
    task: Task
    facts: Facts = dataclasses.field(default_factory=dict)
    exits: tuple[Exit, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def own_variables(self) -> dict[str, tf.Variable]:
        """Variables that are not the backbone's, by their names in the file of a bundle."""
        shapes = {} if self.shapes is None else {"word_shape/embeddings": self.shapes.embeddings}
        found = shapes | {f"{self.head.name}/{name}": value for name, value in self.head.own_variables().items()}
        for each in self.exits:
            found |= {f"{each.name}/{name}": variable for name, variable in each.head.own_variables().items()}
        return found

    def layer_depths(self) -> list[int]:
        """Depth of each trainable variable of the whole network, in its order; see `find_depths`."""
        return find_depths(self.backbone, self.whole.trainable_variables)


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

    Raises:
        InputError: an exit that is not below the last layer.
    """
    check_exits(config.exit_layers, layers=len(backbone.model.transformer_layers))
    backbone.model.token_embedding.trainable = not freeze_embeddings
    shapes = None
    if config.word_shape:
        # Near zero, so that training starts from the published network.
        near_zero = keras.initializers.TruncatedNormal(stddev=0.002)
        shapes = keras.layers.Embedding(
            shape_count, backbone.model.hidden_dim, embeddings_initializer=near_zero, name="word_shape"
        )

    facts = facts or {}

    def make_head(name: str) -> Head:
        head = task.build_head(labels, config, facts)
        if name:
            head._name = name  # a Keras model has no two layers of one name, and a task names its heads itself
        return head

    return _assemble(backbone, config, shapes, make_head, task=task, facts=facts)


def with_layers(tagger: TaskModel, replace: Replace) -> TaskModel:
    """A second network on the weights of a tagger, some layers of its encoder in another's place.

    Args:
        tagger: its own network stays as it is.
        replace: a transformer layer, or the word-piece embedding, to what stands in its place; the layer itself where
            nothing does. What it returns is called like the layer and shares the layer's weights.
    """
    return _assemble(
        tagger.backbone,
        tagger.config,
        tagger.shapes,
        lambda name: {each.name: each.head for each in tagger.exits}.get(name, tagger.head),
        replace,
        task=tagger.task,
        facts=tagger.facts,
    )


def connect(
    backbone: Backbone,
    shapes: keras.layers.Layer | None,
    *,
    replace: Replace = lambda layer: layer,
    segments: bool = False,
    depth: int | None = None,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """Keras inputs of a network and, on top of them, the hidden states of all layers, see `run_encoder`.

    Args:
        backbone: the encoder.
        shapes: the word-shape embedding.
        replace: see `with_layers`.
        segments: whether pieces after the first `[SEP]` of a window are in segment 1, see `Task.segments`.
        depth: number of layers; None = all.
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    return inputs, _run(backbone, shapes, inputs, segments=segments, replace=replace, depth=depth)


def _run_model(model: TaskModel, features: Mapping[str, tf.Tensor], **guise: Any) -> list[tf.Tensor]:
    """Hidden states of rows by the layers of a model; `guise` is what `run_encoder` takes beside them."""
    segments = model.task.segments(model.facts)
    return _run(model.backbone, model.shapes, features, segments=segments, **guise)


def _run(
    backbone: Backbone,
    shapes: keras.layers.Layer | None,
    features: Mapping[str, tf.Tensor],
    *,
    segments: bool,
    **guise: Any,
) -> list[tf.Tensor]:
    """Hidden states of rows; `guise` is for `run_encoder`."""
    added = None if shapes is None else shapes(features["shape_ids"])
    tokens, windows = features["token_ids"], features["padding_mask"]
    segment_ids = tf.zeros_like(tokens)
    if segments:
        segment_ids = SegmentIds(backbone.boundary_ids[1], name="segment_ids")(tokens, windows)
    return run_encoder(backbone.model, tokens, segment_ids, windows, added=added, **guise)


@tf.autograph.experimental.do_not_convert
def _assemble(
    backbone: Backbone,
    config: ModelConfig,
    shapes: keras.layers.Layer | None,
    make_head: Callable[[str], Head],
    replace: Replace = lambda layer: layer,
    *,
    task: Task,
    facts: Facts,
) -> TaskModel:
    inputs, states = connect(backbone, shapes, replace=replace, segments=task.segments(facts))
    head = make_head("")
    network = keras.Model(inputs, head.connect(states[-1], inputs), name="tagger")
    encoder = keras.Model(inputs, states[-1], name="encoder")
    whole, exits = network, tuple(Exit(layer, make_head(f"exit_{layer}")) for layer in config.exit_layers)
    if exits:
        outputs = {LOGITS: network.output}
        for each in exits:
            each.head.share(head)
            outputs[each.name] = each.head.connect(states[each.layer], inputs)
        whole = keras.Model(inputs, outputs, name="tagger_with_exits")
    return TaskModel(
        network=network,
        whole=whole,
        exits=exits,
        encoder=encoder,
        backbone=backbone,
        shapes=shapes,
        head=head,
        config=config,
        task=task,
        facts=facts,
    )


def build_word_network(tagger: TaskModel) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
    """A function that gives what the network of a tagger gives at some places, with its weights and without dropout.

    Only the first piece of a word, and only in the window the word is scored in, becomes a tag: about half of the
    pieces of long texts. The last transformer layer need not compute what nobody reads; it still reads all pieces.

    Returns:
        (features int32 [batch, length], places int32 [chosen, 2] as row and piece, rows ascending) ->
            logits float32 [chosen, labels].
    """

    def compute_logits(features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        if tagger.head.pools:  # a logit needs the last hidden states of other pieces too
            return tf.gather_nd(tagger.network(features, training=False), places)
        states = _run_model(tagger, features, places=places, training=False)
        return tagger.head(states[-1], training=False)

    return compute_logits


def build_label_network(model: TaskModel) -> Callable[[dict[str, tf.Tensor], tf.Tensor], Any] | None:
    """A function that gives what the whole network gives in training where labels are, and zeros elsewhere.

    Of a text of many pieces one is labelled: the last layer is computed for it alone, a sixth of the work of MiniLM.
    None where that is not worth it (labels at words), or where a logit needs other pieces too (mean pooling).

    Returns:
        (features int32 [batch, length], labels int32 [batch, length]) -> logits float32 [batch, length, labels], or
        with exits those of each, by name.
    """
    if model.head.pools or model.task.labels_words:
        return None

    def compute_logits(features: dict[str, tf.Tensor], labels: tf.Tensor) -> Any:
        places = tf.cast(tf.where(labels >= 0), tf.int32)
        count = tf.shape(places)[0]
        # Compiled activations are compiled anew for each shape: the last place is repeated, so that there are few.
        repeated = tf.tile(places[-1:], [-count % PLACES_ROUNDED_TO, 1])
        chosen = tf.concat([places, repeated], axis=0)
        states = _run_model(model, features, places=chosen, training=True)

        def spread(logits: tf.Tensor) -> tf.Tensor:
            found = logits[:count]  # [places, labels]
            return tf.scatter_nd(places, found, tf.concat([tf.shape(labels), tf.shape(found)[1:]], axis=0))

        logits = spread(model.head(states[-1], training=True))
        if not model.exits:
            return logits
        inner = {each.name: each.head(tf.gather_nd(states[each.layer], chosen), training=True) for each in model.exits}
        return {LOGITS: logits, **{name: spread(found) for name, found in inner.items()}}

    return compute_logits


def build_encoder(model: TaskModel, data: DataConfig) -> Encoder:
    """What turns examples into the rows of a model: its vocabulary, its labels, its row length."""
    backbone = model.backbone
    check_row_length(data, positions=backbone.model.max_sequence_length)
    return model.task.build_encoder(
        WordPieces(backbone.vocabulary, lowercase=backbone.lowercase), model.labels, data, model.facts
    )

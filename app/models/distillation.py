"""Models room: what distillation looks at in a network, and students cut out of their teacher."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from app.config import InputError
from app.models.bert import Backbone, make_bert_backbone, read_settings
from app.models.encoder import connect_encoder
from app.models.tagger import INPUT_NAMES, Tagger
from app.one_keras import keras

LOGITS = "logits"


def hidden_name(layer: int) -> str:
    """The output of a view that holds the hidden states of a layer, counted from 0."""
    return f"hidden_{layer}"


class AttentionVectors(keras.layers.Layer):
    """Queries, keys and values of a self-attention layer, its heads side by side.

    Args:
        attention: the layer; its weights are shared.
        kinds: any of "query", "key", "value".
    """

    def __init__(self, attention: keras.layers.MultiHeadAttention, kinds: Sequence[str], *, name: str) -> None:
        super().__init__(name=name)
        self._attention = attention
        self._kinds = tuple(kinds)

    def call(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Input of the attention layer [batch, length, width] -> {kind: [batch, length, heads * size]}."""
        found = {}
        for kind in self._kinds:
            vectors = getattr(self._attention, f"_{kind}_dense")(inputs)  # [batch, length, heads, size]
            batch, length = tf.unstack(tf.shape(vectors)[:2])
            found[kind] = tf.reshape(vectors, [batch, length, vectors.shape[2] * vectors.shape[3]])
        return found


def attention_width(tagger: Tagger, layer: int) -> int:
    """Width of the queries, keys and values of a layer, all heads together."""
    attention = tagger.backbone.model.transformer_layers[layer]._self_attention_layer
    return attention._num_heads * attention._key_dim


def build_view(
    tagger: Tagger,
    *,
    hidden_layers: Sequence[int] = (),
    projected_width: int = 0,
    relation_layer: int = 0,
    relations: Sequence[str] = (),
) -> keras.Model:
    """The network of a tagger with more outputs; all layers are the tagger's own.

    Args:
        tagger: stays as it is.
        hidden_layers: layers whose output is shown, counted from 0.
        projected_width: if it is not 0 and not the tagger's width, hidden states pass a new dense layer to this width.
        relation_layer: the layer whose self-attention is shown.
        relations: any of "query", "key", "value".

    Returns:
        {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> {logits: float32 [batch, length, labels],
        hidden_N: float [batch, length, width], query, key, value: float [batch, length, heads * size]}.
    """
    model = tagger.backbone.model
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
    added = tagger.network.get_layer("word_shape")(inputs["shape_ids"]) if tagger.config.word_shape else None
    segments = tf.zeros_like(inputs["token_ids"])
    states = connect_encoder(model, inputs["token_ids"], segments, inputs["padding_mask"], added=added)
    outputs = {LOGITS: tagger.head(states[-1])}
    for layer in hidden_layers:
        state = states[layer + 1]
        if projected_width and projected_width != model.hidden_dim:
            normal = keras.initializers.TruncatedNormal(stddev=model.hidden_dim**-0.5)
            state = keras.layers.Dense(projected_width, kernel_initializer=normal, name=f"projection_{layer}")(state)
        outputs[hidden_name(layer)] = state
    if relations:
        attention = model.transformer_layers[relation_layer]._self_attention_layer
        vectors = AttentionVectors(attention, relations, name="attention_vectors")
        outputs |= vectors(states[relation_layer])
    return keras.Model(inputs, outputs, name="view")


def build_from_layers(
    teacher: Backbone, layers: Sequence[int], *, dropout: float, attention_dropout: float
) -> Backbone:
    """An encoder of some of the layers of another, with copies of their weights and of the embeddings.

    Raises:
        InputError: the layers do not exist, or are not in rising order.
    """
    count = len(teacher.model.transformer_layers)
    if not layers or list(layers) != sorted(set(layers)) or layers[-1] >= count:
        raise InputError(
            f"distill.student_layers must name layers of {teacher.source}, 0 to {count - 1} in rising order, "
            f"received {list(layers)}"
        )
    settings = dataclasses.replace(
        read_settings(teacher.model), num_layers=len(layers), dropout=dropout, attention_dropout=attention_dropout
    )
    model = make_bert_backbone(settings)
    for name in ("token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm", "pooled_dense"):
        getattr(model, name).set_weights(getattr(teacher.model, name).get_weights())
    for new, number in zip(model.transformer_layers, layers, strict=True):
        new.set_weights(teacher.model.transformer_layers[number].get_weights())
    return dataclasses.replace(teacher, model=model)


def copy_head(teacher: Tagger, student: Tagger) -> None:
    """Copies word shapes, head and transition scores where both taggers have them in the same shape."""
    theirs = teacher.own_variables()
    for name, variable in student.own_variables().items():
        if name in theirs and theirs[name].shape == variable.shape:
            variable.assign(theirs[name])


def map_pieces(student: Backbone, teacher: Backbone) -> np.ndarray | None:
    """The teacher's id of each piece of the student, int32 [student's pieces]; None if they are the same.

    Raises:
        InputError: the student has a piece that the teacher does not know, or only one of them is uncased.
    """
    if student.lowercase != teacher.lowercase:
        cased = {True: "uncased", False: "cased"}
        raise InputError(
            f"distill.teachers: the vocabulary of {teacher.source} is {cased[teacher.lowercase]}, the student's is "
            f"{cased[student.lowercase]}; both must read the same word pieces"
        )
    if student.vocabulary == teacher.vocabulary:
        return None
    ids = {piece: number for number, piece in enumerate(teacher.vocabulary)}
    missing = [piece for piece in student.vocabulary if piece not in ids]
    if missing:
        raise InputError(
            f"distill.teachers: {teacher.source} has another vocabulary: it lacks {len(missing):,} of the student's "
            f"{len(student.vocabulary):,} word pieces, such as {missing[0]!r}; it must know them all"
        )
    return np.array([ids[piece] for piece in student.vocabulary], np.int32)

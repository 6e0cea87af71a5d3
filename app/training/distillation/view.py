"""Training room: what is looked at in a network: hidden states and the vectors of self-attention."""

from collections.abc import Sequence

import tensorflow as tf

from app.encoder.parts import attention_parts_of, parts_of
from app.one_keras import keras
from app.tasks.network import LOGITS, TaskModel, connect


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
            vectors = getattr(attention_parts_of(self._attention), kind)(inputs)  # [batch, length, heads, size]
            batch, length = tf.unstack(tf.shape(vectors)[:2])
            found[kind] = tf.reshape(vectors, [batch, length, vectors.shape[2] * vectors.shape[3]])
        return found


def attention_width(tagger: TaskModel, layer: int) -> int:
    """Width of the queries, keys and values of a layer, all heads together."""
    return parts_of(tagger.backbone.model.transformer_layers[layer]).attention_parts.width


def build_view(
    tagger: TaskModel,
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
        exit_N: likewise, hidden_N: float [batch, length, width], query, key, value: float [batch, length, heads *
        size]}.
    """
    model = tagger.backbone.model
    inputs, states = connect(tagger.backbone, tagger.shapes, segments=tagger.task.segments(tagger.facts))
    outputs = {LOGITS: tagger.head.connect(states[-1], inputs)}
    outputs |= {each.name: each.head.connect(states[each.layer], inputs) for each in tagger.exits}
    for layer in hidden_layers:
        state = states[layer + 1]
        if projected_width and projected_width != model.hidden_dim:
            normal = keras.initializers.TruncatedNormal(stddev=model.hidden_dim**-0.5)
            state = keras.layers.Dense(projected_width, kernel_initializer=normal, name=f"projection_{layer}")(state)
        outputs[hidden_name(layer)] = state
    if relations:
        attention = parts_of(model.transformer_layers[relation_layer]).attention
        vectors = AttentionVectors(attention, relations, name="attention_vectors")
        outputs |= vectors(states[relation_layer])
    return keras.Model(inputs, outputs, name="view")

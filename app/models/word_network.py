"""Models room: the logits of chosen pieces alone, for whoever reads no others.

Only the first piece of a word, and only in the window the word is scored in, becomes a tag: about half of the pieces of
long texts. The last transformer layer need not compute what nobody reads; it still reads all pieces.
"""

from collections.abc import Callable

import tensorflow as tf
from keras_nlp.layers import TransformerEncoder

from app.models.tagger import Tagger, with_layers


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

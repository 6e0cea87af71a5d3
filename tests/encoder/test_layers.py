"""Self-attention by matrix products computes what Keras' own layer computes."""

import numpy as np
import pytest
import tensorflow as tf

from app.encoder.bert import BertSettings, make_bert_backbone
from app.encoder.layers import SelfAttention, use_matrix_products
from app.one_keras import keras

BATCH, LENGTH, HEADS, SIZE = 2, 7, 3, 4
WIDTH = HEADS * SIZE


@pytest.fixture
def layers():
    """Keras' layer and ours with the same weights, biases included."""
    random = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    made = []
    for _ in range(2):
        layer = keras.layers.MultiHeadAttention(HEADS, SIZE, dropout=0.3)
        layer(tf.zeros([1, 2, WIDTH]), tf.zeros([1, 2, WIDTH]))
        made.append(layer)
    theirs, ours = made
    theirs.set_weights([random.normal(0, 0.5, weight.shape) for weight in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    use_matrix_products(ours)
    assert type(theirs) is keras.layers.MultiHeadAttention and type(ours) is SelfAttention
    return theirs, ours


@pytest.fixture
def hidden():
    return tf.constant(np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)), tf.float32)


def masks():
    windows = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    yield None
    yield windows[:, :, None] == windows[:, None, :]
    yield (windows > 0)[:, None, :]


@pytest.mark.parametrize("mask", masks(), ids=["no mask", "window mask", "padding mask"])
def test_output_and_every_gradient_equal_those_of_keras(layers, hidden, mask):
    found = []
    for layer in layers:
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            output = layer(hidden, hidden, attention_mask=mask)
            loss = tf.reduce_sum(output * tf.cos(output))
        found.append([output, *tape.gradient(loss, [hidden, *layer.trainable_variables])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_some_pieces_may_ask_alone(layers, hidden):
    theirs, ours = layers
    mask = list(masks())[1]
    some = ours(hidden[:, 1:4], hidden, attention_mask=mask[:, 1:4])
    np.testing.assert_allclose(some, theirs(hidden[:, 1:4], hidden, attention_mask=mask[:, 1:4]), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(some, ours(hidden, hidden, attention_mask=mask)[:, 1:4], rtol=1e-4, atol=2e-5)


def test_attention_is_dropped_in_training_only(layers, hidden):
    ours = layers[1]
    assert np.array_equal(ours(hidden, hidden), ours(hidden, hidden, training=False))
    assert not np.allclose(ours(hidden, hidden), ours(hidden, hidden, training=True))


def test_the_variables_of_a_backbone_keep_their_names_and_no_einsum_is_left_in_its_graph():
    settings = BertSettings(vocabulary_size=9, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12)
    model = make_bert_backbone(settings)
    assert "transformer_layer_0/self_attention_layer/query/kernel:0" in {v.name for v in model.variables}
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in ("token_ids", "segment_ids", "padding_mask")}
    graph = tf.function(lambda batch: model(batch)["sequence_output"]).get_concrete_function(spec).graph
    assert "Einsum" not in {operation.type for operation in graph.get_operations()}


def test_half_precision_masks_without_overflow(layers, hidden):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = keras.layers.MultiHeadAttention(HEADS, SIZE)
        half = tf.cast(hidden, tf.float16)
        layer(half, half)
        layer.set_weights(layers[0].get_weights())
        use_matrix_products(layer)
        output = layer(half, half, attention_mask=list(masks())[1])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert output.dtype == tf.float16 and np.isfinite(output).all()

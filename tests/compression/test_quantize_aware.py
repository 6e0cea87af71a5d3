from functools import partial

import numpy as np
import pytest
import tensorflow as tf
import toy

from app.compression.quantize_aware import fake_quantize, quantized, round_weights
from app.one_keras import keras
from app.tasks.network import with_layers


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def precision(request):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy(before)


def features_of(batch):
    return {name: batch[name] for name in ("token_ids", "shape_ids", "padding_mask")}


def test_values_are_rounded_to_multiples_of_the_scale_of_their_channel():
    values = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    found = fake_quantize(tf.constant(values), [0]).numpy()
    scale = np.abs(values).max(axis=0) / 127
    assert np.abs(found / scale - np.round(found / scale)).max() < 1e-3
    assert np.abs(found - values).max() <= scale.max() / 2 + 1e-6
    again = fake_quantize(tf.constant(found), [0]).numpy()
    np.testing.assert_allclose(again, found, rtol=0, atol=1e-6)
    assert not fake_quantize(tf.zeros([3, 3]), [0]).numpy().any()


def test_rounding_has_the_gradient_of_the_identity():
    values = tf.constant([[0.3, -1.2], [0.77, 0.1]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(fake_quantize(values, [0]) * [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(tape.gradient(total, values), [[1.0, 2.0], [3.0, 4.0]])


def test_values_of_16_bits_are_rounded_as_exactly_as_they_can_say():
    values = tf.cast(np.random.default_rng(0).normal(size=(64, 256)), tf.bfloat16)
    found = fake_quantize(values, [1])
    assert found.dtype == tf.bfloat16
    exact = values.numpy().astype(np.float32)
    scale = np.abs(exact).max(axis=1, keepdims=True) / 127
    levels = np.round(exact / scale) * scale
    np.testing.assert_array_equal(found.numpy(), tf.cast(levels, tf.bfloat16).numpy())


def test_a_table_is_rounded_before_its_rows_become_16_bits(vocabulary, precision):
    embedding = toy.make_tagger(vocabulary).backbone.model.token_embedding
    ids = tf.range(len(toy.PIECES))
    found = quantized(embedding)(ids)
    assert found.dtype == embedding.compute_dtype
    expected = tf.cast(fake_quantize(embedding.embeddings, [1]), found.dtype)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_the_plain_network_on_rounded_weights_computes_what_was_trained(vocabulary, precision):
    tagger = toy.make_tagger(vocabulary, num_layers=2)
    batch = features_of(toy.make_batch(tagger))
    simulated = with_layers(tagger, partial(quantized, inputs=False)).network
    before = tagger.network(batch).numpy()
    through_rounding = simulated(batch).numpy()
    assert np.abs(before - through_rounding).max() > 1e-4
    round_weights(tagger.backbone.model)
    np.testing.assert_allclose(tagger.network(batch).numpy(), through_rounding, rtol=0, atol=2e-5)


def test_the_simulation_shares_the_weights_and_trains_all_of_them(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    view = with_layers(tagger, quantized)
    assert {id(v) for v in view.network.trainable_variables} == {id(v) for v in tagger.network.trainable_variables}
    depths = [
        dict(zip(map(id, each.network.trainable_variables), each.layer_depths(), strict=True))
        for each in (view, tagger)
    ]
    assert depths[0] == depths[1]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(view.network(features_of(toy.make_batch(tagger)), training=True)))
    gradients = tape.gradient(loss, view.network.trainable_variables)
    assert all(gradient is not None for gradient in gradients)

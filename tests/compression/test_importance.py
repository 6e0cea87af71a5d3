import numpy as np
import tensorflow as tf
import toy

from app.compression.importance import measure_importance
from app.encoder.parts import parts_of


def test_importance_is_the_change_of_the_loss_to_first_order(vocabulary):
    tagger = toy.make_tagger(vocabulary, num_layers=2)
    batch = toy.make_batch(tagger)

    def loss(features):
        logits = tagger.network({name: features[name] for name in ("token_ids", "shape_ids", "padding_mask")})
        return tagger.head.compute_loss(logits, features["labels"], features["token_ids"] == 2) / 100.0

    layers = tagger.backbone.model.transformer_layers
    found = measure_importance(layers, [batch], loss)
    assert [len(layer.heads) for layer in found] == [2, 2] and [len(layer.columns) for layer in found] == [32, 32]

    kernel = parts_of(layers[1]).outer.kernel
    before, whole, step = kernel.numpy(), float(loss(batch)), 1e-2
    for column in (0, 5, 31):
        gated = before.copy()
        gated[column] *= 1 - step
        kernel.assign(gated)
        change = (whole - float(loss(batch))) / step
        kernel.assign(before)
        np.testing.assert_allclose(found[1].columns[column], abs(change), rtol=0.1, atol=1e-4)


def test_importances_are_means_over_the_batches(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    batches = [toy.make_batch(tagger, seed=seed) for seed in (1, 2)]

    def loss(features):
        logits = tagger.network({name: features[name] for name in ("token_ids", "shape_ids", "padding_mask")})
        return tf.reduce_mean(tf.square(logits))

    layers = tagger.backbone.model.transformer_layers
    both = measure_importance(layers, batches, loss)[0]
    each = [measure_importance(layers, [batch], loss)[0] for batch in batches]
    np.testing.assert_allclose(both.columns, (each[0].columns + each[1].columns) / 2, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(both.heads, (each[0].heads + each[1].heads) / 2, rtol=1e-4, atol=1e-8)

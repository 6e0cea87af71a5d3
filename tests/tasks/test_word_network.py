"""The network that computes the last layer for some pieces only says what the whole network says at them."""

import numpy as np
import pytest
import tensorflow as tf
from toy import PIECES, make_classifier, make_tagger

from app.config import ModelConfig
from app.encoder.parts import parts_of
from app.encoder.slimming import KeptLayer, cut_layers
from app.tasks.network import build_label_network, build_model, build_word_network
from app.text.shapes import NUM_SHAPES


def make_features(lengths: list[int], *, longest: int) -> dict[str, tf.Tensor]:
    """Rows of random pieces; windows 1 and 2 share a row from its fifth piece on."""
    rng = np.random.default_rng(0)
    shape = (len(lengths), longest)
    at = np.arange(longest)
    windows = np.where(at < np.array(lengths)[:, None], 1 + (at >= 4), 0)
    return {
        "token_ids": tf.constant(rng.integers(5, len(PIECES), shape), tf.int32),
        "shape_ids": tf.constant(rng.integers(1, NUM_SHAPES, shape), tf.int32),
        "padding_mask": tf.constant(windows, tf.int32),
    }


@pytest.fixture(scope="module", params=["crf", "softmax", "slim"])
def tagger(request, vocabulary):
    head = "softmax" if request.param == "softmax" else "crf"
    whole = make_tagger(vocabulary, num_layers=2, num_heads=2, model=ModelConfig(head=head))
    if request.param != "slim":
        return whole
    cut = cut_layers(whole.backbone, [KeptLayer(0, (0, 1), (0, 2, 5)), KeptLayer(1, (1,), (1, 3))])
    return build_model(cut, whole.config, task=whole.task, labels=whole.labels, shape_count=NUM_SHAPES)


@pytest.mark.parametrize(
    "places",
    [[(0, 1), (0, 3), (1, 2), (1, 5), (1, 8), (2, 1)], [(0, 5)], [(2, 2), (2, 1)], []],
    ids=["every row", "one", "one row, not in order", "none"],
)
def test_logits_are_those_of_the_whole_network(tagger, places):
    features = make_features([7, 9, 3], longest=9)
    chosen = tf.constant(places, tf.int32, shape=[len(places), 2])
    run = tf.function(build_word_network(tagger))
    whole = tagger.network(features, training=False)
    np.testing.assert_allclose(run(features, chosen), tf.gather_nd(whole, chosen), rtol=1e-4, atol=1e-5)


def test_it_follows_the_weights_of_the_tagger(vocabulary):
    tagger = make_tagger(vocabulary, num_layers=2)
    features, place = make_features([6], longest=6), tf.constant([[0, 2]])
    compute = build_word_network(tagger)
    before = compute(features, place).numpy()
    kernel = parts_of(tagger.backbone.model.transformer_layers[-1]).outer.kernel
    kernel.assign_add(tf.random.stateless_normal(kernel.shape, seed=(1, 2)))
    after = compute(features, place).numpy()
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after[0], tagger.network(features, training=False)[0, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labelled", [[(0, 0), (1, 0), (1, 4)], []], ids=["some", "none"])
def test_in_training_the_last_layer_of_a_classifier_is_computed_for_labelled_pieces_alone(vocabulary, labelled):
    model = make_classifier(vocabulary, pooling="cls")  # nothing is dropped
    features = make_features([4, 9], longest=9)
    labels = np.full((2, 9), -1, np.int32)
    for place in labelled:
        labels[place] = 1
    compute = tf.function(build_label_network(model))
    with tf.GradientTape(persistent=True) as tape:
        few = compute(features, tf.constant(labels))
        whole = model.network(features, training=True) * tf.cast(labels >= 0, tf.float32)[:, :, tf.newaxis]
        losses = [tf.reduce_sum(tf.sin(each)) for each in (few, whole)]
    assert few.shape == whole.shape
    np.testing.assert_allclose(few, whole, rtol=1e-4, atol=1e-5)
    variables = model.network.trainable_variables
    for one, other in zip(*(tape.gradient(loss, variables) for loss in losses), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(one), tf.convert_to_tensor(other), rtol=1e-3, atol=1e-5)


def test_taggers_and_means_need_the_last_layer_of_more_pieces(vocabulary):
    assert build_label_network(make_tagger(vocabulary)) is None
    assert build_label_network(make_classifier(vocabulary, pooling="mean")) is None

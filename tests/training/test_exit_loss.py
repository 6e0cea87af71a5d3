"""What exits learn: the labels and the last head, each exit the more the deeper it stands."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, make_batch, make_classifier, make_tagger

from app.config import InputError, ModelConfig
from app.one_keras import keras
from app.tasks.network import LOGITS, build_label_network
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds

PLAIN = replace(TRAINING, clip_norm=0.0)


@pytest.fixture(scope="module", params=["softmax", "crf"])
def tagger(request, vocabulary):
    settings = ModelConfig(head=request.param, head_dropout=0.0, exit_layers=(1, 2))
    return make_tagger(vocabulary, model=settings, num_layers=3)


def parts_of(tagger, batch, **settings):
    loss = ExitLoss.of(tagger, replace(PLAIN, **settings))
    outputs = tagger.whole({name: batch[name] for name in batch if name != "labels"})
    boundaries = (batch["token_ids"] == 2) | (batch["token_ids"] == 3)
    return loss.compute(outputs, batch["labels"], batch["labels"] >= 0, boundaries), outputs, boundaries


def test_the_loss_is_that_of_each_head_weighted_by_its_depth(tagger):
    batch = make_batch(tagger)
    (by_labels, by_last), outputs, boundaries = parts_of(tagger, batch, exit_loss_weight=0.6)
    alone = [each.head.compute_loss(outputs[each.name], batch["labels"], boundaries) for each in tagger.exits]
    assert float(by_labels) == pytest.approx(0.2 * float(alone[0]) + 0.4 * float(alone[1]), rel=1e-5)
    assert float(by_last) > 0
    (_, nothing), _, _ = parts_of(tagger, batch, exit_distillation_weight=0.0)
    assert float(nothing) == 0


def test_an_exit_that_says_what_the_last_head_says_has_nothing_to_learn_from_it(tagger):
    batch = make_batch(tagger)
    _, outputs, boundaries = parts_of(tagger, batch)
    head, taught = tagger.exits[0].head, outputs[LOGITS]
    same = head.compute_divergence(tagger.head, taught, taught, batch["labels"] >= 0, boundaries)
    other = head.compute_divergence(tagger.head, taught, outputs["exit_1"], batch["labels"] >= 0, boundaries)
    assert abs(float(same)) < 1e-3 < float(other)


def test_no_gradient_of_the_divergence_reaches_the_last_head(tagger):
    batch = make_batch(tagger)
    with tf.GradientTape() as tape:
        (_, by_last), _, _ = parts_of(tagger, batch)
    kernel, exit_kernel = tagger.own_variables()["tagging_head/kernel"], tagger.own_variables()["exit_2/kernel"]
    found = tape.gradient(by_last, [kernel, exit_kernel], unconnected_gradients="zero")
    assert not np.any(found[0].numpy()) and np.any(found[1].numpy())


def test_a_step_moves_every_head_and_the_weights_of_all_are_counted_once(tagger):
    special, before = SpecialIds(2, 3, 4), {name: v.numpy() for name, v in tagger.own_variables().items()}
    tuner = FineTuner(
        tagger.whole, tagger.head.compute_loss, special=special, config=PLAIN, seed=0, exits=ExitLoss.of(tagger, PLAIN)
    )
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.1), run_eagerly=True)
    tuner.train_step(make_batch(tagger))
    names = [variable.name for variable in tagger.whole.trainable_variables]
    assert sum(name.startswith(("exit_", "tagging_head")) for name in names) == len(before) - 1  # word shapes beside
    for name, value in before.items():
        assert np.any(tagger.own_variables()[name].numpy() != value), name
        tagger.own_variables()[name].assign(value)


def test_without_exits_nothing_is_added(vocabulary):
    plain = make_tagger(vocabulary, num_layers=3)
    assert plain.whole is plain.network and ExitLoss.of(plain, PLAIN) is None


@pytest.mark.parametrize("layers", [(3,), (1, 3), (4,)])
def test_an_exit_that_is_not_below_the_last_layer_is_an_input_error(vocabulary, layers):
    with pytest.raises(InputError, match=r"model\.exit_layers must name inner layers .* has 3, .* 1 to 2; received"):
        make_tagger(vocabulary, model=ModelConfig(exit_layers=layers), num_layers=3)


def test_logits_at_labels_alone_are_those_of_the_whole_network(vocabulary):
    model = make_classifier(vocabulary, pooling="cls", exit_layers=(1,), num_layers=2)
    rng = np.random.default_rng(0)
    features = {name: tf.constant(rng.integers(1, 9, (5, 12)), tf.int32) for name in ("token_ids", "shape_ids")}
    features["padding_mask"] = tf.ones([5, 12], tf.int32)
    labels = tf.constant(np.where(np.arange(12) == 0, 1, -1) * np.ones((5, 1), int), tf.int32)
    found, whole = build_label_network(model)(features, labels), model.whole(features)
    for name in (LOGITS, "exit_1"):
        np.testing.assert_allclose(found[name][:, 0], whole[name][:, 0], rtol=1e-4, atol=1e-5)

"""Training with words that have left at exits: the network computes what it computes in prediction."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, make_batch, make_classifier, make_tagger

from app.config import ModelConfig
from app.data.packing import FEATURES
from app.one_keras import keras
from app.tasks.exits import EarlyNetwork
from app.tasks.network import LOGITS, with_layers
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.halting import HIGHEST, LOWEST, HaltingNetwork

PLAIN = replace(TRAINING, clip_norm=0.0, exit_halting_fraction=0.5)


@pytest.fixture(scope="module", params=["softmax", "crf"])
def tagger(request, vocabulary):
    settings = ModelConfig(head=request.param, head_dropout=0.0, exit_layers=(1, 2))
    return make_tagger(vocabulary, model=settings, num_layers=4, dropout=0.0)


def rows_of(tagger):
    """Rows of one window each, what is asked for in them, and their boundaries."""
    batch = make_batch(tagger)
    features = {name: batch[name] for name in FEATURES}
    features["padding_mask"] = tf.cast(batch["padding_mask"] > 0, tf.int32)
    boundaries = (batch["token_ids"] == 2) | (batch["token_ids"] == 3)
    return features, batch["labels"] >= 0, boundaries


def doubts_of(tagger):
    features, units, boundaries = rows_of(tagger)
    outputs = tagger.whole(features)
    return tagger.exits[0].head.measure_doubts(outputs["exit_1"], units, boundaries).numpy()[units.numpy()]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 1.0])
def test_halted_rows_are_what_prediction_makes_of_them(tagger, part):
    features, units, boundaries = rows_of(tagger)
    doubts = doubts_of(tagger)
    threshold = 0.0 if part == 0 else float(np.quantile(doubts, part)) + (2.0 if part == 1 else 0.0)
    thresholds = tf.fill([len(units), 1], np.float32(threshold))
    outputs = HaltingNetwork.of(tagger, PLAIN).run(features, units, boundaries, thresholds)
    early = EarlyNetwork(tagger, threshold, by_unit=True)
    logits, layers, _ = early.answer_rows(features, units)
    chosen = units.numpy()
    assert len(set(layers.numpy()[chosen])) > 1 or part in (0, 1)
    np.testing.assert_allclose(outputs[LOGITS].numpy()[chosen], logits.numpy()[chosen], rtol=1e-3, atol=1e-4)


def test_rows_that_are_not_halted_are_those_of_the_whole_network(tagger):
    features, units, boundaries = rows_of(tagger)
    halted = np.float32(np.median(doubts_of(tagger)))
    thresholds = tf.constant([[0.0], [halted]] * (len(units) // 2), tf.float32)
    found, whole = HaltingNetwork.of(tagger, PLAIN).run(features, units, boundaries, thresholds), tagger.whole(features)
    assert set(found) == set(whole)
    chosen = units.numpy()[::2]
    for name, value in whole.items():
        np.testing.assert_allclose(found[name][::2][chosen], value[::2][chosen], rtol=1e-3, atol=1e-4)
    assert np.abs(found[LOGITS] - whole[LOGITS])[1::2][units.numpy()[1::2]].max() > 1e-3


def test_a_part_of_the_rows_is_halted_at_thresholds_of_every_size(tagger):
    rng = np.random.default_rng(0)
    drawn = HaltingNetwork(tagger, 0.25).draw_thresholds(
        tf.constant(4000), lambda shape: tf.constant(rng.random(shape.numpy()), tf.float32)
    )
    halted = drawn.numpy()[drawn.numpy() > 0]
    assert len(halted) / 4000 == pytest.approx(0.25, abs=0.03)
    assert LOWEST <= halted.min() < 1.05 * LOWEST and 0.95 * HIGHEST < halted.max() <= HIGHEST


def test_a_step_reaches_every_weight(tagger):
    halting, before = HaltingNetwork(tagger, 1.0), [variable.numpy() for variable in tagger.whole.trainable_variables]
    tuner = FineTuner(
        tagger.whole,
        tagger.head.compute_loss,
        special=SpecialIds(2, 3, 4),
        config=PLAIN,
        seed=0,
        exits=ExitLoss.of(tagger, PLAIN),
        halting=halting,
    )
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.1))
    batch = make_batch(tagger)
    loss = tuner.train_step(batch)
    assert np.isfinite([float(value) for value in loss.values()]).all()
    still = [
        variable.name
        for variable, value in zip(tagger.whole.trainable_variables, before, strict=True)
        if not np.any(variable.numpy() != value) and "/key/bias" not in variable.name  # moves no softmax
    ]
    for variable, value in zip(tagger.whole.trainable_variables, before, strict=True):
        variable.assign(value)
    assert still == []


def test_nothing_is_halted_where_nothing_leaves_alone_or_layers_are_replaced(tagger, vocabulary):
    assert HaltingNetwork.of(tagger, replace(PLAIN, exit_halting_fraction=0.0)) is None
    assert HaltingNetwork.of(make_tagger(vocabulary, num_layers=2), PLAIN) is None
    assert HaltingNetwork.of(make_classifier(vocabulary, exit_layers=(1,), num_layers=2), PLAIN) is None

    class Other(keras.layers.Layer):
        def __init__(self, layer):
            super().__init__(name=f"other_{layer.name}")
            self.layer = layer

        def call(self, x, attention_mask=None):
            return self.layer(x, attention_mask=attention_mask)

    layers = tagger.backbone.model.transformer_layers
    other = with_layers(tagger, lambda layer: Other(layer) if layer in layers else layer)
    assert HaltingNetwork.of(other, PLAIN) is None

import dataclasses

import numpy as np
import tensorflow as tf
import toy

from app.encoder.parts import parts_of
from app.training.step import KeptStructure


def train(tagger, *, keep, steps: int = 4) -> None:
    settings = dataclasses.replace(toy.TRAINING, average_weights_decay=0.5)
    tuner = toy.make_tuner(tagger, settings)
    tuner._keep = keep
    depths = tagger.layer_depths()
    tuner.compile(optimizer=tuner.make_optimizer(settings, total_steps=10, depths=depths, precision="float32"))
    data = tf.data.Dataset.from_tensors(toy.make_batch(tagger)).repeat(steps)
    tuner.fit(data, verbose=0)


def kernel_of(tagger):
    return parts_of(tagger.backbone.model.transformer_layers[0]).outer.kernel


def test_pruned_weights_stay_0_and_the_others_learn(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    kernel = kernel_of(tagger)
    values = np.where(np.abs(kernel.numpy()) < 0.07, 0, kernel.numpy())
    kernel.assign(values)
    train(tagger, keep=KeptStructure.of(tagger.network.trainable_variables))
    assert np.array_equal(kernel.numpy() == 0, values == 0)
    assert (kernel.numpy() != values)[values != 0].mean() > 0.9


def test_without_it_they_do_not_stay(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    kernel = kernel_of(tagger)
    kernel.assign(np.where(np.abs(kernel.numpy()) < 0.07, 0, kernel.numpy()))
    train(tagger, keep=None)
    assert (kernel.numpy() == 0).mean() < 0.1


def test_weights_that_share_a_value_go_on_sharing_it(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    kernel = kernel_of(tagger)
    values = np.round(kernel.numpy() * 20) / 20
    kernel.assign(values)
    _, before = np.unique(values, return_inverse=True)
    train(tagger, keep=KeptStructure.of(tagger.network.trainable_variables))
    distinct, after = np.unique(kernel.numpy(), return_inverse=True)
    assert len(distinct) == len(np.unique(values))
    for number in range(len(distinct)):
        assert len(np.unique(before[after == number])) == 1
    assert not np.isin(distinct, values).all()


def test_a_network_as_trained_has_no_structure_to_keep(vocabulary):
    assert KeptStructure.find(toy.make_tagger(vocabulary).network.trainable_variables) is None

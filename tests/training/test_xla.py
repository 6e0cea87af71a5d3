"""The training steps compile with XLA at static shapes, as a TPU demands, and give the loss of the plain step."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import LENGTH, PIECES, TRAINING, make_batch, make_tagger, make_tuner

from app.config import ModelConfig
from app.one_keras import keras
from app.tasks.masked_lm.network import build_masked_lm
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import MaskedLmTuner

CONFIG = replace(TRAINING, accumulation_steps=2)


def losses_of(tuner, batch) -> tuple[float, float]:
    """Loss of the first step, plain and compiled; both begin at the same weights."""
    tuner.compile(optimizer=keras.optimizers.AdamW(1e-3))
    tuner.optimizer.build(tuner.network.trainable_variables)
    before = [variable.numpy() for variable in tuner.network.variables]
    found = []
    for jit_compile in (False, True):
        for variable, value in zip(tuner.network.variables, before, strict=True):
            variable.assign(value)
        specs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batch.items()}
        step = tf.function(tuner.train_step, input_signature=[specs], jit_compile=jit_compile)
        found.append(float(step(batch)["step_loss"]))
        moved = [variable.numpy() for variable in tuner.network.variables]
        assert any((one != other).any() for one, other in zip(moved, before, strict=True))
    return found[0], found[1]


def test_the_fine_tuning_step_compiles_and_gives_the_same_loss(vocabulary):
    """Of a CRF, the hard part; a whole run with softmax is compiled in test_fit.py."""
    tagger = make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0))
    plain, compiled = losses_of(make_tuner(tagger, CONFIG), make_batch(tagger))
    assert plain > 0 and compiled == pytest.approx(plain, rel=1e-4)


def test_the_masked_language_model_step_compiles_and_gives_the_same_loss(vocabulary):
    tagger = make_tagger(vocabulary)
    network, _ = build_masked_lm(tagger)
    rng = np.random.default_rng(0)
    batch = {name: value for name, value in make_batch(tagger).items() if name != "labels"}
    hidden = (4, 5)
    batch |= {
        "positions": tf.constant(rng.integers(1, LENGTH // 2, hidden), tf.int32),
        "targets": tf.constant(rng.integers(5, len(PIECES), hidden), tf.int32),
        "weights": tf.ones(hidden),
    }
    tuner = MaskedLmTuner(network, special=SpecialIds(start=2, end=3, mask=4), config=CONFIG, seed=0)
    plain, compiled = losses_of(tuner, batch)
    assert plain > 0 and compiled == pytest.approx(plain, rel=1e-4)

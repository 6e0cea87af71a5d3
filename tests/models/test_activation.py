"""The compiled GELU is the exact one, forwards and backwards."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from app.models.activation import compile_activations, compiled_gelu
from app.models.bert import BertSettings, make_bert_backbone, read_settings

X = np.linspace(-6, 6, 601)


def test_value_and_slope_are_those_of_the_formula_in_float64():
    x = tf.constant(X, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = compiled_gelu(x)
    distribution = 0.5 * (1 + erf(X / np.sqrt(2)))
    np.testing.assert_allclose(y, X * distribution, atol=2e-6)
    slope = distribution + X * np.exp(-X * X / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(tape.gradient(y, x), slope, atol=2e-6)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_a_backbone_computes_the_same_with_it_and_its_settings_stay(activation):
    settings = BertSettings(
        vocabulary_size=9, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12, activation=activation
    )
    model = make_bert_backbone(settings)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    batch = {"token_ids": np.arange(8)[None], "segment_ids": np.zeros((1, 8)), "padding_mask": np.ones((1, 8))}
    before = model(batch)["sequence_output"].numpy()
    compile_activations(model)
    compiled = [layer._feedforward_intermediate_dense.activation is compiled_gelu for layer in model.transformer_layers]
    assert all(compiled) is (activation == "gelu")
    np.testing.assert_allclose(model(batch)["sequence_output"], before, atol=1e-5)
    assert read_settings(model) == settings

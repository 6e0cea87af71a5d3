"""The compiled GELU is the exact one, forwards and backwards."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from app.config import InputError
from app.encoder import activation as room
from app.encoder.activation import compile_activations, compiled_gelu
from app.encoder.bert import BertSettings, make_bert_backbone, read_settings
from app.encoder.parts import parts_of

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
    compiled = [parts_of(layer).inner.activation is compiled_gelu for layer in model.transformer_layers]
    assert all(compiled) is (activation == "gelu")
    np.testing.assert_allclose(model(batch)["sequence_output"], before, atol=1e-5)
    assert read_settings(model) == settings


def make_model():
    settings = BertSettings(vocabulary_size=9, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12)
    return make_bert_backbone(settings)


def compiled_layers(model) -> int:
    return sum(parts_of(layer).inner.activation is compiled_gelu for layer in model.transformer_layers)


@pytest.mark.parametrize(("setting", "layers"), [("auto", 2), ("true", 2), ("false", 0)])
def test_xla_is_in_the_graph_only_if_it_may_be(setting, layers):
    model = make_model()
    compile_activations(model, setting)
    assert compiled_layers(model) == layers
    specs = {name: tf.TensorSpec([1, 4], tf.int32) for name in ("token_ids", "segment_ids", "padding_mask")}
    graph = tf.function(model, autograph=False).get_concrete_function(specs).graph.as_graph_def()
    assert ("_XlaMustCompile" in str(graph)) is bool(layers)


@pytest.fixture
def refusing_xla(monkeypatch):
    """XLA refuses an operation on strings, in the same way as one for which it has no compiler."""

    @tf.function(jit_compile=True, autograph=False)
    def gelu(x: tf.Tensor) -> tf.Tensor:
        return x * tf.strings.to_number(tf.strings.as_string(x))

    monkeypatch.setattr(room, "_gelu", gelu)


def test_where_xla_cannot_compile_activations_stay_as_they_are_and_that_is_said(refusing_xla, capsys):
    model = make_model()
    compile_activations(model, "auto")
    assert compiled_layers(model) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("XLA cannot compile here, so activations are computed without it: ")


def test_where_xla_must_compile_and_cannot_it_is_bad_input(refusing_xla):
    with pytest.raises(InputError, match=r"training.compile_activations is true, but XLA cannot compile here: \S"):
        compile_activations(make_model(), "true")

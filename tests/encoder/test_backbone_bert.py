import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from app.encoder.backbone import BertSettings, apply_settings, make_bert_backbone, read_settings
from app.encoder.parts import parts_of
from app.one_keras import keras

SETTINGS = BertSettings(
    vocabulary_size=9, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12, max_positions=10
)
BATCH = {
    "token_ids": np.arange(8)[None],
    "segment_ids": np.zeros((1, 8), np.int32),
    "padding_mask": np.ones((1, 8), np.int32),
}


def hidden_states(model, *, training: bool = False) -> np.ndarray:
    return model(BATCH, training=training)["sequence_output"].numpy()


def make_lively(settings: BertSettings):
    """Weights large enough for attention and activations to matter."""
    model = make_bert_backbone(settings)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("dropout", "attention_dropout", "random"),
    [(0.0, 0.0, False), (0.0, 0.5, True), (0.5, 0.0, True), (0.5, 0.5, True)],
)
def test_each_dropout_takes_effect_in_training_only(dropout, attention_dropout, random):
    model = make_lively(dataclasses.replace(SETTINGS, dropout=dropout, attention_dropout=attention_dropout))
    assert np.array_equal(hidden_states(model), hidden_states(model))
    assert np.allclose(hidden_states(model, training=True), hidden_states(model), atol=1e-6) is not random


def test_attention_dropout_takes_effect_in_a_compiled_graph_at_its_own_rate():
    model = make_lively(dataclasses.replace(SETTINGS, dropout=0.0, attention_dropout=0.4))
    compiled = tf.function(lambda batch: model(batch, training=True)["sequence_output"])
    batch = {name: tf.constant(values, tf.int32) for name, values in BATCH.items()}
    assert np.abs(compiled(batch) - compiled(batch)).max() > 1e-4
    for layer in model.transformer_layers:
        dropped = parts_of(layer).attention_parts.dropout(tf.ones((100, 100)), training=True)
        assert np.mean(dropped.numpy() == 0) == pytest.approx(0.4, abs=0.03)
        assert parts_of(layer).attention_dropout.rate == parts_of(layer).dropout.rate == 0.0


def test_settings_are_read_back_as_given():
    settings = dataclasses.replace(
        SETTINGS, activation="gelu_tanh", layer_norm_epsilon=1e-5, dropout=0.2, attention_dropout=0.3
    )
    assert read_settings(make_bert_backbone(settings)) == settings


def test_a_backbone_rebuilt_from_its_config_needs_and_takes_the_settings_again():
    settings = dataclasses.replace(SETTINGS, layer_norm_epsilon=1e-3)
    model = make_lively(settings)
    rebuilt = type(model).from_config(model.get_config())
    rebuilt.set_weights(model.get_weights())
    assert np.abs(hidden_states(rebuilt) - hidden_states(model)).max() > 1e-4
    apply_settings(rebuilt, settings)
    assert np.abs(hidden_states(rebuilt) - hidden_states(model)).max() < 1e-6
    assert read_settings(rebuilt) == settings


def test_a_cloned_layer_keeps_activation_and_epsilon():
    layer = make_bert_backbone(dataclasses.replace(SETTINGS, layer_norm_epsilon=1e-5)).transformer_layers[0]
    copy = type(layer).from_config(layer.get_config())
    assert copy.activation is keras.activations.gelu and copy.layer_norm_epsilon == 1e-5

"""The one forward pass in each of its guises gives the hidden states of KerasNLP's own network."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from keras_nlp.models import BertBackbone

from app.compression.quantize_aware import quantized, round_weights
from app.encoder.bert import BertSettings, make_bert_backbone
from app.encoder.forward import Arithmetic, run_encoder, run_layer
from app.encoder.parts import attention_parts_of
from app.export.graph import UNREAD, ConstantArithmetic, make_float_lookup
from app.one_keras import keras

SETTINGS = BertSettings(
    vocabulary_size=11, num_layers=2, num_heads=3, hidden_dim=6, intermediate_dim=8, max_positions=16,
    activation="gelu_tanh", dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
LENGTHS = (7, 4, 1)
PLACES = tf.constant([(0, 0), (0, 6), (1, 3), (2, 0)], tf.int32)
WINDOWS = tf.sequence_mask(LENGTHS, dtype=tf.int32)
REAL = WINDOWS.numpy() > 0
TOKENS = tf.constant(np.random.default_rng(1).integers(0, 11, WINDOWS.shape), tf.int32)
SEGMENTS = tf.zeros_like(TOKENS)


def fill(model):
    """Weights that differ from place to place, biases included; int8 can say them, so that rounding changes nothing."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        centre = 1.0 if "gamma" in variable.name else 0.0
        variable.assign(centre + 0.5 * rng.normal(size=variable.shape))
    round_weights(model)


@pytest.fixture(scope="module")
def model():
    made = make_bert_backbone(SETTINGS)
    fill(made)
    return made


@pytest.fixture(scope="module")
def expected(model):
    """Hidden states of KerasNLP's own layers, as its own network connects them: float32 [3, rows, length, width]."""
    theirs = BertBackbone(
        vocabulary_size=11, num_layers=2, num_heads=3, hidden_dim=6, intermediate_dim=8, max_sequence_length=16,
        dropout=0.0,
    )  # fmt: skip
    theirs.set_weights(model.get_weights())
    assert "app." not in type(theirs.transformer_layers[0]).__module__
    layers = [theirs.embeddings_dropout, *theirs.transformer_layers]
    shown = keras.Model(theirs.input, [layer.output for layer in layers])
    found = shown({"token_ids": TOKENS, "segment_ids": SEGMENTS, "padding_mask": WINDOWS})
    return [states.numpy() for states in found]


def on_keras_inputs(model, **guise):
    inputs = [keras.Input((None,), dtype="int32") for _ in range(3)]
    return keras.Model(inputs, run_encoder(model, *inputs, **guise))([TOKENS, SEGMENTS, WINDOWS])


def on_tensors(model, **guise):
    return run_encoder(model, TOKENS, SEGMENTS, WINDOWS, training=False, **guise)


def in_a_graph(model, **guise):
    return tf.function(lambda: run_encoder(model, TOKENS, SEGMENTS, WINDOWS, training=False, **guise))()


def constants(model, **settings):
    positions = model.position_embedding.position_embeddings + model.segment_embedding.embeddings[:1]
    lookups = {"tokens": make_float_lookup(model.token_embedding.embeddings.numpy(), block=1)}
    lookups["positions"] = make_float_lookup(positions.numpy(), block=1)
    return ConstantArithmetic(**lookups, unread=UNREAD, **settings)


class OtherAttention(Arithmetic):
    """Attention by the formula, in sums over axes."""

    def attend(self, attention, asking, states, mask, *, training):
        def project(dense):
            return tf.einsum("bld,dhs->bhls", states, dense.kernel) + dense.bias[:, tf.newaxis]

        *projections, output = attention_parts_of(attention).projections
        queries, keys, values = map(project, projections)
        scores = tf.einsum("bhqs,bhks->bhqk", queries, keys) / 2**0.5
        weights = tf.nn.softmax(tf.where(mask[:, tf.newaxis], scores, -np.inf))
        return tf.einsum("bhqk,bhks,hsd->bqd", weights, values, output.kernel) + output.bias

    def run(self, layer, x, mask, *, training):
        return run_layer(layer, x, mask, arithmetic=self, training=training)


GUISES = {
    "Keras inputs": lambda model: on_keras_inputs(model),
    "tensors": lambda model: on_tensors(model),
    "a graph": lambda model: in_a_graph(model),
    "another attention": lambda model: on_tensors(model, arithmetic=OtherAttention()),
    "layers in another's place": lambda model: on_keras_inputs(
        model, replace=lambda layer: quantized(layer, inputs=False)
    ),
    "nothing added": lambda model: on_tensors(model, added=tf.zeros([*TOKENS.shape, 6])),
    "constants": lambda model: in_a_graph(model, arithmetic=constants(model, multiple=1)),
    "constants in blocks": lambda model: in_a_graph(model, arithmetic=constants(model, multiple=32)),
    "dropout of nothing": lambda model: run_encoder(model, TOKENS, SEGMENTS, WINDOWS, training=True),
}


@pytest.mark.parametrize("guise", GUISES)
def test_all_hidden_states_are_those_of_keras_nlp(model, expected, guise):
    found = GUISES[guise](model)
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(tf.reshape(ours, theirs.shape).numpy()[REAL], theirs[REAL], rtol=0, atol=2e-5)


@pytest.mark.parametrize("run", [on_tensors, in_a_graph])
def test_the_last_layer_at_chosen_pieces(model, expected, run):
    below, middle, last = run(model, places=PLACES)
    np.testing.assert_allclose(below.numpy()[REAL], expected[0][REAL], rtol=0, atol=2e-5)
    np.testing.assert_allclose(middle.numpy()[REAL], expected[1][REAL], rtol=0, atol=2e-5)
    np.testing.assert_allclose(last, tf.gather_nd(expected[2], PLACES), rtol=0, atol=2e-5)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_layers_above_a_depth_are_left_out(model, expected, depth):
    found = on_tensors(model, depth=depth)
    assert len(found) == depth + 1
    np.testing.assert_allclose(found[-1].numpy()[REAL], expected[depth][REAL], rtol=0, atol=2e-5)


def test_what_is_added_and_what_is_rounded_is_felt(model, expected):
    for guise in ({"added": tf.ones([*TOKENS.shape, 6]) * tf.range(6.0)}, {"replace": quantized}):
        found = on_keras_inputs(model, **guise) if "replace" in guise else on_tensors(model, **guise)
        assert np.abs(found[-1].numpy() - expected[-1])[REAL].max() > 1e-4


def test_windows_of_a_row_are_read_as_rows_of_their_own(model, expected):
    joined = tf.constant([[*TOKENS[1, :4].numpy(), *TOKENS[0].numpy()]])
    windows = tf.constant([[5] * 4 + [2] * 7])
    for arithmetic in (Arithmetic(), constants(model, multiple=1)):
        found = run_encoder(model, joined, tf.zeros_like(joined), windows, arithmetic=arithmetic, training=False)
        last = tf.reshape(found[-1], [11, 6])
        np.testing.assert_allclose(last[:4], expected[-1][1, :4], rtol=0, atol=2e-5)
        np.testing.assert_allclose(last[4:], expected[-1][0], rtol=0, atol=2e-5)


def test_attention_is_dropped_in_training_alone():
    dropping = make_bert_backbone(dataclasses.replace(SETTINGS, dropout=0.4, attention_dropout=0.4))
    fill(dropping)
    for training in (True, False):
        once, again = (run_encoder(dropping, TOKENS, SEGMENTS, WINDOWS, training=training) for _ in range(2))
        same = [np.array_equal(a, b) for a, b in zip(once, again, strict=True)]
        assert same == [not training] * 3

"""The masked-language-model objective: what is asked for, what it is divided by, and that it is learnt."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, backbone_config, make_encoder, make_sentences, make_tagger, write_vocabulary

from app.data.dataset import store_in_memory
from app.encoder.backbone import build_backbone
from app.one_keras import keras
from app.tasks.masked_lm.masking import PieceMasker, with_masks
from app.tasks.masked_lm.network import build_masked_lm, build_pretrainer
from app.text.word_pieces import WordPieces
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import MaskedLmTuner, build_masked_scorer

FRACTION = 0.25


@pytest.fixture
def parts(tmp_path):
    return make_parts(write_vocabulary(tmp_path), TRAINING)


def make_parts(vocabulary, config):
    tagger = make_tagger(vocabulary)
    encoder = make_encoder(tagger)
    network, depths = build_masked_lm(tagger)
    tuner = MaskedLmTuner(network, special=SpecialIds.of(encoder.pieces), config=config, seed=0)
    tuner.compile(optimizer=tuner.make_optimizer(config, total_steps=100, depths=depths, precision="float32"))
    rows = store_in_memory(encoder.training_rows(make_sentences(40)))
    masker = PieceMasker.build(encoder.pieces, fraction=FRACTION)
    batches = with_masks(rows.make_dataset(batch_size=4, seed=0, epochs=40), masker, seed=0, first_step=0)
    return tagger, tuner, batches


def test_training_lowers_the_loss_and_moves_the_encoder_of_the_tagger(parts):
    tagger, tuner, batches = parts
    before = tagger.backbone.model.token_embedding.embeddings.numpy()
    losses = tuner.fit(batches, steps_per_epoch=10, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.2
    assert not np.array_equal(before, tagger.backbone.model.token_embedding.embeddings.numpy())


def test_losses_and_weights_do_not_depend_on_the_parts_a_batch_is_computed_in(tmp_path):
    config = replace(TRAINING, learning_rate=2e-3, epsilon=1e-3)  # at which rounding decides about no step
    vocabulary = write_vocabulary(tmp_path)
    results = []
    for count in (1, 2):
        keras.utils.set_random_seed(3)  # the head begins at random
        _, tuner, batches = make_parts(vocabulary, replace(config, accumulation_steps=count))
        losses = tuner.fit(batches, steps_per_epoch=3, epochs=3, verbose=0).history["loss"]
        results.append((losses, [variable.numpy() for variable in tuner.network.variables]))
    (whole, weights), (parted, other_weights) = results
    np.testing.assert_allclose(parted, whole, atol=1e-5)
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_scores_agree_with_a_count_by_hand(parts):
    _, tuner, batches = parts
    some = list(batches.take(3))
    right = count = loss = 0.0
    for batch in some:
        logits = tuner.network({name: batch[name] for name in tuner.network.input_names})["masked_lm_logits"].numpy()
        asked = batch["weights"].numpy() > 0
        targets = batch["targets"].numpy()
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        chances = np.take_along_axis(chances / chances.sum(-1, keepdims=True), targets[..., None], -1)[..., 0]
        right += (logits.argmax(-1) == targets)[asked].sum()
        loss -= np.log(chances[asked]).sum()
        count += asked.sum()
    found = build_masked_scorer(tuner.network)(batches.take(3))
    assert found["masked_accuracy"] == pytest.approx(right / count)
    assert found["loss"] == pytest.approx(loss / count, rel=1e-4)
    assert found["perplexity"] == pytest.approx(np.exp(loss / count), rel=1e-4)


def test_the_head_shares_the_input_embeddings(parts):
    tagger, tuner, _ = parts
    embeddings = tagger.backbone.model.token_embedding.embeddings
    same_size = [v for v in tuner.network.trainable_variables if v.shape == embeddings.shape]
    assert [v is embeddings for v in same_size] == [True]
    assert tuner.network.output_shape["masked_lm_logits"][-1] == embeddings.shape[0]


@pytest.fixture
def pretrainer(tmp_path):
    """A pretraining network with pairs, and batches of rows whose halves are two segments."""
    backbone = build_backbone(backbone_config(write_vocabulary(tmp_path)))
    network, depths = build_pretrainer(backbone, pairs=True)
    pieces = WordPieces(backbone.vocabulary, lowercase=backbone.lowercase)
    random = np.random.default_rng(0)
    ids = random.integers(5, len(backbone.vocabulary), (8, 16)).astype(np.int32)
    ids[:, 0], ids[:, 15] = pieces.start_id, pieces.end_id
    rows = {
        "token_ids": tf.constant(ids),
        "segment_ids": tf.constant(np.repeat([[0] * 8 + [1] * 8], 8, axis=0), tf.int32),
        "padding_mask": tf.ones((8, 16), tf.int32),
        "pair_label": tf.constant([0, 1, 1, 0, -1, 1, 0, 1], tf.int32),
    }
    batch = PieceMasker.build(pieces, fraction=FRACTION).mask(rows, (0, 0))
    return backbone, network, depths, pieces, batch


def test_the_pretraining_loss_is_a_mean_over_hidden_pieces_plus_a_mean_over_labelled_pairs(pretrainer):
    _, network, depths, pieces, batch = pretrainer
    tuner = MaskedLmTuner(network, special=SpecialIds.of(pieces), config=TRAINING, seed=0)
    tuner.compile(optimizer=tuner.make_optimizer(TRAINING, total_steps=10, depths=depths, precision="float32"))
    outputs = network({name: batch[name] for name in network.input_names}, training=False)
    weights = batch["weights"].numpy()
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    pieces_loss = cross_entropy(batch["targets"], outputs["masked_lm_logits"]).numpy()
    labels = batch["pair_label"].numpy()
    pairs_loss = cross_entropy(np.maximum(labels, 0), outputs["pair_logits"]).numpy()
    expected = (pieces_loss * weights).sum() / weights.sum() + pairs_loss[labels >= 0].mean()
    assert float(tuner.train_step(batch)["step_loss"]) == pytest.approx(expected, rel=1e-5)  # the toy has no dropout


def test_without_pairs_every_trained_variable_has_a_gradient_and_a_depth(pretrainer):
    backbone, *_, batch = pretrainer
    network, depths = build_pretrainer(backbone, pairs=False)
    with tf.GradientTape() as tape:
        logits = network({name: batch[name] for name in network.input_names})["masked_lm_logits"]
        loss = tf.reduce_sum(tf.square(logits))
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    found = dict(zip((variable.name for variable in network.trainable_variables), depths, strict=True))
    assert found["token_embedding/embeddings:0"] == 0 and max(depths) == 2
    assert {depth for name, depth in found.items() if "masked_lm_head" in name} == {2}

"""The masked-language-model warm-up: what is hidden, what is asked for, and that it is learnt."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, make_encoder, make_sentences, make_tagger, write_vocabulary

from app.data.dataset import store_in_memory
from app.models.masked_lm import build_masked_lm
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import MaskedLmTuner
from app.training.optimizers import build_optimizer

FRACTION = 0.25


@pytest.fixture
def parts(tmp_path):
    tagger = make_tagger(write_vocabulary(tmp_path))
    encoder = make_encoder(tagger)
    network, depths = build_masked_lm(tagger)
    config = dataclasses.replace(TRAINING, masked_lm_fraction=FRACTION)
    tuner = MaskedLmTuner(network, special=SpecialIds.of(encoder.pieces), config=config, seed=0)
    optimizer = build_optimizer(config, total_steps=100, depths=depths, precision="float32")
    tuner.compile(optimizer=optimizer)
    store = store_in_memory(encoder.training_rows(make_sentences(40)))
    batches = list(store.make_dataset(batch_size=4, seed=0, epochs=1))
    return tagger, tuner, batches


def test_only_real_pieces_are_hidden_and_each_is_asked_for_once(parts):
    _, tuner, batches = parts
    for batch in batches:
        hidden = {name: value.numpy() for name, value in tuner._prepared(batch).items()}
        before, padding = batch["token_ids"].numpy(), batch["padding_mask"].numpy() == 0
        special = (before == tuner.special.start) | (before == tuner.special.end) | padding
        assert (hidden["token_ids"][special] == before[special]).all()
        for row in range(len(before)):
            asked = hidden["weights"][row] > 0
            positions = hidden["positions"][row][asked]
            assert len(set(positions)) == asked.sum() == np.ceil(FRACTION * (~special[row]).sum())
            assert not special[row][positions].any()
            assert (hidden["targets"][row][asked] == before[row][positions]).all()
            unasked = np.setdiff1d(np.arange(before.shape[1]), positions)
            assert (hidden["token_ids"][row][unasked] == before[row][unasked]).all()


def test_eight_of_ten_chosen_pieces_become_masks_and_one_stays(parts):
    _, tuner, batches = parts
    masked = kept = count = 0
    for batch in batches * 40:
        hidden = tuner._prepared(batch)
        asked = hidden["weights"].numpy() > 0
        shown = tf.gather(hidden["token_ids"], hidden["positions"], batch_dims=1).numpy()[asked]
        count += len(shown)
        masked += (shown == tuner.special.mask).sum()
        kept += (shown == hidden["targets"].numpy()[asked]).sum()
    assert masked / count == pytest.approx(0.8, abs=0.04)  # a random piece may be [MASK], too
    assert kept / count == pytest.approx(0.1, abs=0.04)


def test_every_step_hides_other_pieces(parts):
    _, tuner, batches = parts
    first, second = (tuner._prepared(batches[0])["positions"].numpy() for _ in range(2))
    assert not np.array_equal(first, second)


def test_training_lowers_the_loss_and_moves_the_encoder_of_the_tagger(parts):
    tagger, tuner, batches = parts
    before = tagger.backbone.model.token_embedding.embeddings.numpy()
    signature = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batches[0].items()}
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature).repeat()
    losses = tuner.fit(dataset, steps_per_epoch=10, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.2
    assert not np.array_equal(before, tagger.backbone.model.token_embedding.embeddings.numpy())


def test_the_head_shares_the_input_embeddings(parts):
    tagger, tuner, _ = parts
    embeddings = tagger.backbone.model.token_embedding.embeddings
    same_size = [v for v in tuner.network.trainable_variables if v.shape == embeddings.shape]
    assert [v is embeddings for v in same_size] == [True]
    assert tuner.vocabulary_size == embeddings.shape[0]

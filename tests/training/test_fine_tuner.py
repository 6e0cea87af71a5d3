"""The training step: what is divided by what, and that each regularizer does what it says and nothing more."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, make_batch, make_tagger, make_tuner, weights_of

from app.config import ModelConfig, TrainingConfig
from app.one_keras import keras
from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.task import TAGGING
from app.training.fine_tuner import FineTuner, SpecialIds, compare_twice, find_beginnings

PLAIN = replace(TRAINING, clip_norm=0.0)


@pytest.fixture(scope="module", params=["softmax", "crf"])
def tagger(request, vocabulary):
    return make_tagger(vocabulary, model=ModelConfig(head=request.param, head_dropout=0.0))


@pytest.fixture(scope="module")
def batch(tagger):
    return make_batch(tagger)


def gradients_of(tagger, batch, config: TrainingConfig, total: float):
    tuner = make_tuner(tagger, config)
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(1.0))
    loss, gradients = tuner._gradients(batch, tf.constant(total))
    return float(loss), [g.numpy() for g in gradients]


def step_with_sgd(tagger, batch, config: TrainingConfig, *, rate: float = 1.0):
    """One real training step; (logs, weights before minus weights after), the weights put back."""
    before = weights_of(tagger)
    tuner = make_tuner(tagger, config)
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(rate), run_eagerly=True)
    logs = tuner.train_step(batch)
    moved = [old - new for old, new in zip(before, weights_of(tagger), strict=True)]
    for variable, value in zip(tagger.network.variables, before, strict=True):
        variable.assign(value)
    return {name: float(value) for name, value in logs.items()}, moved


def test_the_gradient_does_not_depend_on_the_number_of_accumulation_steps(tagger, batch):
    loss, whole = gradients_of(tagger, batch, PLAIN, 50.0)
    for slices in (2, 4):
        sliced_loss, sliced = gradients_of(tagger, batch, replace(PLAIN, accumulation_steps=slices), 50.0)
        assert sliced_loss == pytest.approx(loss, rel=1e-5)
        for one, other in zip(whole, sliced, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_lazy_gradient_is_the_dense_one_with_each_row_once(tagger, batch, slices):
    _, dense = gradients_of(tagger, batch, replace(PLAIN, accumulation_steps=slices), 50.0)
    tuner = make_tuner(tagger, replace(PLAIN, accumulation_steps=slices, lazy_embeddings=True))
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(1.0))
    _, lazy = tuner._gradients(batch, tf.constant(50.0))
    assert any(isinstance(gradient, tf.IndexedSlices) for gradient in lazy)
    for one, other in zip(dense, lazy, strict=True):
        if isinstance(other, tf.IndexedSlices):
            assert len(set(other.indices.numpy())) == len(other.indices)
        np.testing.assert_allclose(one, tf.convert_to_tensor(other).numpy(), rtol=1e-5, atol=1e-7)


def test_lazy_embeddings_leave_pieces_that_are_not_in_the_batch_as_they_are(vocabulary):
    tagger = make_tagger(vocabulary)
    table = next(v for v in tagger.network.variables if v.name == "token_embedding/embeddings:0")
    before, batch = table.numpy(), make_batch(tagger)
    config = replace(TRAINING, lazy_embeddings=True, learning_rate=0.1, warmup_fraction=0.0)
    tuner = make_tuner(tagger, config)
    optimizer = tuner.make_optimizer(config, total_steps=9, depths=tagger.layer_depths(), precision="float32")
    tuner.compile(optimizer=optimizer)
    tuner.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    moved = np.flatnonzero((table.numpy() != before).any(axis=1))
    assert set(moved) == set(np.unique(batch["token_ids"].numpy()))


def test_loss_and_gradient_are_sums_over_real_words_divided_by_their_count(tagger, batch):
    words = int((batch["labels"].numpy() >= 0).sum())
    boundaries = np.isin(batch["token_ids"].numpy(), (2, 3))
    logits = tagger.network({name: batch[name] for name in tagger.network.input_names})
    expected = float(tagger.head.compute_loss(logits, batch["labels"], tf.constant(boundaries))) / words
    logs, moved = step_with_sgd(tagger, batch, PLAIN)
    assert logs["words"] == words
    assert logs["loss"] == logs["step_loss"] == pytest.approx(expected, rel=1e-5)
    _, gradients = gradients_of(tagger, batch, PLAIN, float(words))
    for one, other in zip(moved, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_rows_without_words_change_neither_loss_nor_gradient(tagger, batch):
    empty = {name: tf.fill(value.shape, -1 if name == "labels" else 0) for name, value in batch.items()}
    filled = {name: tf.concat([value, empty[name]], axis=0) for name, value in batch.items()}
    logs, moved = step_with_sgd(tagger, batch, PLAIN)
    filled_logs, filled_moved = step_with_sgd(tagger, filled, PLAIN)
    assert filled_logs["loss"] == pytest.approx(logs["loss"], rel=1e-5)
    for one, other in zip(moved, filled_moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_batch_of_empty_rows_changes_no_weight(tagger, batch):
    empty = {name: tf.fill(value.shape, -1 if name == "labels" else 0) for name, value in batch.items()}
    logs, moved = step_with_sgd(tagger, empty, PLAIN)
    assert logs["step_loss"] == 0.0 and all(not difference.any() for difference in moved)


def test_clipping_shortens_a_long_gradient_and_leaves_its_direction(tagger, batch):
    _, free = step_with_sgd(tagger, batch, PLAIN)
    length = np.sqrt(sum(np.square(g).sum() for g in free))
    limit = float(length) / 3
    _, clipped = step_with_sgd(tagger, batch, replace(PLAIN, clip_norm=limit))
    _, unharmed = step_with_sgd(tagger, batch, replace(PLAIN, clip_norm=3 * float(length)))
    assert np.sqrt(sum(np.square(g).sum() for g in clipped)) == pytest.approx(limit, rel=1e-3)
    for one, short, same in zip(free, clipped, unharmed, strict=True):
        np.testing.assert_allclose(short, one / 3, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(same, one, rtol=1e-3, atol=1e-6)


def test_r_drop_without_dropout_adds_nothing_to_the_loss(tagger, batch):
    logs, _ = step_with_sgd(tagger, batch, PLAIN)
    dropped, _ = step_with_sgd(tagger, batch, replace(PLAIN, r_drop_weight=5.0))
    assert dropped["step_loss"] == pytest.approx(logs["step_loss"], rel=1e-4)


class TwoSamples(keras.Model):
    """Stands for a network with dropout: the second half of the batch gets other logits than the first."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits = tf.Variable(logits)

    def call(self, inputs, training=None):
        return self.logits


def test_r_drop_adds_half_the_sum_of_both_divergences_between_two_dropout_samples_of_each_word(tagger, batch):
    logits = np.random.default_rng(4).normal(size=(8, 32, 5)).astype(np.float32)
    config = replace(PLAIN, r_drop_weight=0.7)
    tuner = make_tuner(tagger, config)
    tuner.network = TwoSamples(logits)
    loss = float(tuner._loss(batch, tf.constant(10.0)))
    labels = batch["labels"].numpy()
    boundaries = tf.constant(np.isin(batch["token_ids"].numpy(), (2, 3)))
    parts = [float(tagger.head.compute_loss(half, labels, boundaries)) for half in (logits[:4], logits[4:])]
    p, q = (np.exp(half) / np.exp(half).sum(-1, keepdims=True) for half in (logits[:4], logits[4:]))
    both = (p * np.log(p / q)).sum(-1) + (q * np.log(q / p)).sum(-1)
    expected = (sum(parts) / 2 + 0.7 * both[labels >= 0].sum() / 2) / 10
    assert loss == pytest.approx(expected, rel=1e-4)


def hide(tuner, batch) -> np.ndarray:
    """Which pieces of a batch are hidden, bool [rows, length]; nothing else may change."""
    pieces = batch["token_ids"]
    found = tuner._with_hidden_words(batch, (pieces == 2) | (pieces == 3)).numpy()
    changed = found != pieces.numpy()
    assert (found[changed] == 4).all()
    return changed


@pytest.mark.parametrize(
    "settings", [{"word_mask_fraction": 0.3}, {"entity_mask_fraction": 0.3}], ids=["words", "entities"]
)
def test_about_the_given_fraction_is_hidden_and_never_special_pieces_or_padding(tagger, batch, settings):
    tuner = make_tuner(tagger, replace(PLAIN, **settings))
    pieces, labels = batch["token_ids"].numpy(), batch["labels"].numpy()
    may = (pieces > 3) & (batch["padding_mask"].numpy() > 0)
    counted = labels > 0 if "entity_mask_fraction" in settings else labels >= 0
    hidden = 0
    for _ in range(40):
        changed = hide(tuner, batch)
        assert not changed[~may].any()
        hidden += changed[counted].sum()
    assert 0.25 < hidden / (40 * counted.sum()) < 0.35


ROWS = {  # a name of three words (4 pieces), a plain word of three pieces, a plain word, padding
    "token_ids": tf.constant([[2, 10, 11, 12, 13, 14, 15, 16, 3, 17, 3, 0]] * 80),
    "labels": tf.constant([[-1, 1, 2, -1, 2, 0, -1, -1, -1, 0, -1, -1]] * 80),
    "padding_mask": tf.constant([[1] * 11 + [0]] * 80),
}


def test_a_word_is_hidden_with_all_its_pieces_or_not_at_all(tagger):
    hidden = hide(make_tuner(tagger, replace(PLAIN, word_mask_fraction=0.5)), ROWS)
    assert set(hidden[:, 5:8].sum(axis=1)) == {0, 3} and (hidden[:, 2] == hidden[:, 3]).all()
    assert (hidden[:, 1] != hidden[:, 2]).any() and (hidden[:, 5] != hidden[:, 9]).any()


def test_an_entity_is_hidden_with_all_its_words_or_not_at_all_and_other_words_stay(tagger):
    hidden = hide(make_tuner(tagger, replace(PLAIN, entity_mask_fraction=0.5)), ROWS)
    assert set(hidden[:, 1:5].sum(axis=1)) == {0, 4} and not hidden[:, 5:].any()


def test_words_without_a_label_are_left_alone(tagger):
    tuner = make_tuner(tagger, replace(PLAIN, word_mask_fraction=0.9, entity_mask_fraction=0.9))
    assert not hide(tuner, {**ROWS, "labels": tf.fill([80, 12], -1)}).any()


def test_masks_differ_from_step_to_step_and_repeat_with_the_seed(tagger, batch):
    def draws(seed: int) -> list[bytes]:
        tuner = make_tuner(tagger, replace(PLAIN, word_mask_fraction=0.3, entity_mask_fraction=0.1), seed=seed)
        return [hide(tuner, batch).tobytes() for _ in range(3)]

    assert len(set(draws(1))) == 3 and draws(1) == draws(1) and draws(1) != draws(2)


def test_the_labels_of_hidden_words_are_still_learnt(tagger, batch):
    logs, _ = step_with_sgd(tagger, batch, PLAIN)
    hidden, _ = step_with_sgd(tagger, batch, replace(PLAIN, word_mask_fraction=0.9))
    assert hidden["words"] == logs["words"] and hidden["step_loss"] != logs["step_loss"]


@pytest.mark.parametrize("every", [1, 3])
def test_weight_averages_equal_a_moving_average_computed_by_hand(vocabulary, every):
    tagger = make_tagger(vocabulary)
    batch = make_batch(tagger)
    tuner = make_tuner(tagger, replace(PLAIN, average_weights_decay=0.3, average_weights_every_steps=every))
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.5), run_eagerly=True)
    expected = weights_of(tagger)
    for step in range(1, 8):
        tuner.train_step(batch)
        tuner.update_averages()
        if step % every == 0:
            decay = min(0.3, (1 + step) / (10 + step)) ** every
            pairs = zip(expected, weights_of(tagger), strict=True)
            expected = [decay * average + (1 - decay) * new for average, new in pairs]
    for average, value in zip(tuner.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-4, atol=1e-6)


def test_swapping_twice_gives_back_the_same_bits_and_once_gives_the_averages(vocabulary):
    tagger = make_tagger(vocabulary)
    tuner = make_tuner(tagger, replace(PLAIN, average_weights_decay=0.5, average_weights_every_steps=1))
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.5), run_eagerly=True)
    tuner.train_step(make_batch(tagger))
    tuner.update_averages()
    before, averages = weights_of(tagger), [average.numpy() for average in tuner.averages]
    tuner.swap_averages()
    assert all(np.array_equal(one, two) for one, two in zip(weights_of(tagger), averages, strict=True))
    tuner.swap_averages()
    assert all(np.array_equal(one, two) for one, two in zip(weights_of(tagger), before, strict=True))


def test_frozen_embeddings_stay_as_they_are_and_the_rest_learns(vocabulary):
    tagger = make_tagger(vocabulary, freeze=True)
    _, moved = step_with_sgd(tagger, make_batch(tagger), PLAIN)
    still = {v.name for v, m in zip(tagger.network.variables, moved, strict=True) if not m.any()}
    assert {name for name in still if "embedding" in name} == {"token_embedding/embeddings:0"}
    assert any("tagging_head" in v.name and m.any() for v, m in zip(tagger.network.variables, moved, strict=True))


TEXTS = {  # two texts in a row: a word of three pieces and two of one, then one word; labels sit at [CLS]
    "token_ids": tf.constant([[2, 10, 21, 21, 11, 12, 3, 2, 13, 3, 0]] * 80),
    "labels": tf.constant([[0] + [-1] * 6 + [1] + [-1] * 3] * 80),
    "padding_mask": tf.constant([[1] * 7 + [2] * 3 + [0]] * 80),
}


def text_tuner(tagger, task, **settings):
    pieces = SimpleNamespace(vocabulary=["##s" if number == 21 else "word" for number in range(30)])
    return FineTuner(
        tagger.network, tagger.head.compute_loss, special=SpecialIds(start=2, end=3, mask=4),
        config=replace(PLAIN, **settings), seed=0, begins_word=find_beginnings(task, pieces),
    )  # fmt: skip


def test_words_of_a_labelled_text_are_hidden_one_by_one(tagger):
    hidden = hide(text_tuner(tagger, CLASSIFICATION, word_mask_fraction=0.5), TEXTS)
    assert not hidden[:, [0, 6, 7, 9, 10]].any()
    words = [hidden[:, 1:4].sum(axis=1) // 3, hidden[:, 4], hidden[:, 5], hidden[:, 8]]
    assert set(hidden[:, 1:4].sum(axis=1)) == {0, 3}  # all pieces of a word, or none
    for one, word in enumerate(words):
        assert 0.3 < word.mean() < 0.7
        assert all((word != other).any() for other in words[one + 1 :])


def test_labels_of_words_say_where_words_begin_and_no_vocabulary_does(tagger):
    assert find_beginnings(TAGGING, SimpleNamespace(vocabulary=["##s"])) is None
    hidden = hide(text_tuner(tagger, TAGGING, word_mask_fraction=0.5), ROWS)
    assert np.array_equal(hidden, hide(make_tuner(tagger, replace(PLAIN, word_mask_fraction=0.5)), ROWS))


def test_independent_labels_are_compared_twice_as_yes_and_no_at_each():
    first, second = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    p, q = 1 / (1 + np.exp(-first.astype(np.float64))), 1 / (1 + np.exp(-second.astype(np.float64)))

    def divergence(p, q):
        return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(-1)

    found = compare_twice(tf.constant(first), tf.constant(second), independent=True).numpy()
    np.testing.assert_allclose(found, (divergence(p, q) + divergence(q, p)) / 2, rtol=1e-4)

"""Distillation: each loss against NumPy, what a student that is its teacher loses, and who is never changed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import PIECES, TRAINING, make_batch, make_tagger, weights_of

from app.config import DistillConfig, HiddenStatesConfig, InputError, ModelConfig, RelationConfig, with_values
from app.one_keras import keras
from app.tasks.tagging.crf import compute_chain_divergence
from app.training.distillation import (
    DistillationTuner,
    Teacher,
    build_distillation,
    build_from_layers,
    build_view,
    compute_hidden_loss,
    compute_relation_loss,
    compute_soft_loss,
    copy_head,
    map_pieces,
)
from app.training.fine_tuner import SpecialIds

SPECIAL = SpecialIds(start=2, end=3, mask=4)
PLAIN = replace(TRAINING, clip_norm=0.0)
CRF, SOFTMAX = (ModelConfig(head=head, head_dropout=0.0) for head in ("crf", "softmax"))
ALL = DistillConfig(
    student_layers=(), temperature=3.0, labels_weight=0.0, soft_weight=1.0, chain_weight=1.0,
    hidden=HiddenStatesConfig(weight=1.0), relation=RelationConfig(weight=1.0, heads=4),
)  # fmt: skip
rng = np.random.default_rng(5)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def numbered(batch: dict) -> dict:
    """A batch as distillation reads it: words have numbers; those of the last row have no labels."""
    labels = batch["labels"].numpy()
    words = np.where(labels >= 0, np.arange(labels.shape[1]), -1).astype(np.int32)
    labels[-1] = -1
    return {**batch, "labels": tf.constant(labels), "unit_ids": tf.constant(words)}


def tuner_of(student, teachers, distill=ALL, config=PLAIN):
    tuner, _ = build_distillation(student, teachers, distill=distill, training=config, special=SPECIAL, seed=0)
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(1.0), run_eagerly=True)
    return tuner


def loss_of(student, teachers, batch, **weights) -> float:
    tuner = tuner_of(student, teachers, with_values(ALL, weights))
    return float(tuner._loss(batch, tuner._terms(batch)))


def gradients_of(tuner, batch) -> list[np.ndarray]:
    return [gradient.numpy() for gradient in tuner._gradients(batch, tuner._terms(batch))[1]]


@pytest.fixture(scope="module")
def student(vocabulary):
    return make_tagger(vocabulary, model=CRF, seed=1)


@pytest.fixture(scope="module")
def teachers(vocabulary):
    """Wider and deeper than the student, one of them without a CRF."""
    sizes = {"num_layers": 2, "hidden_dim": 24, "num_heads": 3}
    return [make_tagger(vocabulary, model=model, seed=7 + i, **sizes) for i, model in enumerate((CRF, SOFTMAX))]


@pytest.fixture(scope="module")
def batch(student):
    return numbered(make_batch(student))


def test_the_soft_loss_is_the_divergence_from_the_mean_of_the_teachers_times_the_squared_temperature():
    first, second, ours = rng.normal(size=(3, 2, 6, 5)).astype(np.float32)
    words = rng.random((2, 6)) < 0.6
    mean = (np.exp(log_softmax(first / 2)) + np.exp(log_softmax(second / 2))) / 2
    expected = 4 * (mean * (np.log(mean) - log_softmax(ours / 2))).sum(-1)[words].sum()
    found = compute_soft_loss([tf.constant(first), tf.constant(second)], tf.constant(ours), tf.constant(words), 2.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    alone = compute_soft_loss([tf.constant(first)], tf.constant(first), tf.constant(words), 2.0)
    assert float(alone) == 0.0 < float(found)


def test_the_soft_loss_of_independent_labels_is_the_sum_of_the_divergences_of_yes_and_no_at_each():
    first, second, ours = rng.normal(size=(3, 2, 6, 5)).astype(np.float32)
    words = rng.random((2, 6)) < 0.6

    def chances(logits):
        return 1 / (1 + np.exp(-logits.astype(np.float64) / 3))

    mean, own = (chances(first) + chances(second)) / 2, chances(ours)
    both = mean * np.log(mean / own) + (1 - mean) * np.log((1 - mean) / (1 - own))
    tensors = [tf.constant(first), tf.constant(second)], tf.constant(ours), tf.constant(words)
    found = compute_soft_loss(*tensors, 3.0, independent=True)
    assert float(found) == pytest.approx(9 * both.sum(-1)[words].sum(), rel=1e-4)
    certain = tf.constant([[[200.0, -200.0]]])
    alone = compute_soft_loss([certain], certain, tf.constant([[True]]), 1.0, independent=True)
    assert float(alone) == 0.0


def test_the_hidden_loss_is_the_mean_square_over_the_width_summed_over_real_pieces():
    teacher, ours = rng.normal(size=(2, 2, 5, 8)).astype(np.float32)
    windows = np.array([[1, 1, 2, 2, 0], [1, 1, 0, 0, 0]], np.int32)
    expected = np.square(teacher - ours).mean(-1)[windows > 0].sum()
    assert float(compute_hidden_loss(teacher, ours, windows)) == pytest.approx(expected, rel=1e-5)


def test_relations_of_networks_of_two_widths_are_compared_head_by_head_within_windows():
    teacher = rng.normal(size=(2, 5, 12)).astype(np.float32)
    ours = rng.normal(size=(2, 5, 8)).astype(np.float32)
    windows = np.array([[1, 1, 2, 2, 2], [1, 1, 1, 0, 0]], np.int32)
    expected = 0.0
    for row, window in ((0, 1), (0, 2), (1, 1)):
        at = np.flatnonzero(windows[row] == window)
        for head in range(4):
            p, q = (
                log_softmax(part @ part.T / np.sqrt(part.shape[1]))
                for part in (v[row, at].reshape(len(at), 4, -1)[:, head] for v in (teacher, ours))
            )
            expected += (np.exp(p) * (p - q)).sum() / 4
    assert float(compute_relation_loss(teacher, ours, windows, heads=4)) == pytest.approx(expected, rel=1e-4)


def chain_log_probabilities(logits, transitions) -> np.ndarray:
    """Of every tag sequence of a sentence, whose neighbours are `O`, the label 0."""
    scores = []
    for tags in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        chain = [0, *tags, 0]
        score = sum(logits[i, tag] for i, tag in enumerate(tags))
        scores.append(score + sum(transitions[a, b] for a, b in itertools.pairwise(chain)))
    return log_softmax(np.array(scores))


def test_the_chain_divergence_equals_the_sum_over_all_tag_sequences_and_its_gradient_the_difference_of_marginals():
    logits = 2 * rng.normal(size=(2, 1, 8, 3)).astype(np.float32)
    matrices = rng.normal(size=(2, 3, 3)).astype(np.float32)
    matrices[:, 0, 2] = -1e4  # an illegal transition
    boundaries = np.array([[1, 0, 0, 0, 0, 1, 0, 0]], bool)
    words = np.array([[0, 1, 0, 1, 1, 0, 0, 0]], bool)
    p, q = (chain_log_probabilities(each[0, words[0]], matrix) for each, matrix in zip(logits, matrices, strict=True))
    possible = p > -1e3
    expected = (np.exp(p) * (p - q))[possible].sum()
    student = tf.constant(logits[1])
    with tf.GradientTape() as tape:
        tape.watch(student)
        found = compute_chain_divergence(logits[0], student, words, boundaries, matrices[0], matrices[1])
    assert float(found) == pytest.approx(expected, rel=1e-4)
    sequences = np.array(list(itertools.product(range(3), repeat=3)))
    marginals = [
        np.stack([[np.exp(each)[sequences[:, i] == tag].sum() for tag in range(3)] for i in range(3)])
        for each in (p, q)
    ]
    gradient = tape.gradient(found, student).numpy()
    np.testing.assert_allclose(gradient[0, words[0]], marginals[1] - marginals[0], atol=1e-5)
    assert not gradient[0, ~words[0]].any()


@pytest.mark.parametrize("model", [CRF, SOFTMAX], ids=["crf", "softmax"])
def test_a_student_with_the_weights_of_its_teacher_loses_nothing_and_has_no_gradient(vocabulary, model):
    teacher, same, other = (make_tagger(vocabulary, model=model, seed=seed) for seed in (3, 3, 4))
    batch = numbered(make_batch(teacher))
    assert loss_of(same, [teacher], batch) == pytest.approx(0.0, abs=1e-3)
    assert loss_of(other, [teacher], batch) > 0.1
    gradients = gradients_of(tuner_of(same, [teacher]), batch)
    assert max(np.abs(gradient).max() for gradient in gradients) < 1e-4


@pytest.mark.parametrize("name", ["soft_weight", "chain_weight", "hidden.weight", "relation.weight"])
def test_each_loss_falls_when_the_student_follows_its_gradient(vocabulary, teachers, name):
    student = make_tagger(vocabulary, model=CRF, seed=2)
    batch = numbered(make_batch(student))
    off = dict.fromkeys(("soft_weight", "chain_weight", "hidden.weight", "relation.weight"), 0.0)
    tuner = tuner_of(student, teachers, with_values(ALL, {**off, name: 1.0}))
    tuner.optimizer.learning_rate.assign(0.05)
    losses = [float(tuner.train_step(batch)["step_loss"]) for _ in range(4)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_the_teachers_never_change_and_are_not_part_of_what_is_trained_or_saved(student, teachers, batch):
    tuner = tuner_of(student, teachers)
    before = [weights_of(teacher) for teacher in teachers]
    own = weights_of(student)
    tuner.train_step(batch)
    for teacher, values in zip(teachers, before, strict=True):
        assert all(np.array_equal(one, two) for one, two in zip(weights_of(teacher), values, strict=True))
    moved = [not np.array_equal(one, two) for one, two in zip(weights_of(student), own, strict=True)]
    assert sum(moved) > len(moved) / 2
    for variable, value in zip(student.network.variables, own, strict=True):
        variable.assign(value)
    theirs = {id(variable) for teacher in teachers for variable in teacher.network.variables}
    assert not theirs & {id(variable) for variable in tuner.variables}
    saved = tf.train.Checkpoint(tuner)
    assert not theirs & {id(each) for each in saved._trackable_children()["root"].variables}


def test_losses_are_divided_by_labelled_words_words_and_pieces_of_the_whole_batch(student, teachers, batch):
    logits = {
        "student": student.network({name: batch[name] for name in student.network.input_names}),
        "teacher": teachers[0].network({name: batch[name] for name in student.network.input_names}),
    }
    labels, words = batch["labels"].numpy() >= 0, batch["unit_ids"].numpy() >= 0
    assert 0 < labels.sum() < words.sum()
    off = {"chain_weight": 0.0, "hidden.weight": 0.0, "relation.weight": 0.0}
    boundaries = tf.constant(np.isin(batch["token_ids"].numpy(), (2, 3)))
    hard = float(student.head.compute_loss(logits["student"], batch["labels"], boundaries)) / labels.sum()
    soft = float(compute_soft_loss([logits["teacher"]], logits["student"], tf.constant(words), 3.0)) / words.sum()
    found = loss_of(student, teachers[:1], batch, labels_weight=0.25, soft_weight=0.5, **off)
    assert found == pytest.approx(0.25 * hard + 0.5 * soft, rel=1e-5)


def test_the_gradient_does_not_depend_on_the_number_of_accumulation_steps(student, teachers, batch):
    tuner = tuner_of(student, teachers[:1], replace(ALL, labels_weight=0.5))
    whole = gradients_of(tuner, batch)
    tuner.config = replace(PLAIN, accumulation_steps=2)
    for one, other in zip(whole, gradients_of(tuner, batch), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_the_teacher_reads_the_words_that_are_hidden_from_the_student(student, teachers, batch):
    seen = []

    def listening(features, training):
        assert training is False
        seen.append(features["token_ids"].numpy())
        return teachers[0].network(features, training=False)

    distill = DistillConfig(student_layers=())
    tuner = DistillationTuner(
        student.network, student.head.compute_loss, teachers=[Teacher(listening)], distill=distill, special=SPECIAL,
        config=replace(PLAIN, word_mask_fraction=0.9), seed=0,
    )  # fmt: skip
    hidden = float(tuner._loss(batch, tuner._terms(batch)))
    assert np.array_equal(seen[0], batch["token_ids"].numpy())
    tuner.config = PLAIN
    assert hidden != float(tuner._loss(batch, tuner._terms(batch)))


def test_a_plain_batch_and_a_plain_network_are_enough_for_soft_labels(student, teachers, batch):
    plain = {name: value for name, value in batch.items() if name != "unit_ids"}
    distill = DistillConfig(labels_weight=0.0, temperature=1.0)
    tuner = DistillationTuner(
        student.network, student.head.compute_loss, teachers=[Teacher(teachers[0].network)], distill=distill,
        special=SPECIAL, config=PLAIN, seed=0,
    )  # fmt: skip
    features = {name: batch[name] for name in student.network.input_names}
    words = batch["labels"] >= 0
    expected = compute_soft_loss([teachers[0].network(features)], student.network(features), words, 1.0)
    found = float(tuner._loss(plain, tuner._terms(plain)))
    assert found == pytest.approx(float(expected) / float(tf.reduce_sum(tf.cast(words, tf.float32))), rel=1e-5)
    with pytest.raises(InputError, match=r"training.r_drop_weight must be 0 with a teacher, received 1"):
        config = replace(PLAIN, r_drop_weight=1.0)
        DistillationTuner(
            student.network, student.head.compute_loss, teachers=[], distill=distill, special=SPECIAL, config=config,
            seed=0,
        )  # fmt: skip


def test_a_student_of_all_layers_is_its_teacher_and_one_of_chosen_layers_has_their_weights(vocabulary):
    from app.tasks.network import build_model
    from app.text.shapes import NUM_SHAPES

    teacher = make_tagger(vocabulary, model=CRF, num_layers=3)
    features = {name: make_batch(teacher)[name] for name in teacher.network.input_names}

    def cut(layers):
        backbone = build_from_layers(teacher.backbone, layers, dropout=0.0, attention_dropout=0.0)
        student = build_model(backbone, CRF, task=teacher.task, labels=teacher.labels, shape_count=NUM_SHAPES)
        copy_head(teacher, student)
        return student

    whole = cut([0, 1, 2])
    np.testing.assert_array_equal(whole.network(features), teacher.network(features))
    np.testing.assert_array_equal(whole.head.transitions, teacher.head.transitions)
    part = cut([0, 2])
    states = build_view(part, hidden_layers=[1])(features)["hidden_1"]
    first = build_view(teacher, hidden_layers=[0])(features)["hidden_0"]
    mask = features["padding_mask"]
    last = teacher.backbone.model.transformer_layers[2](first, attention_mask=mask[:, :, None] == mask[:, None, :])
    np.testing.assert_allclose(states, last, atol=1e-5)
    for layers in ([0, 3], [], [1, 0], [1, 1]):
        with pytest.raises(InputError, match=r"distill.student_layers must name layers of .*, 0 to 2 in rising order"):
            cut(layers)


def test_a_bert_learns_from_an_mpnet_all_that_a_teacher_shows(student, vocabulary, batch):
    sizes = {"num_layers": 2, "hidden_dim": 24, "num_heads": 3}
    teacher = make_tagger(vocabulary, model=CRF, seed=7, mpnet=True, **sizes)
    table = teacher.backbone.model.relative_bias.table
    assert map_pieces(student.backbone, teacher.backbone) is None
    for weight in ("soft_weight", "chain_weight", "hidden.weight"):
        others = dict.fromkeys(("soft_weight", "chain_weight", "hidden.weight", "relation.weight"), 0.0) | {weight: 1.0}
        table.assign(tf.zeros_like(table))
        without = loss_of(student, [teacher], batch, **others)
        table.assign(3 * np.random.default_rng(1).normal(size=table.shape))
        assert abs(loss_of(student, [teacher], batch, **others) - without) > 1e-5 * without > 0


def test_a_student_of_layers_of_an_mpnet_shares_its_table(vocabulary):
    teacher = make_tagger(vocabulary, model=CRF, num_layers=3, mpnet=True).backbone
    table = teacher.model.relative_bias.table.numpy()
    student = build_from_layers(teacher, [0, 2], dropout=0.0, attention_dropout=0.0)
    assert student.model.relative_heads == ((0, 1),) * 2
    np.testing.assert_array_equal(student.model.relative_bias.table, table)
    for new, number in zip(student.model.transformer_layers, (0, 2), strict=True):
        for ours, theirs in zip(new.weights, teacher.model.transformer_layers[number].weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_teacher_with_more_pieces_gets_its_own_ids(vocabulary, tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in ("[unused]", *reversed(PIECES))))
    student, teacher = make_tagger(vocabulary, model=CRF), make_tagger(tmp_path / "vocab.txt", model=CRF)
    ids = map_pieces(student.backbone, teacher.backbone)
    assert [teacher.backbone.vocabulary[i] for i in ids] == student.backbone.vocabulary
    features = {name: make_batch(student)[name] for name in student.network.input_names}
    expected = teacher.network({**features, "token_ids": tf.gather(ids, features["token_ids"])})
    found = Teacher(teacher.network, piece_ids=ids).answer(features)["logits"]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"it lacks 1 of the student's 29 word pieces, such as '\[unused\]'"):
        map_pieces(teacher.backbone, student.backbone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relation.heads": 5}, r"distill.relation.heads must divide .* the student's is 16, received 5"),
        ({"relation.heads": 16}, r"the teacher's is 24, received 16"),
        ({"relation.student_layer": 1}, r"distill.relation.student_layer must be 0 to 0 or -1, received 1"),
        ({"relation.teacher_layer": 2}, r"distill.relation.teacher_layer must be 0 to 1 or -1, received 2"),
        ({"hidden.student_layers": (1,)}, r"distill.hidden.student_layers must be 1 layers of 0 to 0, received \[1\]"),
        ({"hidden.teacher_layers": (2,)}, r"distill.hidden.teacher_layers must be 1 layers of 0 to 1, received \[2\]"),
        ({"hidden.teacher_layers": (0, 1)}, r"distill.hidden.teacher_layers must be 1 layers"),
    ],
)
def test_layers_that_do_not_exist_and_heads_that_do_not_fit_are_bad_input(student, teachers, settings, message):
    with pytest.raises(InputError, match=message):
        tuner_of(student, teachers, with_values(ALL, settings))

"""What a student learns in a step: what one that is its teacher loses, and who is never changed."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import PIECES, TRAINING, make_batch, make_tagger, weights_of

from app.config import DistillConfig, HiddenStatesConfig, InputError, ModelConfig, RelationConfig, with_values
from app.one_keras import keras
from app.training.distillation.assembly import build_distillation, map_pieces
from app.training.distillation.losses import compute_soft_loss
from app.training.distillation.tuner import DistillationTuner, Teacher
from app.training.fine_tuner import SpecialIds

SPECIAL = SpecialIds(start=2, end=3, mask=4)
PLAIN = replace(TRAINING, clip_norm=0.0)
CRF, SOFTMAX = (ModelConfig(head=head, head_dropout=0.0) for head in ("crf", "softmax"))
ALL = DistillConfig(
    student_layers=(), temperature=3.0, labels_weight=0.0, soft_weight=1.0, chain_weight=1.0,
    hidden=HiddenStatesConfig(weight=1.0), relation=RelationConfig(weight=1.0, heads=4),
)  # fmt: skip


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

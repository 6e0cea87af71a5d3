"""Kept answers: what the teachers say of each row, whatever the order of the epoch; and when they are asked anew."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from toy import TRAINING, make_encoder, make_sentences, make_tagger

from app.config import DistillConfig, HiddenStatesConfig, ModelConfig
from app.data.dataset import store_in_memory, store_in_records
from app.data.packing import FEATURES
from app.training.distillation import answers
from app.training.distillation.answers import keep_answers
from app.training.distillation.assembly import build_distillation
from app.training.fine_tuner import SpecialIds

CRF = ModelConfig(head="crf", head_dropout=0.0)
DISTILL = DistillConfig(student_layers=(), temperature=2.0, labels_weight=0.5, soft_weight=1.0, chain_weight=1.0)
BATCH = 4


@pytest.fixture(scope="module")
def networks(vocabulary):
    sizes = {"num_layers": 2, "hidden_dim": 24, "num_heads": 3}
    teachers = [make_tagger(vocabulary, model=CRF, seed=seed, **sizes) for seed in (7, 8)]
    return make_tagger(vocabulary, model=CRF, seed=1), teachers


def rows_of(networks):
    return make_encoder(networks[0]).training_rows(make_sentences(30))


def tuner_of(networks, distill: DistillConfig = DISTILL):
    student, teachers = networks
    special = SpecialIds(start=2, end=3, mask=4)
    return build_distillation(student, teachers, distill=distill, training=TRAINING, special=special, seed=0)[0]


def kept(store, tuner, **changes):
    settings = {"strategy": tf.distribute.get_strategy(), "batch_size": BATCH, "epochs": 2} | changes
    return keep_answers(store, tuner, **settings)


def batches_of(store):
    return list(store.make_dataset(batch_size=BATCH, seed=3, epochs=2))


def test_each_row_brings_what_the_teachers_say_of_it_and_the_loss_is_the_same(networks):
    tuner, plain = tuner_of(networks), store_in_memory(rows_of(networks))
    assert plain.rows % BATCH, "the last batch must have an empty row"
    for without, batch in zip(batches_of(plain), batches_of(kept(plain, tuner)), strict=True):
        assert all(np.array_equal(batch[name], without[name]) for name in without)
        said = tuner.ask({name: batch[name] for name in FEATURES})
        real = batch["padding_mask"].numpy() > 0
        for number, answer in enumerate(said):
            np.testing.assert_allclose(
                batch[f"answer_{number:03d}"].numpy()[real], answer["logits"].numpy()[real], atol=1e-5
            )
        terms = tuner._terms(without)
        assert float(tuner._loss(batch, terms)) == pytest.approx(float(tuner._loss(without, terms)), rel=1e-5)


def test_no_teacher_is_asked_when_the_answers_are_there(networks):
    tuner = tuner_of(networks)
    batch = batches_of(kept(store_in_memory(rows_of(networks)), tuner))[0]

    def refuse(features):
        raise AssertionError("a teacher was asked")

    tuner.ask = refuse
    assert float(tuner._loss(batch, tuner._terms(batch))) > 0


def test_teachers_are_asked_at_every_step_where_keeping_does_not_pay_or_does_not_do(networks, tmp_path, monkeypatch):
    plain = store_in_memory(rows_of(networks))
    assert kept(plain, tuner_of(networks)) is not plain
    assert kept(plain, tuner_of(networks), epochs=1) is plain
    assert kept(plain, tuner_of(networks, replace(DISTILL, keep_answers=False))) is plain
    states = replace(DISTILL, hidden=HiddenStatesConfig(weight=1.0))
    assert kept(plain, tuner_of(networks, states)) is plain
    on_disk = store_in_records(rows_of(networks), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert kept(on_disk, tuner_of(networks)) is on_disk
    monkeypatch.setattr(answers, "MOST_BYTES", 1000)
    assert kept(plain, tuner_of(networks)) is plain

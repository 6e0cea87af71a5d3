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
from app.training.distillation.answers import AnswerFolders, keep_answers
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


@pytest.fixture
def folders(tmp_path):
    return AnswerFolders(tmp_path / "own", tmp_path / "shared")


@pytest.fixture
def kept(folders):
    def keep(store, tuner, **changes):
        settings = {"strategy": tf.distribute.get_strategy(), "batch_size": BATCH, "epochs": 2, "folders": folders}
        return keep_answers(store, tuner, **settings | changes)

    return keep


def count_asked(tuner) -> tf.Variable:
    """Counts the batches that a tuner asks its teachers for."""
    ask, counter = tuner.ask, tf.Variable(0)

    def count(features):
        counter.assign_add(1)
        return ask(features)

    tuner.ask = count
    return counter


def batches_of(store):
    return list(store.make_dataset(batch_size=BATCH, seed=3, epochs=2))


def answers_in(store):
    return [store.columns[name].numpy() for name in sorted(store.columns) if name.startswith("answer_")]


def test_each_row_brings_what_the_teachers_say_of_it_and_the_loss_is_the_same(networks, kept):
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


def test_no_teacher_is_asked_when_the_answers_are_there(networks, kept):
    tuner = tuner_of(networks)
    batch = batches_of(kept(store_in_memory(rows_of(networks)), tuner))[0]

    def refuse(features):
        raise AssertionError("a teacher was asked")

    tuner.ask = refuse
    assert float(tuner._loss(batch, tuner._terms(batch))) > 0


def test_teachers_are_asked_at_every_step_where_keeping_does_not_pay(networks, kept, tmp_path, monkeypatch):
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


def test_another_run_with_the_same_teachers_and_rows_asks_for_one_batch_and_others_for_all(networks, kept, folders):
    store = store_in_memory(rows_of(networks))
    first = kept(store, tuner_of(networks))
    student, teachers = networks
    other_run = AnswerFolders(folders.own.with_name("other"), folders.shared)
    for asked_teachers, rows, asks in (
        (teachers, store, 1),
        (teachers[::-1], store, 1),
        (teachers, store_in_memory(list(rows_of(networks))[1:]), 3),
        ([teachers[0], student], store, 4),
    ):
        tuner = tuner_of((student, asked_teachers))
        counter = count_asked(tuner)
        again = kept(rows, tuner, folders=other_run)
        assert int(counter) == asks, (len(asked_teachers), rows.rows)
        if rows is store and asks == 1:
            in_order = answers_in(again)[:: 1 if asked_teachers is teachers else -1]
            for ours, theirs in zip(in_order, answers_in(first), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_a_piece_that_the_first_batch_lacks_tells_two_teachers_apart(networks, kept):
    """Their first answers are the same; their weights are not."""
    store, (student, (teacher, _)) = store_in_memory(rows_of(networks)), networks
    (table,) = (each for each in teacher.network.variables if "token_embedding" in each.name)
    rare = min(set(range(4, table.shape[0])) - set(np.unique(store.columns["token_ids"])))
    store.columns["token_ids"][-1, 1] = rare
    before, changed = table.numpy(), table.numpy()
    changed[rare] *= -1.0
    first = answers_in(kept(store, tuner_of((student, [teacher]))))[0]
    try:
        table.assign(changed)
        second = answers_in(kept(store, tuner_of((student, [teacher]))))[0]
    finally:
        table.assign(before)
    np.testing.assert_array_equal(first[:BATCH], second[:BATCH])
    assert np.abs(first - second).max() > 0.01


def test_a_run_that_was_killed_asks_only_for_what_it_has_no_answers_to(networks, kept, folders, capsys):
    store, tuner = store_in_memory(rows_of(networks)), tuner_of(networks)
    whole = answers_in(kept(store, tuner))
    assert not capsys.readouterr().err, "nothing was there"
    for path in folders.shared.iterdir():
        path.unlink()
    for path in folders.own.iterdir():
        values = np.load(path)
        values[-BATCH - 1 :] = np.nan  # a batch and the beginning of the last one
        np.save(path, values)  # without the digest of a complete file
    counter = count_asked(tuner)
    again = answers_in(kept(store, tuner))
    assert int(counter) == 1 + 2
    said = f"what the teachers say of {store.rows - BATCH - 1} of {store.rows} sequences is in {folders.own}"
    assert said in capsys.readouterr().err
    for ours, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_answers_that_are_damaged_are_asked_for_again(networks, kept, folders):
    store, tuner = store_in_memory(rows_of(networks)), tuner_of(networks)
    whole = answers_in(kept(store, tuner))
    damaged = [*sorted(folders.shared.iterdir()), *sorted(folders.own.iterdir())]
    for path, left in zip(damaged, (0, 10, 3000, None), strict=True):  # one of the last two is as it was
        path.write_bytes(path.read_bytes()[:left])
    counter = count_asked(tuner)
    again = answers_in(kept(store, tuner))
    assert int(counter) == store.steps_per_epoch(BATCH)
    for ours, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("first, length", [(70, 20), (0, 4), (-400, 368), (-33, 1), (-1, 1)])
def test_answers_with_other_bytes_are_asked_for_again(networks, kept, folders, first, length):
    """A header that is none, the beginning of a zip file, zeros up to the full size, one byte: never learnt from."""
    store, tuner = store_in_memory(rows_of(networks)), tuner_of(networks)
    whole = answers_in(kept(store, tuner))
    for path in (*folders.shared.iterdir(), *folders.own.iterdir()):
        content = bytearray(path.read_bytes())
        at = first % len(content)
        other = bytes(255 - byte for byte in content[at : at + length])
        content[at : at + length] = b"PK\x03\x04" if first == 0 else other
        path.write_bytes(content)
    counter = count_asked(tuner)
    again = answers_in(kept(store, tuner))
    assert int(counter) == store.steps_per_epoch(BATCH)
    for ours, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kept(store, tuner)
    assert int(counter) == 1 + store.steps_per_epoch(BATCH), "the files were not mended"


def test_the_answers_of_other_weights_under_this_name_are_not_taken(networks, kept, folders):
    store, tuner = store_in_memory(rows_of(networks)), tuner_of(networks)
    whole = answers_in(kept(store, tuner))
    one, two = sorted(folders.shared.iterdir())
    one.write_bytes(two.read_bytes())
    for ours, theirs in zip(answers_in(kept(store, tuner)), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)

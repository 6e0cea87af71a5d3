"""Batches are a function of (seed, epoch, step), in memory and from TFRecord files."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from app.data.dataset import store_in_memory, store_in_records
from app.data.packing import IGNORED, Example
from app.one_keras import keras

LENGTH = 6


def make_rows(count: int) -> list[Example]:
    return [
        Example(*(np.full(LENGTH, 10 * number + field, np.int32) for field in range(5))) for number in range(count)
    ]


@pytest.fixture(params=["memory", "records"])
def store(request, tmp_path):
    if request.param == "memory":
        return store_in_memory(make_rows(10))
    return store_in_records(make_rows(10), tmp_path / "rows", fingerprint="a", shuffle_buffer=100)


def read(store, **position):
    arguments = {"batch_size": 4, "seed": 3, "epochs": 3, **position}
    return [{k: v.numpy() for k, v in batch.items()} for batch in store.make_dataset(**arguments)]


def numbers(batches) -> list[int]:
    return [int(value) // 10 for batch in batches for value in batch["token_ids"][:, 0] if batch is not None]


def test_every_epoch_holds_every_row_once_and_the_last_batch_is_filled_with_empty_rows(store):
    batches = read(store)
    assert store.steps_per_epoch(4) == 3 and len(batches) == 9
    for epoch in range(3):
        part = batches[3 * epoch : 3 * epoch + 3]
        labels = np.concatenate([batch["labels"][:, 0] for batch in part])
        assert sorted(labels[labels != IGNORED] // 10) == list(range(10))
        assert (labels == IGNORED).sum() == 2
        assert all(batch["token_ids"].shape == (4, LENGTH) for batch in part)


def test_epochs_differ_and_the_same_seed_repeats_them(store):
    one, two = read(store), read(store)
    assert numbers(one) == numbers(two)
    assert numbers(one[:3]) != numbers(one[3:6])
    assert numbers(read(store, seed=4)) != numbers(one)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_does_not_depend_on_the_seed_of_the_process(store, seed):
    expected = numbers(read(store))
    keras.utils.set_random_seed(seed)  # the default seed of a run is 0
    assert numbers(read(store)) == expected


@pytest.mark.parametrize("position", [(0, 1), (1, 0), (2, 2)])
def test_a_resumed_run_reads_the_batches_the_first_run_would_have_read(store, position):
    epoch, step = position
    rest = read(store, first_epoch=epoch, first_step=step)
    assert numbers(rest) == numbers(read(store)[3 * epoch + step :])


def test_finished_record_files_are_used_again(tmp_path):
    store_in_records(make_rows(5), tmp_path, fingerprint="a", shuffle_buffer=10)
    again = store_in_records(iter(()), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert again.rows == 5


def test_record_files_of_another_corpus_or_vocabulary_are_written_anew(tmp_path):
    store_in_records(make_rows(5), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert store_in_records(make_rows(8), tmp_path, fingerprint="b", shuffle_buffer=10).rows == 8


def test_record_files_that_were_not_finished_are_written_anew(tmp_path):
    def broken():
        yield from make_rows(3)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store_in_records(broken(), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert store_in_records(make_rows(7), tmp_path, fingerprint="a", shuffle_buffer=10).rows == 7


def test_two_runs_that_need_the_same_record_files_at_once_write_them_one_after_the_other(tmp_path):
    """Else the second would delete what the first is writing, and the first read what the second has half written."""
    first_writes = threading.Event()

    def slow():
        for row in make_rows(6):
            first_writes.set()
            time.sleep(0.1)
            yield row

    def store(rows):
        return store_in_records(rows, tmp_path, fingerprint="a", shuffle_buffer=10)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(store, slow())
        assert first_writes.wait(10)
        second = store(iter(()))  # finds what the first has written, so asks for no row
        assert first.result().rows == second.rows == 6
    assert sorted({*numbers(read(second, epochs=1))}) == list(range(6))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"fingerprint": "a"}', "null", None])
def test_record_files_that_are_damaged_are_written_anew(tmp_path, content):
    store_in_records(make_rows(7), tmp_path, fingerprint="a", shuffle_buffer=10)
    if content is None:
        shard = tmp_path / "rows-00000.tfrecord"
        shard.write_bytes(shard.read_bytes()[:-50])
    else:
        (tmp_path / "rows.json").write_text(content)
    again = store_in_records(make_rows(7), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert sorted({*numbers(read(again, epochs=1))}) == list(range(7))


@pytest.mark.parametrize("name", ["[a]*", os.fsdecode(b"\xff")])
def test_record_files_may_lie_in_a_folder_of_any_name(tmp_path, name):
    store = store_in_records(make_rows(5), tmp_path / name, fingerprint="a", shuffle_buffer=10)
    assert len(read(store, epochs=1)) == store.steps_per_epoch(4)


def test_a_full_disk_leaves_no_record_files_and_is_named(tmp_path):
    def filling():
        yield from make_rows(3)
        raise tf.errors.ResourceExhaustedError(None, None, "/x; No space left on device")

    (tmp_path / "rows-00007.tfrecord").touch()  # of a larger corpus
    with pytest.raises(OSError, match="No space left on device") as full:
        store_in_records(filling(), tmp_path, fingerprint="a", shuffle_buffer=10)
    assert full.value.filename == str(tmp_path / "rows-00000.tfrecord") and os.listdir(tmp_path) == ["rows.lock"]

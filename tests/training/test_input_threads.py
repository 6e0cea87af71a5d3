"""The probe of input threads: what it picks, and that batches stay what they are."""

import time
from types import SimpleNamespace

import pytest
import tensorflow as tf

from app.training.plan import FEWEST_STEPS, Plan, choose, measure_rates, with_input_threads


def make_plan(batches) -> Plan:
    unused = SimpleNamespace()
    return Plan(
        batches=batches, steps_per_epoch=10, depths=(), precision="float32", checkpoints=unused, tensorboard=None,
        validate=None, log=print,
    )  # fmt: skip


def numbers(epoch: int, step: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(1000 * epoch + step, 1000 * epoch + 300).shuffle(50, seed=epoch)


def slow(epoch: int, step: int) -> tf.data.Dataset:
    def wait(number):
        time.sleep(0.01)
        return number

    def waiting(number):
        return tf.py_function(wait, [number], tf.int64)

    return tf.data.Dataset.range(200).map(waiting, num_parallel_calls=8)


@pytest.mark.parametrize(
    ("rates", "best"), [({1: 95.0, 2: 100.0, 4: 99.0}, 1), ({1: 50.0, 2: 92.0, 4: 100.0}, 2), ({1: 10.0}, 1)]
)
def test_the_fewest_threads_that_are_nearly_as_fast_as_any_are_chosen(rates, best):
    assert choose(rates) == best


def test_threads_up_to_the_cores_are_tried_and_limit_the_pool():
    rates = measure_rates(slow, most=6)
    assert list(rates) == [1, 2, 4, 6]
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_batches_are_the_same_and_start_where_they_are_asked_to(threads):
    plan, found = with_input_threads(make_plan(numbers), threads, steps=FEWEST_STEPS)
    for epoch, step in ((0, 0), (2, 7)):
        expected = [int(n) for n in numbers(epoch, step)]
        assert [int(n) for n in plan.batches(epoch, step)] == expected
    pool = plan.batches(0, 0).options().threading.private_threadpool_size
    assert pool == threads if threads else f"input: {pool} thread(s) prepare" in found
    assert not threads or not found


def test_a_short_run_is_not_probed():
    plan = make_plan(numbers)
    assert with_input_threads(plan, 0, steps=FEWEST_STEPS - 1) == (plan, "")

"""Training room: how many threads prepare the batches, picked from a short probe.

On a machine with few cores, threads that prepare batches are taken from the step that trains on them.
"""

import dataclasses
import os
import time
from itertools import islice

import tensorflow as tf

from app.training.plan import BatchesFrom, Plan

SECONDS, BATCHES = 0.25, 50  # a trial ends with the first of them
ENOUGH = 0.9  # of the speed of the fastest number of threads
FEWEST_STEPS = 200  # a shorter run is over before a probe pays


def with_input_threads(plan: Plan, threads: int, *, steps: int) -> tuple[Plan, str]:
    """The plan with a pool of threads of its own for its batches, which stay what they are.

    Args:
        plan: its batches.
        threads: how many; 0 = found by a probe, for runs of at least `FEWEST_STEPS` steps.
        steps: that are left to train.

    Returns:
        the plan, and what the probe found for the person watching, "" without one.
    """
    found = ""
    if not threads and steps < FEWEST_STEPS:
        return plan, found
    if not threads:
        rates = measure_rates(plan.batches, most=len(os.sched_getaffinity(0)))
        threads = choose(rates)
        found = f"input: {threads} thread(s) prepare {rates[threads]:,.0f} batches/s"
    return dataclasses.replace(plan, batches=_limited(plan.batches, threads)), found


def measure_rates(batches: BatchesFrom, *, most: int) -> dict[int, float]:
    """Batches a second with 1, 2, 4, ... `most` threads, nothing else running."""
    rates = {}
    for threads in sorted({min(2**power, most) for power in range(most.bit_length() + 1)}):
        iterator = iter(_limited(batches, threads)(0, 0))
        next(iterator)  # opens files, fills buffers
        began, count = time.perf_counter(), 0
        for _ in islice(iterator, BATCHES):
            count += 1
            if time.perf_counter() - began > SECONDS:
                break
        rates[threads] = max(count, 1) / (time.perf_counter() - began)
    return rates


def choose(rates: dict[int, float]) -> int:
    """The fewest threads that are about as fast as any."""
    return min(threads for threads, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def _limited(batches: BatchesFrom, threads: int) -> BatchesFrom:
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    return lambda epoch, step: batches(epoch, step).with_options(options)

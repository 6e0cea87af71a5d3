"""Training room: what a run of the fit loop is given beside the model, and how many threads prepare its batches."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tensorflow as tf

from app.one_keras import keras

BatchesFrom = Callable[[int, int], tf.data.Dataset]  # (first epoch, first step) -> all batches from there on
Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Plan:
    """What a run of `fit` is given beside the model.

    Of several workers, only the chief validates, logs and writes; the others may be given the same plan.

    Attributes:
        batches: the training data from a position on.
        prepare: called once before `batches`, and not at all if nothing is left to train; it may take long.
        steps_per_epoch: batches in an epoch.
        depths: depth of each trainable variable of the network, in its order (`TaskModel.layer_depths`).
        precision: what `set_up` returned.
        checkpoints: folder for resume.
        tensorboard: folder for TensorBoard, or None.
        validate: scores the validation split. None: the last weights are kept.
        log: takes one flat row of numbers per epoch.
        forget: takes a number of epochs; rows of later ones, logged before a kill lost their checkpoint, are dropped.
        name: of the phase, for the person watching.
        score: name of the validation score that chooses the best weights; higher is better.
        unit: what speed is counted in.
        breaks: epochs at which the batches change their shape: `batches` is asked anew there.
        callbacks: what else happens between steps; they run before the weights are validated or saved.
        first_kept_epoch: the weights of earlier epochs are scored, and not kept as the best.
    """

    batches: BatchesFrom
    steps_per_epoch: int
    depths: Sequence[int]
    precision: str
    checkpoints: Path
    tensorboard: Path | None
    validate: Callable[[], dict[str, float]] | None
    log: Log
    forget: Callable[[int], None] = lambda epochs: None
    prepare: Callable[[], None] = lambda: None
    name: str = ""
    score: str = "entity_f1"
    unit: str = "words"
    breaks: tuple[int, ...] = ()
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    first_kept_epoch: int = 1


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

"""Training room: how fast training steps run, against what the machine can do at most."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import tensorflow as tf

from app.one_keras import keras
from app.training.fine_tuner import FineTuner
from app.training.workers import Workers

MATRIX_SIZES = (256, 512, 1024, 2048, 4096, 8192)
ROUNDS = 5  # in which steps and matrix products are measured in turn
_CALLS = 4  # of each size in a round
_SHORTEST_CALL_SECONDS = 0.02  # products are repeated within a call until starting it costs nothing beside them
_LONGEST_SECONDS = 1.0  # a processor is not kept busy for longer: smaller matrices show its peak, too
_MOST_MEASURING = 0.02  # part of the time that a training may spend on it


class MatrixPeak:
    """The fastest matrix products of this machine: in the number format of training, on all replicas at once.

    It is measured in rounds beside the training steps, and the best of all counts: another process that slows some
    rounds down does not lower it. Nothing random is drawn, so that training learns the same with it and without.

    Args:
        strategy: that trains.
        precision: what `set_up` returned.
    """

    def __init__(self, strategy: tf.distribute.Strategy, precision: str) -> None:
        self._strategy, self._workers = strategy, Workers(strategy)
        self._type = tf.as_dtype(precision.removeprefix("mixed_"))
        self._best = 0.0
        self._largest = self._rounds = 0
        self._seconds, self._last = 0.0, -math.inf

        @tf.function(autograph=False)
        def multiply(factors: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
            return strategy.run(_multiply, args=(factors, count))

        self._multiply = multiply
        self._makers = {
            size: tf.function(partial(strategy.run, partial(_make_matrix, size, self._type)), autograph=False)
            for size in MATRIX_SIZES
        }

    def measure(self) -> None:
        """One round. All workers must call it, so that they measure at the same time."""
        self._workers.wait()
        began = time.perf_counter()
        expected = 0.0
        for size in MATRIX_SIZES:
            if expected > _LONGEST_SECONDS:
                break
            try:
                seconds = self._measure(size)
            except tf.errors.ResourceExhaustedError:  # the network has taken the memory
                break
            expected = 8 * seconds
        self._rounds += 1
        self._last = time.perf_counter()
        self._seconds += self._last - began

    def measure_now_and_then(self) -> None:
        """A round, unless measuring has taken more than a fiftieth of the time. All workers must call it."""
        passed = time.perf_counter() - self._last
        due = passed * _MOST_MEASURING > self._seconds / max(1, self._rounds)
        if self._workers.from_chief([float(due)])[0]:
            self.measure()

    def compute_total(self) -> float:
        """Floating-point operations a second of all workers together, a multiply-add counted as two."""
        return self._workers.total([self._best])[0]

    def describe(self) -> str:
        """What the share of this peak is a share of, for whoever reads the number."""
        replicas = self._strategy.num_replicas_in_sync
        where = f" on all {replicas} replicas at once" if replicas > 1 else ""
        return (
            "share_of_peak: matrix operations a second of training, as a part of those in the fastest "
            f"{self._type.name} products of matrices (up to {self._largest} x {self._largest}){where}, "
            f"the best of {self._rounds} round(s) beside the steps"
        )

    def _measure(self, size: int) -> float:
        """Seconds of one product on each replica, the fastest of some."""
        factors = self._makers[size]()

        def call(count: int) -> float:
            began = time.perf_counter()
            found = self._multiply(factors, tf.constant(count))
            for value in self._strategy.experimental_local_results(found):
                value.numpy()
            return time.perf_counter() - began

        began = time.perf_counter()
        seconds = call(1)
        for _ in range(_CALLS):
            if time.perf_counter() - began > _LONGEST_SECONDS:
                break
            count = math.ceil(_SHORTEST_CALL_SECONDS / seconds)
            seconds = min(seconds, call(count) / count)
        replicas = self._strategy.num_replicas_in_sync // self._workers.count
        rate = replicas * 2 * size**3 / seconds
        if rate > self._best:
            self._best, self._largest = rate, size
        return seconds


def _make_matrix(size: int, dtype: tf.DType) -> tf.Tensor:
    """Random numbers whose powers neither grow nor vanish, [size, size]."""
    return tf.cast(tf.random.stateless_normal([size, size], seed=(0, size)) / math.sqrt(size), dtype)


def _multiply(factor: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A number that is there once so many products are."""
    _, product = tf.while_loop(
        lambda done, _: done < count,
        lambda done, product: (done + 1, tf.matmul(product, factor)),
        (0, factor),
        parallel_iterations=1,
    )
    return tf.cast(product[0, 0], tf.float32)


class MeasurePeak(keras.callbacks.Callback):
    """Measures a `MatrixPeak` between epochs, while the clock of training stands still."""

    def __init__(self, peak: MatrixPeak) -> None:
        super().__init__()
        self._peak = peak

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._peak.measure_now_and_then()


def compute_step_operations(
    *,
    rows: int,
    length: int,
    layers: int,
    width: int,
    inner_width: int,
    labels: int,
    hidden_pieces: int = 0,
    vocabulary_size: int = 0,
) -> float:
    """Floating-point operations of a training step of a BERT encoder and its head, multiply-adds counted as two.

    The head is dense, to `labels` at every piece, or the masked-language-model head at `hidden_pieces` of a row.

    Only matrix products count; the backward pass costs twice the forward pass (Kaplan et al. 2020, section 2.1, with
    the attention products included). Embedding look-ups, norms, dropout and the optimizer count as nothing, so that
    the share of the peak is what a user gets for the electricity.
    """
    per_layer = 2 * (4 * width * width + 2 * width * inner_width) + 4 * length * width
    masked_lm = 2 * hidden_pieces * width * (width + vocabulary_size)
    return 3.0 * rows * (length * (layers * per_layer + 2 * width * labels) + masked_lm)


def measure_steps(
    tuner: FineTuner,
    batches: Iterator[dict[str, tf.Tensor]],
    *,
    steps: int,
    warmup_steps: int,
    between: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Runs the compiled training step on real batches.

    Args:
        tuner: compiled.
        batches: enough of them.
        steps: that are measured.
        warmup_steps: before them.
        between: called before the first of these steps, after the last, and some times between; its time is not theirs.

    Returns:
        (seconds of a step, words trained on a step), both means.
    """
    step = tuner.make_train_function()
    for _ in range(max(1, warmup_steps)):
        step(batches)
        tuner.update_averages()
    tuner.words_seen.reset_state()
    rounds = min(steps, ROUNDS)
    seconds = 0.0
    between()
    for number in range(rounds):
        began = time.perf_counter()
        for _ in range(steps * number // rounds, steps * (number + 1) // rounds):
            float(step(batches)["step_loss"])
            tuner.update_averages()
        seconds += time.perf_counter() - began
        between()
    return seconds / steps, float(tuner.words_seen.result()) / steps

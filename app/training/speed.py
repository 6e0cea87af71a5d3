"""Training room: how fast training steps run, against what the machine can do at most."""

import time
from collections.abc import Iterator

import tensorflow as tf

from app.training.fine_tuner import FineTuner

MATRIX_SIZES = (1024, 2048, 4096)


def measure_matrix_peak() -> float:
    """Floating-point operations a second of the fastest float32 matrix product of this machine."""
    best = 0.0
    for size in MATRIX_SIZES:
        factor = tf.random.normal((size, size))
        product = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)))
        product(factor)
        for _ in range(6):
            began = time.perf_counter()
            product(factor).numpy()
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


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
    tuner: FineTuner, batches: Iterator[dict[str, tf.Tensor]], *, steps: int, warmup_steps: int
) -> tuple[float, float]:
    """Runs the compiled training step on real batches.

    Returns:
        (seconds of a step, words trained on a step), both means.
    """
    step = tuner.make_train_function()
    for _ in range(max(1, warmup_steps)):
        step(batches)
        tuner.update_averages()
    tuner.words_seen.reset_state()
    began = time.perf_counter()
    for _ in range(steps):
        float(step(batches)["step_loss"])
        tuner.update_averages()
    return (time.perf_counter() - began) / steps, float(tuner.words_seen.result()) / steps

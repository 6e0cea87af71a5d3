"""Schedules against hand-computed rates, optimizer steps against NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from app.config import TrainingConfig
from app.one_keras import keras
from app.training.optimizers import build_optimizer, build_schedule, compute_rates

# 100 steps, 10 of them warm-up, peak 0.5, last rate 0.05.
BASE = {"learning_rate": 0.5, "warmup_fraction": 0.1, "end_learning_rate_fraction": 0.1}
NAMES = {
    "token_embedding/embeddings:0": 0,
    "transformer_layer_0/dense/kernel:0": 1,
    "transformer_layer_0/dense/bias:0": 1,
    "transformer_layer_1/layer_norm/gamma:0": 2,
    "transformer_layer_1/layer_norm/beta:0": 2,
    "tagging_head/kernel:0": 3,
    "tagging_head/transitions:0": 3,
}
DEPTHS = list(NAMES.values())
DECAYED = {"token_embedding/embeddings:0", "transformer_layer_0/dense/kernel:0", "tagging_head/kernel:0"}


def rates(schedule: str, steps: list[int], **settings) -> list[float]:
    config = TrainingConfig(schedule=schedule, **(BASE | settings))
    built = build_schedule(config, total_steps=100)
    return [float(built(tf.constant(step, tf.int64))) for step in steps]


@pytest.mark.parametrize(
    ("schedule", "decay"),
    [
        ("linear", lambda part: 0.05 + 0.45 * (1 - part)),
        ("cosine", lambda part: 0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part)))),
        ("polynomial", lambda part: 0.05 + 0.45 * (1 - part) ** 3),
    ],
)
def test_the_rate_rises_from_zero_to_the_peak_and_decays_to_the_last_rate(schedule, decay):
    found = rates(schedule, [0, 1, 5, 10, 40, 99, 100, 150], polynomial_power=3.0)
    expected = [0.0, 0.05, 0.25, *(decay(part) for part in (0, 30 / 90, 89 / 90, 1, 1))]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "polynomial"])
def test_without_warm_up_the_first_step_learns_at_the_peak_rate(schedule):
    assert rates(schedule, [0], warmup_fraction=0.0) == pytest.approx([0.5])


def test_a_run_of_a_single_step_learns_something():
    config = TrainingConfig(learning_rate=0.5, warmup_fraction=0.1)
    assert float(build_schedule(config, total_steps=1)(0)) == pytest.approx(0.5)


def test_each_layer_learns_more_slowly_than_the_one_above_it_and_the_head_at_its_own_rate():
    config = TrainingConfig(layer_learning_rate_decay=0.5, head_learning_rate_multiplier=7.0)
    assert compute_rates(config, DEPTHS) == [0.25, 0.5, 0.5, 1.0, 1.0, 7.0, 7.0]


def make_variables() -> list[tf.Variable]:
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.normal(size=(3, 2)).astype(np.float32), name=name[:-2]) for name in NAMES]


def take_steps(config: TrainingConfig, count: int) -> tuple[list[np.ndarray], list[list[np.ndarray]], list[np.ndarray]]:
    """(weights before, gradients a step, weights after)."""
    variables = make_variables()
    before = [v.numpy().astype(np.float64) for v in variables]
    optimizer = build_optimizer(config, total_steps=10, variables=variables, depths=DEPTHS, precision="float32")
    rng = np.random.default_rng(1)
    gradients = [[rng.normal(size=(3, 2)).astype(np.float32) for _ in variables] for _ in range(count)]
    for step in gradients:
        optimizer.apply_gradients(zip(map(tf.constant, step), variables, strict=True))
    return before, gradients, [v.numpy() for v in variables]


def settings(optimizer: str) -> TrainingConfig:
    return TrainingConfig(
        optimizer=optimizer, learning_rate=0.1, warmup_fraction=0.2, weight_decay=0.3, beta_2=0.99, epsilon=1e-3,
        layer_learning_rate_decay=0.5, head_learning_rate_multiplier=3.0,
    )  # fmt: skip


def test_adamw_takes_the_steps_of_a_numpy_adamw_with_its_rates_and_exclusions():
    config = settings("adamw")
    before, gradients, after = take_steps(config, 4)
    schedule, rate_of = build_schedule(config, total_steps=10), compute_rates(config, DEPTHS)
    for number, name in enumerate(NAMES):
        w, m, v = before[number], 0.0, 0.0
        for t, step in enumerate(gradients, start=1):
            rate, g = float(schedule(t - 1)) * rate_of[number], step[number].astype(np.float64)
            w = w - rate * (0.3 * w if name in DECAYED else 0.0)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            w = w - rate * math.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-3)
        np.testing.assert_allclose(after[number], w, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_sparse_gradient_moves_only_its_rows_as_a_numpy_lazy_adamw_does():
    config, name = settings("adamw"), "token_embedding/embeddings:0"
    rng = np.random.default_rng(0)
    before = rng.normal(size=(5, 2)).astype(np.float32)
    variable = tf.Variable(before, name=name[:-2])
    optimizer = build_optimizer(
        config, total_steps=10, variables=[variable, *make_variables()[1:]], depths=DEPTHS, precision="float32"
    )
    schedule, own_rate = build_schedule(config, total_steps=10), compute_rates(config, DEPTHS)[0]
    w, m, v = before.astype(np.float64), np.zeros((5, 2)), np.zeros((5, 2))
    for t, rows in enumerate([[0, 3, 3], [3, 1, 0], [1, 1, 1]], start=1):
        values = rng.normal(size=(3, 2)).astype(np.float32)
        optimizer.apply_gradients([(tf.IndexedSlices(values, tf.constant(rows), (5, 2)), variable)])
        rate = float(schedule(t - 1)) * own_rate
        for row in set(rows):
            g = values[np.equal(rows, row)].sum(axis=0)
            m[row], v[row] = 0.9 * m[row] + 0.1 * g, 0.99 * v[row] + 0.01 * g * g
            w[row] *= 1 - rate * 0.3
            w[row] -= rate * math.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m[row] / (np.sqrt(v[row]) + 1e-3)
    np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(variable.numpy()[[2, 4]], before[[2, 4]])


def test_lamb_takes_the_steps_of_a_numpy_lamb_with_its_rates_and_exclusions():
    config = settings("lamb")
    before, gradients, after = take_steps(config, 4)
    schedule, rate_of = build_schedule(config, total_steps=10), compute_rates(config, DEPTHS)
    for number, name in enumerate(NAMES):
        w, m, v = before[number], 0.0, 0.0
        for t, step in enumerate(gradients, start=1):
            g = step[number].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
            trust = 1.0
            if name in DECAYED:
                update = update + 0.3 * w
                trust = np.linalg.norm(w) / np.linalg.norm(update)
            w = w - float(schedule(t - 1)) * rate_of[number] * trust * update
        np.testing.assert_allclose(after[number], w, rtol=1e-4, atol=1e-5, err_msg=name)


def test_float16_training_scales_the_loss():
    variables = make_variables()
    optimizer = build_optimizer(
        TrainingConfig(), total_steps=10, variables=variables, depths=DEPTHS, precision="mixed_float16"
    )
    assert isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_variable_that_the_network_does_not_list_is_refused_and_not_trained_at_a_guessed_rate(name):
    variables = make_variables()
    optimizer = build_optimizer(
        settings(name), total_steps=10, variables=variables, depths=DEPTHS, precision="float32"
    )
    stranger = tf.Variable(variables[0], name=variables[0].name[:-2])  # of the same name
    with pytest.raises(KeyError, match=r"token_embedding/embeddings:0 has no learning rate"):
        optimizer.apply_gradients([(tf.ones_like(stranger), stranger)])

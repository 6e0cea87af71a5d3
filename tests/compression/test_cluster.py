import numpy as np
import pytest

from app.compression.cluster import cluster_values


def test_weights_take_the_nearest_of_so_many_values():
    weights = np.random.default_rng(0).normal(size=(64, 8, 4)).astype(np.float32)
    found = cluster_values(weights, 16)
    values = np.unique(found)
    assert len(values) == 16 and found.shape == weights.shape and found.dtype == np.float32
    nearest = np.abs(weights[..., np.newaxis] - values).min(axis=-1)
    assert np.abs(weights - found) == pytest.approx(nearest, abs=1e-6)
    assert np.mean((weights - found) ** 2) < 0.012  # the best 16 values for a normal distribution: 0.0095 (Max 1960)


def test_pruned_weights_stay_0_and_0_is_one_of_the_values():
    weights = np.random.default_rng(1).normal(size=(40, 40)).astype(np.float32)
    weights[np.abs(weights) < 0.6] = 0
    found = cluster_values(weights, 8)
    assert np.array_equal(found == 0, weights == 0)
    assert len(np.unique(found)) == 8


def test_fewer_distinct_weights_than_values_stay_as_they_are():
    weights = np.array([[0.5, -1.0], [2.0, 0.5]], np.float32)
    assert np.array_equal(cluster_values(weights, 16), weights)
    assert not cluster_values(np.zeros((3, 3), np.float32), 4).any()

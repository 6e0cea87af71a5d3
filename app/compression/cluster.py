"""Compression room: few distinct values a kernel (Han et al. 2016), which makes the packed file small.

tfmot finds the first values; each weight takes the nearest, the values move to the means of their weights (Lloyd), and
fine-tuning moves them on while the weights stay with their values (`app/training/step.py`).
"""

from functools import partial
from typing import Any

import numpy as np

from app.compression.step import Bench, attention_kernels, feed_forward_kernels
from app.compression.tfmot import tfmot
from app.one_keras import keras

SAMPLE = 2**14  # weights from which tfmot chooses the first values
ROUNDS = 10  # of Lloyd's algorithm
FEWEST_ZEROS = 0.05  # from this part on, zeros were pruned and have a value to themselves


class Cluster:
    """Clusters attention and feed-forward kernels and the word-piece embedding, then tunes the values."""

    def run(self, bench: Bench) -> None:
        config = bench.config.cluster
        bench.once("cluster", partial(self._cluster, config.values))
        if config.epochs:
            bench.once("train", partial(bench.train, part="train", epochs=config.epochs))

    def _cluster(self, count: int, tagger: Any) -> Any:
        model = tagger.backbone.model
        kernels = [model.token_embedding.embeddings]
        for layer in model.transformer_layers:
            kernels += [*attention_kernels(layer), *feed_forward_kernels(layer)]
        for kernel in kernels:
            kernel.assign(cluster_values(kernel.numpy(), count))
        return tagger


def cluster_values(weights: np.ndarray, count: int) -> np.ndarray:
    """The weights, each moved to the nearest of at most `count` values; pruned ones stay 0, which is one of them.

    Args:
        weights: float32, any shape.
        count: at least 2.
    """
    flat = weights.ravel()
    chosen = flat != 0
    pruned = np.mean(~chosen) >= FEWEST_ZEROS
    if not pruned:
        chosen = np.ones_like(chosen)
    values = np.sort(flat[chosen])
    wanted = min(count - int(pruned), len(np.unique(values)))
    if wanted < 1:
        return weights
    centres = _first_centres(values, wanted)
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    for _ in range(ROUNDS):
        cuts = np.concatenate([[0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]])
        sizes = np.diff(cuts)
        means = np.diff(totals[cuts]) / np.maximum(sizes, 1)
        centres = np.sort(np.where(sizes > 0, means, centres).astype(np.float32))
    nearest = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, flat)]
    return np.where(chosen, nearest, np.float32(0)).reshape(weights.shape).astype(np.float32)


def _first_centres(values: np.ndarray, count: int) -> np.ndarray:
    """Centres of sorted values, by tfmot on a layer that holds an even sample of them: float32 [count], sorted."""
    if count == 1:
        return np.array([values.mean()], np.float32)
    sample = values[np.linspace(0, len(values) - 1, min(SAMPLE, len(values))).astype(np.int64)]
    carrier = keras.layers.Dense(1, use_bias=False)
    carrier.build((None, len(sample)))
    carrier.set_weights([sample[:, np.newaxis]])
    clustered = tfmot.clustering.keras.cluster_weights(
        carrier,
        number_of_clusters=count,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    )
    clustered.build((None, len(sample)))
    return np.sort(clustered.cluster_centroids["kernel"].numpy())

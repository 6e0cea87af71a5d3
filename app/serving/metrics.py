"""Serving room: what a server counts, for Prometheus."""

import collections
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2, 4, 8, 16)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of one server, in a registry of their own.

    Args:
        waiting: how many requests wait for a model now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("app_requests", "requests answered", ["path", "status"], registry=self._registry)
        self.seconds = Histogram(
            "app_request_seconds", "time to the answer", ["path"], buckets=SECONDS, registry=self._registry
        )
        self.batches = Histogram("app_batch_texts", "texts computed together", buckets=TEXTS, registry=self._registry)
        self.rejected = Counter(
            "app_requests_rejected", "requests refused by load or time", ["reason"], registry=self._registry
        )
        for reason in REASONS.values():
            self.rejected.labels(reason)
        self.layers = Counter(
            "app_answers_by_layer", "texts by the layer at which they left the network", ["layer"],
            registry=self._registry,
        )  # fmt: skip
        Gauge("app_queue_length", "requests that wait for a model", registry=self._registry).set_function(waiting)

    def count(self, path: str, status: int, seconds: float) -> None:
        """One request; `path` is that of its route, so that there are few."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        if status in REASONS:
            self.rejected.labels(REASONS[status]).inc()

    def count_layers(self, layers: Iterable[int]) -> None:
        """The layer at which each text of a batch left; of models with exits only."""
        for layer, texts in collections.Counter(layers).items():
            self.layers.labels(str(layer)).inc(texts)

    def text(self) -> bytes:
        return generate_latest(self._registry)


REASONS = {429: "queue", 504: "deadline", 413: "body", 401: "key", 503: "loading"}

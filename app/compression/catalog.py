"""Compression room: the steps by the names they have in `compression.steps`."""

from collections.abc import Callable

from app.compression.cluster import Cluster
from app.compression.prune_magnitude import PruneMagnitude
from app.compression.prune_structured import PruneStructured
from app.compression.quantize_aware import QuantizeAware
from app.compression.step import Step
from app.compression.trim_vocabulary import TrimVocabulary

STEPS: dict[str, Callable[[], Step]] = {
    "trim_vocabulary": TrimVocabulary,
    "prune_structured": PruneStructured,
    "prune_magnitude": PruneMagnitude,
    "cluster": Cluster,
    "quantize_aware": QuantizeAware,
}

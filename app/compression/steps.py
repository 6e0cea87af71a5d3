"""Compression room: the steps by the names they have in `compression.steps`."""

from collections.abc import Callable

from app.compression.prune_structured import PruneStructured
from app.compression.step import Step
from app.compression.trim_vocabulary import TrimVocabulary

STEPS: dict[str, Callable[[], Step]] = {
    "trim_vocabulary": TrimVocabulary,
    "prune_structured": PruneStructured,
}

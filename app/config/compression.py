"""Settings of --mode=compress: one section for each step."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class TrimVocabularyConfig:
    """Step trim_vocabulary: word pieces that the text does not need go."""

    min_piece_count: int = option(1, "how often the text must have a piece for it to stay", at_least=1)
    kept_first_pieces: int = option(
        20_000,
        "this many pieces from the beginning of the vocabulary are always kept; published ones are sorted by "
        "frequency, so this is what other text needs",
        at_least=0,
    )
    epochs: int = option(0, "epochs of fine-tuning after it", at_least=0)
    other_path: str = option("", "corpus of other text on which its loss is measured too; empty = none", path="path")


@dataclass(frozen=True)
class PruneStructuredConfig:
    """Step prune_structured: attention heads, feed-forward columns and layers go, in rounds with fine-tuning."""

    flops_fraction: float = option(
        0.5, "part of the encoder's operations that is left; with costs=int8, of the time they take", above=0, below=1
    )
    costs: str = option(
        "operations",
        "what a head and a feed-forward column cost: their operations, or int8: the time that they take in the int8 "
        "TFLite file on this machine for a text of latency_length pieces, where heads cost more",
        choices=("operations", "int8"),
    )
    latency_ms: float = option(
        0.0,
        "milliseconds per text on this machine (of latency_length pieces), instead of flops_fraction; 0 = off",
        at_least=0,
    )
    removed_layers: int = option(0, "whole layers that go first", at_least=0)
    rounds: int = option(2, "rounds of removing and fine-tuning", at_least=1)
    epochs: int = option(2, "epochs of fine-tuning in a round", at_least=0)
    last_epochs: int = option(4, "the same, in the last round", at_least=0)
    importance_steps: int = option(64, "batches on which importance is measured", at_least=1)


@dataclass(frozen=True)
class PruneMagnitudeConfig:
    """Step prune_magnitude: the smallest weights become 0."""

    sparsity: float = option(0.5, "part of the weights that becomes 0", above=0, below=1)
    sparsity_2_by_4: bool = option(
        False, "2 of 4 neighbours in the feed-forward kernels become 0, and nothing else"
    )
    embeddings: bool = option(True, "prune the word embeddings too")
    update_every_steps: int = option(100, "steps between two updates of the masks", at_least=1)
    epochs: int = option(4, "epochs; sparsity rises in the first half", at_least=1)


@dataclass(frozen=True)
class ClusterConfig:
    """Step cluster: weights share few values."""

    values: int = option(16, "distinct values left in a kernel", at_least=2, at_most=256)
    epochs: int = option(1, "epochs in which the values are tuned", at_least=0)


@dataclass(frozen=True)
class QuantizeAwareConfig:
    """Step quantize_aware: training through the rounding of int8."""

    epochs: int = option(2, "epochs of it", at_least=1)


@dataclass(frozen=True)
class CompressionConfig:
    """How a fine-tuned run is made smaller and faster. Batch size, optimizer and schedule: see TrainingConfig."""

    steps: tuple[str, ...] = option(
        ("prune_structured",),
        "steps, in their order",
        choices=("trim_vocabulary", "prune_structured", "prune_magnitude", "cluster", "quantize_aware"),
    )
    distill: bool = option(True, "learn from the uncompressed network beside the labels while fine-tuning")
    latency_length: int = option(64, "pieces of the text whose latency is measured", at_least=8, at_most=512)
    trim_vocabulary: TrimVocabularyConfig = TrimVocabularyConfig()
    prune_structured: PruneStructuredConfig = PruneStructuredConfig()
    prune_magnitude: PruneMagnitudeConfig = PruneMagnitudeConfig()
    cluster: ClusterConfig = ClusterConfig()
    quantize_aware: QuantizeAwareConfig = QuantizeAwareConfig()

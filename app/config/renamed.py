"""Keys that had another name once: a user is told the new one, the config.yaml of a run directory keeps working."""

from __future__ import annotations

from collections.abc import Iterable

from app.config.options import InputError

# Old key: new key, of the same meaning.
RENAMED = {
    "compression.min_piece_count": "compression.trim_vocabulary.min_piece_count",
    "compression.kept_first_pieces": "compression.trim_vocabulary.kept_first_pieces",
    "compression.trim_epochs": "compression.trim_vocabulary.epochs",
    "compression.other_path": "compression.trim_vocabulary.other_path",
    "compression.flops_fraction": "compression.prune_structured.flops_fraction",
    "compression.latency_ms": "compression.prune_structured.latency_ms",
    "compression.removed_layers": "compression.prune_structured.removed_layers",
    "compression.structured_rounds": "compression.prune_structured.rounds",
    "compression.structured_epochs": "compression.prune_structured.epochs",
    "compression.structured_last_epochs": "compression.prune_structured.last_epochs",
    "compression.importance_steps": "compression.prune_structured.importance_steps",
    "compression.sparsity": "compression.prune_magnitude.sparsity",
    "compression.sparsity_2_by_4": "compression.prune_magnitude.sparsity_2_by_4",
    "compression.prune_embeddings": "compression.prune_magnitude.embeddings",
    "compression.prune_frequency_steps": "compression.prune_magnitude.update_every_steps",
    "compression.magnitude_epochs": "compression.prune_magnitude.epochs",
    "compression.clusters": "compression.cluster.values",
    "compression.cluster_epochs": "compression.cluster.epochs",
    "compression.quantize_epochs": "compression.quantize_aware.epochs",
    "training.masked_lm_epochs": "training.masked_lm.epochs",
    "training.masked_lm_learning_rate": "training.masked_lm.learning_rate",
    "training.masked_lm_fraction": "training.masked_lm.fraction",
    "distill.hidden_weight": "distill.hidden.weight",
    "distill.hidden_student_layers": "distill.hidden.student_layers",
    "distill.hidden_teacher_layers": "distill.hidden.teacher_layers",
    "distill.relation_weight": "distill.relation.weight",
    "distill.relations": "distill.relation.vectors",
    "distill.relation_heads": "distill.relation.heads",
    "distill.relation_student_layer": "distill.relation.student_layer",
    "distill.relation_teacher_layer": "distill.relation.teacher_layer",
    "benchmark.other_runs": "benchmark.frontier.other_runs",
    "benchmark.peer_python": "benchmark.frontier.peer_python",
    "benchmark.lengths": "benchmark.frontier.lengths",
    "benchmark.threads": "benchmark.frontier.threads",
    "benchmark.batch_sizes": "benchmark.frontier.batch_sizes",
    "benchmark.words": "benchmark.frontier.words",
    "benchmark.rounds": "benchmark.frontier.rounds",
}


def refuse_old_keys(keys: Iterable[str], *, origin: str) -> None:
    """Raises InputError, which names all new keys at once, if any of the keys has another name now."""
    old = [f"{key} is now {RENAMED[key]}" for key in keys if key in RENAMED]
    if old:
        raise InputError(f"{'; '.join(old)} (received in {origin})")

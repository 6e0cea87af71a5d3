"""Settings of --mode=benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class FrontierConfig:
    """objective=frontier: the exports of a run, and of others, side by side."""

    other_runs: tuple[str, ...] = option((), "further runs, compressed ones, whose exports join in", path="path")
    peer_python: str = option(
        "", "a Python with onnxruntime, torch and transformers, to measure ONNX Runtime too; empty = none", path="path"
    )
    lengths: tuple[int, ...] = option((32, 64, 128), "pieces of the texts of latency", at_least=1)
    threads: tuple[int, ...] = option(
        (1, 2), "threads that latency is measured with; words/s with the most of them", at_least=1
    )
    batch_sizes: tuple[int, ...] = option(
        (1, 4, 16), "rows in a batch, from which words/s takes the fastest for each contestant", at_least=1
    )
    words: int = option(5000, "words of the evaluation corpus that words/s is measured on; 0 = all", at_least=0)
    rounds: int = option(15, "rounds of latency; words/s takes a third of them", at_least=1)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measurement of speed."""

    objective: str = option(
        "task",
        "training for the task on data.train_path, or of a backbone on pretrain.train_path; or size, score and "
        "speed of the exports of a run; tagging is an older name of task",
        choices=("task", "tagging", "masked_lm", "frontier"),
    )
    steps: int = option(20, "steps that are measured", at_least=1)
    warmup_steps: int = option(5, "steps before them that are not", at_least=0)
    frontier: FrontierConfig = FrontierConfig()

"""Evaluation room: the exports of a run, and of others, side by side: size, entity F1, latency and words/s."""

import dataclasses
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.config import Config, FrontierConfig, InputError, RunError
from app.config.rules import require_numbers
from app.encoder.sources import read_json
from app.evaluation.frontier import ONNX, TFLITE, Contestant, find_frontier, frontier_page, text_table, within
from app.evaluation.frontier_entrants import (
    Entrant,
    OpenedRun,
    make_entrants,
    open_runs,
    path_of,
    sample_documents,
    write_batches,
)
from app.evaluation.frontier_peer import check_peer
from app.evaluation.plots import frontier_png
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.evaluation.timing import load_batches, time_in_rounds
from app.run.directory import Request, RunDirectory
from app.run.environment import describe_environment
from app.run.screen import heartbeat, say
from app.tasks.corpora import describe_corpora, read_scored_split
from app.tasks.task import Summary, Task

CALLS = 3  # calls in a turn of latency, after one that does not count; the median of them is the turn's
POINTS = (0.5, 1.0)  # losses of F1, in points of 100, for which the fastest and the smallest file are named
LARGEST_DIFFERENCE = 0.01  # of a logit between Keras and the peer's float network: more is another network


def measure_frontier(request: Request) -> dict[str, float]:
    """Writes `reports/frontier.json`, `.txt`, `.png` and `.html` of the run directory, and prints the table.

    Nothing else should run on the machine. F1 is scored anew for every model, on one corpus and by one predictor, and
    remembered in `reports/scores.json` by the checksums of model and corpus.
    """
    config, run_dir, settings = request.config, request.run_dir, request.config.benchmark.frontier
    require_numbers(config)
    if settings.peer_python:
        check_peer(settings.peer_python)
    runs = open_runs(run_dir, settings.other_runs, config.data)
    longest = min(run.tagger.backbone.model.max_sequence_length for run in runs)
    if max(settings.lengths) > longest:
        raise InputError(
            f"benchmark.frontier.lengths must be at most {longest} (positions), received {max(settings.lengths)}"
        )
    corpus, sentences = _read_corpus(config, runs)
    with run_dir.locked(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("starting the runtimes")
        with heartbeat("starting the runtimes"):
            entrants = list(make_entrants(runs, settings, stack, folder))
        scores = _score(entrants, sentences, config, run_dir, digest=corpus.digest)
        sample = sample_documents(runs[0].tagger.task, sentences, settings.words)
        write_batches(runs, sample, settings, folder)
        differences = _check_peer_network(entrants, settings, folder)
        with heartbeat("measuring"):
            units = sum(runs[0].tagger.task.count_units(each) for each in sample)
            contestants = _measure(entrants, scores, settings, folder, words=units)
        return _write(contestants, config, run_dir, differences, corpus, task=runs[0].tagger.task)


def _read_corpus(config: Config, runs: Sequence[OpenedRun]) -> tuple[Summary, list[Any]]:
    split = config.evaluation.split
    purpose = f"F1 and words/s are measured on evaluation.split={split}"
    corpus, summary = read_scored_split(config, split, model=runs[0].tagger, purpose=purpose)
    return summary, list(corpus.examples())


def _score(
    entrants: Sequence[Entrant], sentences: Sequence[Any], config: Config, run_dir: RunDirectory, *, digest: str
) -> dict[str, float]:
    """Entity F1 by name."""
    path = run_dir.reports / "scores.json"
    known: dict[str, float] = read_json(path) if path.is_file() else {}
    scores = {}
    for each in entrants:
        parts = (digest, each.run.rows_key(), each.runtime, each.identity, str(config.evaluation.batch_size))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        if key not in known:
            predictor = build_predictor(
                each.run.tagger, each.run.encoder, batch_size=config.evaluation.batch_size, forward=each.forward
            )
            with heartbeat(f"{each.name:<32} scoring"):
                known[key] = score(predictor, sentences).headline
            run_dir.write_json(path, known)
        scores[each.name] = known[key]
        say(f"{each.name:<32} {each.run.tagger.task.headline_name} {known[key]:.4f}")
    return scores


def _check_peer_network(
    entrants: Sequence[Entrant], settings: FrontierConfig, folder: Path
) -> dict[str, float]:
    """The largest difference between the logits of Keras and of ONNX Runtime's float network; empty without a peer.

    Raises:
        RunError: it is larger than rounding explains.
    """
    peers = [each for each in entrants if each.runtime == ONNX and each.variant.endswith("float32")]
    if not peers:
        return {}
    own = next(each for each in entrants if each.run is peers[0].run and each.variant == "Keras")
    batches = load_batches(path_of(folder, own.run, f"try{min(settings.batch_sizes)}"))
    largest = 0.0
    for batch in batches:
        real = batch["padding_mask"] > 0
        one, other = own.forward(batch)[real], peers[0].forward(batch)[real]
        largest = max(largest, float(np.abs(one - other).max()))
    if not largest <= LARGEST_DIFFERENCE:
        raise RunError(f"ONNX Runtime's float network is another one: its logits differ by up to {largest:.3g}")
    return {"benchmark/frontier/onnx_largest_logit_difference": largest}


def _measure(
    entrants: Sequence[Entrant], scores: dict[str, float], settings: FrontierConfig, folder: Path, *, words: int
) -> list[Contestant]:
    latencies: dict[str, dict[tuple[int, int], float]] = {each.name: {} for each in entrants}
    for threads in settings.threads:
        for length in settings.lengths:
            say(f"latency of {length} pieces, {threads} threads")
            tasks = {
                each.name: partial(each.time, path_of(folder, each.run, f"length{length}"), threads, CALLS, 1)
                for each in entrants
            }
            for name, median in time_in_rounds(tasks, rounds=settings.rounds).items():
                latencies[name][length, threads] = 1000 * median
    most = max(settings.threads)
    say(f"{entrants[0].run.tagger.task.unit}/s with {most} threads")
    tries = {
        (each.name, size): partial(each.time, path_of(folder, each.run, f"try{size}"), most, 1, 0)
        for each in entrants
        for size in settings.batch_sizes
    }
    seconds_tried = time_in_rounds(tries, rounds=2)
    sizes = {
        each.name: min(settings.batch_sizes, key=lambda size, name=each.name: seconds_tried[name, size])  # type: ignore[misc]
        for each in entrants
    }
    passes = {
        each.name: partial(each.time, path_of(folder, each.run, f"batch{sizes[each.name]}"), most, 1, 0)
        for each in entrants
    }
    seconds = time_in_rounds(passes, rounds=max(1, settings.rounds // 3))
    return [
        Contestant(
            run=each.run.name,
            variant=each.variant,
            runtime=each.runtime,
            bytes=each.bytes,
            f1=scores[each.name],
            latency_ms=latencies[each.name],
            words_per_second=words / seconds[each.name],
            batch_size=sizes[each.name],
            identity=each.identity,
        )
        for each in entrants
    ]


def _write(
    contestants: list[Contestant],
    config: Config,
    run_dir: RunDirectory,
    metrics: dict[str, float],
    corpus: Summary,
    *,
    task: Task,
) -> dict[str, float]:
    settings = config.benchmark.frontier
    first = next(each for each in contestants if each.variant == "Keras")
    notes = [
        f"F1 of {config.evaluation.split} ({corpus.source}); {task.unit}/s: logits of pieces cut beforehand, "
        f"{max(settings.threads)} threads, batch as fastest; * no other is smaller, better and faster at once",
        *_summaries(contestants, first, metrics, unit=task.unit),
    ]
    lengths = sorted(settings.lengths)
    setting = (lengths[len(lengths) // 2], max(settings.threads))
    best = find_frontier(contestants, setting=setting)
    title = f"{first.run}: size, {task.headline_name} and latency"
    table = text_table(contestants, best=best, title=title, notes=notes, unit=task.unit)
    picture = frontier_png(contestants, best=best, setting=setting, score=task.headline_name)
    page = frontier_page(contestants, picture=picture, best=best, title=title, notes=notes, unit=task.unit)
    report = {
        "contestants": [_record(each, headline=task.headline, on_frontier=each.name in best) for each in contestants],
        "frontier_latency": {"pieces": setting[0], "threads": setting[1]},
        "summary": metrics,
        "corpora": describe_corpora(config.data, {config.evaluation.split: corpus}),
        "settings": dataclasses.asdict(settings),
        "environment": describe_environment(seed=config.seed, command=sys.argv),
    }
    run_dir.write_json(run_dir.reports / "frontier.json", report)
    run_dir.write_text(run_dir.reports / "frontier.txt", table)
    run_dir.write_bytes(run_dir.reports / "frontier.png", picture)
    run_dir.write_text(run_dir.reports / "frontier.html", page)
    run_dir.update_metrics(metrics)
    print(table, end="")
    say(f"written to {run_dir.reports}")
    return metrics


def _summaries(
    contestants: list[Contestant], first: Contestant, metrics: dict[str, float], *, unit: str
) -> list[str]:
    """Sentences about the fastest and the smallest file within each loss of F1; their numbers go to `metrics`."""
    peer = next((each for each in contestants if each.runtime == ONNX and each.variant.endswith("int8")), None)
    lines = []
    for points in POINTS:
        good = within(contestants, float_f1=first.f1, points=points)
        if not good:
            lines.append(f"no {TFLITE} file is within {points} points of F1")
            continue
        fastest, smallest = max(good, key=lambda each: each.words_per_second), min(good, key=lambda each: each.bytes)
        metrics[f"benchmark/frontier/fastest_within_{points}/{unit}_per_second"] = fastest.words_per_second
        metrics[f"benchmark/frontier/smallest_within_{points}/bytes"] = smallest.bytes
        line = f"of the {TFLITE} files within {points} points of the float model's F1: "
        line += f"smallest {smallest.name}, {smallest.bytes / 1e6:.2f} MB; "
        line += f"fastest {fastest.name}, {fastest.words_per_second:,.0f} {unit}/s"
        if peer:
            ratio = fastest.words_per_second / peer.words_per_second
            metrics[f"benchmark/frontier/fastest_within_{points}/times_onnx_int8"] = ratio
            line += f", {ratio:.2f} times {peer.runtime} int8 of {peer.run}"
        lines.append(line)
    return lines


def _record(each: Contestant, *, headline: str, on_frontier: bool) -> dict[str, Any]:
    latencies = [
        {"pieces": pieces, "threads": threads, "milliseconds": value}
        for (pieces, threads), value in each.latency_ms.items()
    ]
    columns = {headline if name == "f1" else name: value for name, value in dataclasses.asdict(each).items()}
    return {**columns, "latency_ms": latencies, "on_frontier": on_frontier}

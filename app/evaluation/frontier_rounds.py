"""Evaluation room: the models of a frontier, each in its own runtime, scored and timed in rounds."""

import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from app.config import Config, DataConfig, FrontierConfig, InputError, RunError
from app.config.paths import shown
from app.config.rules import require_numbers
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.sources import SUMS_FILE, read_json, read_sums
from app.evaluation.frontier import ONNX, TFLITE, Contestant, find_frontier, frontier_page, text_table, within
from app.evaluation.frontier_peer import check_peer, start_peer, write_network
from app.evaluation.frontier_plot import frontier_png
from app.evaluation.gate import mention_refusal, read_refusals
from app.evaluation.litert import RowByRow, TFLiteModel, load_tflite
from app.evaluation.manifest import MANIFEST, read_manifest, require_exports, versions
from app.evaluation.predictor import EarlyForward, Features, Forward, join_rows
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.evaluation.timing import TimedProcess, load_batches, save_batches, time_batches, time_in_rounds
from app.run.directory import Request, RunDirectory, sha256_of_file
from app.run.environment import describe_environment
from app.run.screen import heartbeat, say
from app.tasks.bundle import load_model
from app.tasks.corpora import describe_corpora, read_scored_split
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Summary, Task


@dataclass(frozen=True)
class OpenedRun:
    """A finished run.

    Attributes:
        name: of its folder, with those above it that tell it from another of the same name.
        run_dir: where it lies; tagger: its model; encoder: what feeds it, with the run's own row length.
        data: the run's settings of rows.
    """

    name: str
    run_dir: RunDirectory
    tagger: TaskModel
    encoder: Encoder
    data: DataConfig

    def rows_key(self) -> str:
        """What the rows of a corpus depend on beside the corpus and the model."""
        return f"{self.data.max_length}/{self.data.overlap_tokens}/{self.data.packing}"


@dataclass(frozen=True)
class Entrant:
    """A model in its runtime.

    Attributes:
        run: whose weights and word pieces these are.
        variant: the file's name, or another word for it.
        runtime: its name.
        bytes: size of its files.
        identity: checksum of the model.
        forward: logits, with the most threads.
        time: (file of batches, threads, calls, warm-up calls) -> median seconds of a pass over them.
        early: instead of `forward`, of a file that is left early by what it is sure of.
    """

    run: OpenedRun
    variant: str
    runtime: str
    bytes: int
    identity: str
    forward: Forward
    time: Callable[[Path, int, int, int], float]
    early: EarlyForward | None = None

    @property
    def name(self) -> str:
        return f"{self.run.name} {self.variant}"


def open_runs(run_dir: RunDirectory, others: Sequence[str], data: DataConfig) -> list[OpenedRun]:
    """The run of `--run_dir` and those of `benchmark.frontier.other_runs`, checked before anything is measured.

    Raises:
        InputError: one is no finished run, has no exports, is there twice, or has other labels than the first.
    """
    runs: list[OpenedRun] = []
    folders = [run_dir, *map(RunDirectory, others)]
    names = [shown(name) for name in name_apart([folder.path.resolve() for folder in folders])]
    for number, (folder, name) in enumerate(zip(folders, names, strict=True)):
        folder.require_run("benchmark.frontier.other_runs" if number else "--run_dir")
        if not (folder.tflite / MANIFEST).is_file():
            for refused in sorted(set(read_refusals(folder)) - {"int8_text", "saved_model"}):
                mention_refusal(folder, refused, there=False)
        require_exports(folder)
        tagger = load_model(folder.model)
        if runs and tagger.labels != runs[0].tagger.labels:
            raise InputError(
                f"benchmark.frontier.other_runs must have the labels of {run_dir}, {', '.join(runs[0].tagger.labels)}; "
                f"{folder} has {', '.join(tagger.labels)}"
            )
        if folder.path.resolve() in {run.run_dir.path.resolve() for run in runs}:
            raise InputError(f"benchmark.frontier.other_runs must be other runs, received {folder} a second time")
        own = folder.read_config().data if number else data
        runs.append(OpenedRun(name, folder, tagger, build_encoder(tagger, own), own))
    return runs


def name_apart(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of absolute paths that tell each from all others: `run`, or `first/run` and `second/run`."""

    def end(path: Path) -> str:
        others = [other.parts for other in paths if other != path]
        for length in range(1, len(path.parts)):
            if all(other[-length:] != path.parts[-length:] for other in others):
                return "/".join(path.parts[-length:])
        return str(path)

    return [end(path) for path in paths]


def sample_documents(task: Task, examples: Sequence[Any], words: int) -> list[Any]:
    """Whole documents, spread evenly over a corpus, of about so many words; 0 = all."""
    documents = [list(group) for _, group in groupby(examples, key=task.group_of)]
    total = sum(len(task.words_of(example)) for example in examples)
    step = max(1, round(total / words)) if words else 1
    return [example for document in documents[::step] for example in document]


def make_batches(run: OpenedRun, sentences: Iterable[Any], size: int) -> list[Features]:
    """A corpus as batches of rows, the short ones together."""
    rows = sorted(run.encoder.scoring_rows(sentences), key=lambda row: int(np.count_nonzero(row.padding_mask)))
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    batches = (join_rows(part, int(np.count_nonzero(part[-1].padding_mask))) for part in parts)
    return [_with_units(run, features, unit_ids) for features, unit_ids in batches]


def _with_units(run: OpenedRun, features: Features, unit_ids: np.ndarray) -> Features:
    """What a file with exits has to be sure of is an input of it, which others do not read."""
    name = run.tagger.task.unit_input
    return {**features, name: (unit_ids >= 0).astype(np.int32)} if run.tagger.exits and name else features


def make_text(run: OpenedRun, sentences: Iterable[Any], length: int) -> Features:
    """The beginning of the longest row of a corpus, repeated if it is shorter: one text of `length` pieces."""
    longest = max(run.encoder.scoring_rows(sentences), key=lambda row: int(np.count_nonzero(row.padding_mask)))
    size = int(np.count_nonzero(longest.padding_mask))
    text = {
        name: np.resize(getattr(longest, name)[:size], (1, length)).astype(np.int32)
        for name in FEATURES
    }
    return _with_units(run, text, np.resize(longest.unit_ids[:size], (1, length)))


def make_entrants(
    runs: Sequence[OpenedRun], settings: FrontierConfig, stack: ExitStack, folder: Path
) -> Iterator[Entrant]:
    """Every TFLite file of every run; of the first run also Keras, the SavedModel if there is one, and ONNX Runtime.

    Args:
        runs: opened.
        settings: section `benchmark.frontier`.
        stack: ends the processes that are started.
        folder: for files that go between processes.
    """
    first, most = runs[0], max(settings.threads)
    models = {"Keras": first.run_dir.model}
    if found := versions(first.run_dir.saved_model):
        models["SavedModel"] = first.run_dir.saved_model / str(found[-1])
    peer, network = None, first.run_dir.path
    if settings.peer_python:
        network = write_network(first.tagger, first.run_dir)
        peer = stack.enter_context(start_peer(settings.peer_python, network))
    workers = {threads: stack.enter_context(_start_worker(threads, models)) for threads in sorted(settings.threads)}
    for process in (*workers.values(), *filter(None, [peer])):
        process.wait()  # they come up beside one another, and are all there before anything is measured
    for run in runs:
        for file in sorted(read_manifest(run.run_dir.tflite)["files"]):
            yield enter_tflite(run, file.removesuffix(".tflite"), most)
    for name, path in models.items():
        yield _tensorflow(first, name, path, workers, most=most, folder=folder)
    for name in ("float32", "int8") if peer else ():
        assert peer is not None
        yield Entrant(
            run=first,
            variant=f"ONNX {name}",
            runtime=ONNX,
            bytes=peer.wait()["bytes"][name],
            identity=f"{network.name} {name} {peer.wait()['version']}",
            forward=peer.forward(name, threads=most, folder=folder),
            time=partial(_ask, {threads: peer for threads in settings.threads}, name),
        )


def enter_tflite(run: OpenedRun, name: str, most: int) -> Entrant:
    """A TFLite file of a run, timed with up to so many threads."""
    entry = read_manifest(run.run_dir.tflite)["files"][f"{name}.tflite"]
    models: dict[int, TFLiteModel] = {}
    loaded: dict[Path, list[Features]] = {}

    def model_with(threads: int) -> TFLiteModel:
        if threads not in models:
            models[threads] = load_tflite(run.run_dir.tflite, name, labels=run.tagger.labels, threads=threads)
        return models[threads]

    def time(batches: Path, threads: int, calls: int, warm_up: int) -> float:
        if batches not in loaded:
            loaded[batches] = load_batches(batches)
        return time_batches(model_with(threads).forward, loaded[batches], calls=calls, warm_up=warm_up)

    model = model_with(most)
    early = RowByRow(model.run, labels=len(run.tagger.labels), unit_input=run.tagger.task.unit_input)
    return Entrant(
        run=run,
        variant=name,
        runtime=TFLITE,
        bytes=entry["bytes"],
        identity=entry["sha256"],
        forward=model.forward,
        time=time,
        early=early if model.has_exits else None,
    )


def _tensorflow(
    run: OpenedRun, variant: str, path: Path, workers: dict[int, TimedProcess], *, most: int, folder: Path
) -> Entrant:
    """Keras from the bundle's folder, or a version of the SavedModel."""
    named = [path / SUMS_FILE] if variant == "Keras" else sorted(file for file in path.rglob("*") if file.is_file())
    files = [path / name for name in read_sums(path)] if variant == "Keras" else named
    return Entrant(
        run=run,
        variant=variant,
        runtime="TensorFlow",
        bytes=sum(file.stat().st_size for file in files),
        identity=" ".join(sha256_of_file(file) for file in named),
        forward=workers[most].forward(variant, threads=most, folder=folder),
        time=partial(_ask, workers, variant),
    )


def _start_worker(threads: int, models: dict[str, Path]) -> TimedProcess:
    named = json.dumps({name: str(path) for name, path in models.items()})
    return TimedProcess(
        [sys.executable, "-m", "app.evaluation.frontier_worker", str(threads), named], name="TensorFlow's process"
    )


def _ask(processes: dict[int, TimedProcess], model: str, batches: Path, threads: int, calls: int, warm: int) -> float:
    answer = processes[threads].ask(model=model, batches=str(batches), threads=threads, calls=calls, warm_up=warm)
    return float(answer["seconds"])


def write_batches(
    runs: Sequence[OpenedRun], sentences: Sequence[Any], settings: FrontierConfig, folder: Path
) -> None:
    """The inputs of all measurements, as files that every process can read: `path_of` names them."""
    some = sample_documents(runs[0].tagger.task, sentences, settings.words // 3)
    for run in runs:
        for length in settings.lengths:
            save_batches(path_of(folder, run, f"length{length}"), [make_text(run, some, length)])
        for size in settings.batch_sizes:
            save_batches(path_of(folder, run, f"try{size}"), make_batches(run, some, size))
            save_batches(path_of(folder, run, f"batch{size}"), make_batches(run, sentences, size))


def path_of(folder: Path, run: OpenedRun, what: str) -> Path:
    return folder / f"{hashlib.sha256(run.name.encode()).hexdigest()[:16]}-{what}.npz"  # a name may be too long


# The exports of a run, and of others, side by side: size, entity F1, latency and words/s.


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
            predictor = dataclasses.replace(predictor, early=each.early)
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

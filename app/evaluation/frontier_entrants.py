"""Evaluation room: the models of a frontier, each ready to be timed and scored in its own runtime."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from app.config import DataConfig, FrontierConfig, InputError
from app.config.paths import shown
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.sources import SUMS_FILE, read_sums
from app.evaluation.frontier import ONNX, TFLITE
from app.evaluation.frontier_peer import start_peer, write_network
from app.evaluation.gate import mention_refusal, read_refusals
from app.evaluation.manifest import MANIFEST, read_manifest, require_exports, versions
from app.evaluation.predictor import Features, Forward, join_rows
from app.evaluation.runtimes import load_tflite_forward
from app.evaluation.timing import TimedProcess, load_batches, save_batches, time_batches
from app.run.directory import RunDirectory, sha256_of_file
from app.tasks.bundle import load_model
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Task


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
    """

    run: OpenedRun
    variant: str
    runtime: str
    bytes: int
    identity: str
    forward: Forward
    time: Callable[[Path, int, int, int], float]

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
    return [join_rows(part, int(np.count_nonzero(part[-1].padding_mask)))[0] for part in parts]


def make_text(run: OpenedRun, sentences: Iterable[Any], length: int) -> Features:
    """The beginning of the longest row of a corpus, repeated if it is shorter: one text of `length` pieces."""
    longest = max(run.encoder.scoring_rows(sentences), key=lambda row: int(np.count_nonzero(row.padding_mask)))
    size = int(np.count_nonzero(longest.padding_mask))
    return {
        name: np.resize(getattr(longest, name)[:size], (1, length)).astype(np.int32)
        for name in FEATURES
    }


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
            yield _tflite(run, file.removesuffix(".tflite"), most)
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


def _tflite(run: OpenedRun, name: str, most: int) -> Entrant:
    entry = read_manifest(run.run_dir.tflite)["files"][f"{name}.tflite"]
    forwards: dict[int, Forward] = {}
    loaded: dict[Path, list[Features]] = {}

    def forward_with(threads: int) -> Forward:
        if threads not in forwards:
            forwards[threads] = load_tflite_forward(
                run.run_dir.tflite, name, labels=run.tagger.labels, threads=threads
            )
        return forwards[threads]

    def time(batches: Path, threads: int, calls: int, warm_up: int) -> float:
        if batches not in loaded:
            loaded[batches] = load_batches(batches)
        return time_batches(forward_with(threads), loaded[batches], calls=calls, warm_up=warm_up)

    return Entrant(run, name, TFLITE, entry["bytes"], entry["sha256"], forward_with(most), time)


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

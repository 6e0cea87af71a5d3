"""Evaluation room: a runtime in a process of its own, asked for times and logits.

For runtimes that fix their number of threads for the whole process (TensorFlow), or live in another environment (ONNX
Runtime). A request is a line of JSON on the process's standard input, the answer one on its standard output:

    {"model": NAME, "batches": FILE, "threads": N, "calls": C, "warm_up": W}   -> {"seconds": S}
    {"model": NAME, "batches": FILE, "threads": N, "logits": FILE}             -> {}

The first line the process writes, {"ready": true, ...}, says what it is. `batches` is an `.npz` (see `save_batches`);
`seconds` is the median of C passes over all of them, W passes before that not counted. Logits go to an `.npz` with one
array a batch. A process that is not asked waits in a read and uses no processor.
"""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

import numpy as np

from app.config import RunError
from app.evaluation.predictor import Features, Forward


def save_batches(path: Path, batches: Sequence[Features]) -> None:
    """Batches as one `.npz`, its arrays named `NUMBER/FEATURE`."""
    arrays = {f"{number}/{name}": values for number, batch in enumerate(batches) for name, values in batch.items()}
    np.savez(path, **arrays)


def load_batches(path: Path) -> list[Features]:
    """What `save_batches` wrote."""
    batches: dict[int, Features] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            batches.setdefault(int(number), {})[name] = arrays[key]
    return [batches[number] for number in sorted(batches)]


class TimedProcess:
    """A process that answers as the module says; to be used in a `with` block, which ends it.

    Args:
        command: what to start.
        name: for messages.
        environment: of the process; None = as this one's.

    Raises:
        RunError: from any method, when the process cannot be started or ends; with the last line it wrote.
    """

    def __init__(self, command: Sequence[str], *, name: str, environment: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._errors: TextIO = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                text=True, encoding="utf-8", env=None if environment is None else dict(environment),
            )  # fmt: skip
        except OSError as error:
            raise RunError(f"{name} could not be started: {error}") from error
        self._about: dict[str, Any] | None = None

    def __enter__(self) -> "TimedProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin:
            self._process.stdin.close()  # the process ends at the end of its input
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def wait(self) -> dict[str, Any]:
        """What the process says it is, as soon as it is ready."""
        if self._about is None:
            self._about = self._read()
        return self._about

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request."""
        self.wait()
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended; reading says why
        return self._read()

    def forward(self, model: str, *, threads: int, folder: Path) -> Forward:
        """The process as a forward pass of the one predictor; tensors go through files in a folder."""

        def call(features: Features) -> np.ndarray:
            save_batches(folder / "features.npz", [features])
            answer = folder / "logits.npz"
            self.ask(model=model, batches=str(folder / "features.npz"), threads=threads, logits=str(answer))
            with np.load(answer) as arrays:
                return np.asarray(arrays["0"])

        return call

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        try:
            return dict(json.loads(line))
        except ValueError as error:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            said = [each.strip() for each in self._errors.read().splitlines() if each.strip()] or [line.strip()]
            raise RunError(f"{self._name} ended: {said[-1] or 'it said nothing'}") from error


def answer_requests(
    forwards: Callable[[str, int], Forward], requests: TextIO, answers: TextIO, *, about: Mapping[str, Any]
) -> None:
    """The other side, for a process in Python that can import this module; returns at the end of the requests.

    Args:
        forwards: (model, threads) -> its forward pass.
        requests: lines of JSON.
        answers: where lines of JSON go.
        about: goes with "ready".
    """
    loaded: dict[str, list[Features]] = {}

    def write(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    write({"ready": True, **about})
    for line in requests:
        request = json.loads(line)
        forward = forwards(request["model"], request["threads"])
        path = request["batches"]
        if "logits" in request:
            found = [forward(batch) for batch in load_batches(Path(path))]
            np.savez(request["logits"], **{str(number): values for number, values in enumerate(found)})
            write({})
            continue
        if path not in loaded:
            loaded[path] = load_batches(Path(path))
        seconds = time_batches(forward, loaded[path], calls=request["calls"], warm_up=request["warm_up"])
        write({"seconds": seconds})


def time_batches(forward: Forward, batches: Sequence[Features], *, calls: int, warm_up: int) -> float:
    """Median seconds of a pass over batches."""

    def once() -> None:
        for batch in batches:
            forward(batch)

    return time_calls(once, calls=calls, warm_up=warm_up)


# Several contestants timed in turns, so that a machine whose speed drifts is as slow for one as for the other.


PAUSE_SECONDS = 0.01  # threads of the last contestant that still spin go to sleep

Key = TypeVar("Key")


def time_in_rounds(tasks: Mapping[Key, Callable[[], float]], *, rounds: int) -> dict[Key, float]:
    """The median of what each task measures. In a round each has one turn; the next round begins with the next task.

    Args:
        tasks: each does its work and returns the seconds it took.
        rounds: at least 1.
    """
    keys = list(tasks)
    found: dict[Key, list[float]] = {key: [] for key in keys}
    for number in range(rounds):
        first = number % len(keys) if keys else 0
        for key in keys[first:] + keys[:first]:
            time.sleep(PAUSE_SECONDS)
            found[key].append(tasks[key]())
    return {key: statistics.median(seconds) for key, seconds in found.items()}


def time_calls(call: Callable[[], object], *, calls: int, warm_up: int) -> float:
    """Median seconds of a call, after some that do not count."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)

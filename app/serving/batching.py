"""Serving room: requests that arrive together are computed together.

A queue of our own rather than TensorFlow's batching ops: it is the same for both runtimes, and it knows of each
request when nobody waits for it any more. No request waits for company: a worker that is free takes its share of what
has come while all were busy, so one client alone loses no time and a busy server batches.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from app.serving.errors import ExpiredError, RequestError


class Answered(Protocol):
    """Answers to texts computed together; each request takes its own."""

    def rows(self, first: int, end: int) -> list[dict[str, Any]]:
        """As `--mode=predict` writes them."""

    def outputs(self, first: int, end: int) -> dict[str, np.ndarray]:
        """As the signature `serving_default` gives them."""


class Engine(Protocol):
    """What computes. `worker` is the number of the thread that asks, `alone` whether no other one is at work."""

    def answer(
        self, texts: Sequence[str], *, worker: int = 0, alone: bool = True, deadline: float = float("inf")
    ) -> Answered:
        """Raises ExpiredError if the deadline (of `time.monotonic`) has passed."""

    def compute_logits(self, arrays: Mapping[str, np.ndarray], *, worker: int = 0) -> dict[str, np.ndarray]:
        """The signature `tokenized`."""


@dataclass
class _Job:
    """A request: of texts, cut into parts of at most `max_batch`, or of arrays, which is one part."""

    texts: Sequence[str]
    arrays: Mapping[str, np.ndarray] | None
    as_rows: bool
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    found: dict[int, Any] = field(default_factory=dict)
    missing: int = 0
    arrived: float = field(default_factory=time.monotonic)

    @property
    def unwanted(self) -> bool:
        return self.future.done() or time.monotonic() > self.deadline


@dataclass(frozen=True)
class _Part:
    """Texts [first, end) of a job."""

    job: _Job
    first: int
    end: int

    @property
    def texts(self) -> int:
        return self.end - self.first


class Batcher:
    """Workers over one engine.

    Args:
        engine: computes.
        threads: requests, or batches of them, computed at the same time.
        max_batch: texts computed together.
        queue_size: requests that may wait.
        observe: called with the number of texts of each batch.
        note: called after each batch of texts with the seconds since its oldest request arrived.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int,
        max_batch: int,
        queue_size: int,
        observe: Callable[[int], None] = lambda texts: None,
        note: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.engine = engine
        self._threads, self._max_batch, self._queue_size, self._observe = threads, max_batch, queue_size, observe
        self._note = note
        self._parts: deque[_Part] = deque()
        self._waiting = self._busy = 0  # requests of which no part is begun; workers that compute
        self._changed = threading.Condition()
        self._closed = False
        self._workers: list[threading.Thread] = []
        self._at_work = 0  # workers that have not ended
        with self._changed:
            for number in range(threads):
                self._start(number)

    def _start(self, number: int) -> None:
        """Starts a worker. The caller holds `_changed`."""
        worker = threading.Thread(target=self._work, args=(number,), name=f"compute-{number}", daemon=True)
        self._at_work += 1
        self._workers.append(worker)
        worker.start()

    @property
    def waiting(self) -> int:
        """Requests that nobody has begun."""
        return self._waiting

    async def ask(
        self,
        *,
        texts: Sequence[str] = (),
        arrays: Mapping[str, np.ndarray] | None = None,
        as_rows: bool = False,
        seconds: float,
    ) -> Any:
        """Answers to texts, as rows or as outputs; or the logits of arrays.

        Raises:
            RequestError: 429 if too many wait, 504 if it takes longer than `seconds`.
        """
        loop = asyncio.get_running_loop()
        job = _Job(texts, arrays, as_rows, time.monotonic() + seconds, loop, loop.create_future())
        step = self._max_batch
        parts = [_Part(job, at, min(at + step, len(texts))) for at in range(0, len(texts), step)] or [_Part(job, 0, 0)]
        job.missing = len(parts)
        with self._changed:
            if self._waiting >= self._queue_size:
                raise RequestError(
                    429, f"{self._waiting} requests are waiting already, try again later", {"Retry-After": "1"}
                )
            self._waiting += 1
            self._parts.extend(parts)
            self._changed.notify(len(parts))
            if not self._at_work:  # closed between the choice of this version and now, as while a body arrived
                self._workers.clear()
                self._start(0)
        try:
            return await asyncio.wait_for(job.future, seconds)
        except (asyncio.TimeoutError, ExpiredError) as error:
            raise RequestError(504, f"there was no answer in {seconds:g} s") from error

    def close(self) -> None:
        """Ends the workers after what is waiting has been answered; who asks later is answered all the same."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        for worker in list(self._workers):
            worker.join()

    def _work(self, worker: int) -> None:
        while True:
            with self._changed:
                while not self._parts:
                    if self._closed:
                        self._at_work -= 1
                        return
                    self._changed.wait()
                parts = self._take()
                alone = not self._parts and not self._busy
                self._busy += 1
            try:
                self._compute(parts, worker=worker, alone=alone)
            finally:
                with self._changed:
                    self._busy -= 1

    def _take(self) -> list[_Part]:
        """What one worker computes together: an even share of the texts that wait, of one kind."""
        share = min(self._max_batch, -(-sum(part.texts for part in self._parts) // self._threads))
        parts: list[_Part] = []
        texts = 0
        while self._parts:
            part = self._parts[0]
            if parts and (part.job.arrays is not None or texts + part.texts > share):
                break
            self._parts.popleft()
            self._waiting -= part.first == 0
            if part.job.unwanted:
                _fail(part.job, ExpiredError())
                continue
            parts.append(part)
            texts += part.texts
            if part.job.arrays is not None:
                break
        return parts

    def _compute(self, parts: list[_Part], *, worker: int, alone: bool) -> None:
        if not parts:
            return
        try:
            if parts[0].job.arrays is not None:
                found = [self.engine.compute_logits(parts[0].job.arrays, worker=worker)]
            else:
                found = self._answer(parts, worker=worker, alone=alone)
        except BaseException as error:  # whatever it is, somebody waits for it
            for part in parts:
                _fail(part.job, error)
            return
        for part, own in zip(parts, found, strict=True):
            job = part.job
            with self._changed:
                job.found[part.first] = own
                job.missing -= 1
                complete = not job.missing
            if complete:
                _finish(job, join_parts([job.found[first] for first in sorted(job.found)], as_rows=job.as_rows))

    def _answer(self, parts: list[_Part], *, worker: int, alone: bool) -> list[Any]:
        texts = [text for part in parts for text in part.job.texts[part.first : part.end]]
        self._observe(len(texts))
        deadline = max(part.job.deadline for part in parts)
        answered = self.engine.answer(texts, worker=worker, alone=alone, deadline=deadline)
        self._note(time.monotonic() - min(part.job.arrived for part in parts))
        found: list[Any] = []
        at = 0
        for part in parts:
            take = answered.rows if part.job.as_rows else answered.outputs
            found.append(take(at, at + part.texts))
            at += part.texts
        return found


def join_parts(parts: list[Any], *, as_rows: bool) -> Any:
    """The parts of one request; outputs are padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    if as_rows:
        return [row for part in parts for row in part]
    return {name: _concatenate([part[name] for part in parts]) for name in parts[0]}


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    if arrays[0].ndim < 2:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    filling = b"" if arrays[0].dtype == object else 0
    rest = [(0, 0)] * (arrays[0].ndim - 2)
    return np.concatenate(
        [np.pad(array, [(0, 0), (0, width - array.shape[1]), *rest], constant_values=filling) for array in arrays]
    )


def _finish(job: _Job, found: Any) -> None:
    _deliver(job, lambda: None if job.future.done() else job.future.set_result(found))


def _fail(job: _Job, error: BaseException) -> None:
    _deliver(job, lambda: None if job.future.done() else job.future.set_exception(error))


def _deliver(job: _Job, call: Callable[[], None]) -> None:
    try:
        job.loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop has ended, and with it whoever waited
        return

"""Search room: one training of a search, watched from outside: its epochs, its end, whether it is worth going on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from app.config import Config
from app.run.directory import LockedError, check_not_locked
from app.run.screen import heartbeat, say
from app.search.job import ForkServer, Job
from app.search.stopping import check_not_stopped
from app.search.study import BEAT_SECONDS, Claim, LostTrialError, SharedStudy

POLL_SECONDS = 0.1
SECONDS_FOR_A_LOCK = 60.0
Found = TypeVar("Found")
OnEpoch = Callable[[int, float], bool]  # (epoch from 1, validation score) -> whether the trial is to be stopped


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        values: by objective; empty if it failed or was stopped.
        failed: why it failed; empty if it did not.
        pruned: it was stopped, since others are better.
        epochs: of which scores are known.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    pruned: bool = False
    epochs: int = 0


class DiskFullError(Exception):
    """No trial can go on."""


def run_trial(
    server: ForkServer, study: SharedStudy, claim: Claim, config: Config, *, folder: Path, log: Path, label: str,
    on_epoch: OnEpoch,
) -> Outcome:  # fmt: skip
    """Trains to the end, or until `on_epoch` says otherwise; what is in the folder already is gone on with.

    Raises:
        KeyboardInterrupt: the training has written a checkpoint, and the trial is left to the next process.
        LostTrialError: another process has the trial now.
        DiskFullError: the trial is left to the next process.
    """
    job = None
    try:
        when_free(lambda: check_not_locked(folder))
        server.load()
        with heartbeat(label):
            job = server.start(config, folder=folder, log=log)
            outcome = _watch(study, claim, job, folder / "history.jsonl", on_epoch)
        if job.result and job.result.get("kind") == "disk":
            raise DiskFullError(job.result["failed"])
        return outcome
    except BaseException as error:
        try:
            if job and not job.ended:
                if isinstance(error, KeyboardInterrupt):
                    say("stopping: the trial under way writes a checkpoint; Ctrl-C once more ends it without one")
                job.stop()
        finally:
            with suppress(LostTrialError):  # another has it by now; what ended it here counts all the same
                study.release(claim)
        raise


def when_free(act: Callable[[], Found]) -> Found:
    """Does what needs a folder that another process may be writing this moment, or that a killed one has not left yet.

    Raises:
        LockedError: it is still being written after a minute.
    """
    until = time.monotonic() + SECONDS_FOR_A_LOCK
    while True:
        try:
            return act()
        except LockedError:
            if time.monotonic() > until:
                raise
        check_not_stopped()
        time.sleep(POLL_SECONDS)


def _watch(study: SharedStudy, claim: Claim, job: Job, history: Path, on_epoch: OnEpoch) -> Outcome:
    epochs, beaten, ended = 0, time.monotonic(), False
    while not ended:
        ended = job.wait(POLL_SECONDS)
        if time.monotonic() - beaten > BEAT_SECONDS:
            study.beat(claim)
            beaten = time.monotonic()
        for epoch, score in _scores(history, job.headline, after=epochs):
            epochs = epoch
            if on_epoch(epoch, score) and not ended:
                job.stop()
                if not (job.result and "values" in job.result):
                    return Outcome(pruned=True, epochs=epochs)
                ended = True
                break
    result = job.result or {"failed": "the training was stopped from outside", "kind": "error"}
    if "failed" in result:
        return Outcome(failed=result["failed"], epochs=epochs)
    if not all(math.isfinite(value) for value in result["values"].values()):
        return Outcome(failed=f"a result is not a number: {result['values']}", epochs=epochs)
    return Outcome(values=result["values"], epochs=epochs)


def _scores(history: Path, headline: str, *, after: int) -> Iterator[tuple[int, float]]:
    """(epoch, score) of the rows of a history after so many epochs; a half last line is left for later."""
    if not headline:
        return
    try:
        lines = history.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        return
    for line in lines:
        row: dict[str, Any] = json.loads(line)
        score = row.get(f"valid/{headline}")
        if score is not None and row.get("epoch", 0) > after:
            yield row["epoch"], float(score)

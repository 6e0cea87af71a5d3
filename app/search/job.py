"""Search room: the fork server from outside, and the one trial that runs in it at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.config import Config, RunError
from app.run.screen import heartbeat, say
from app.search.child import pack, start_module
from app.search.stopping import check_not_stopped
from app.training.trials import says_no_memory

SECONDS_TO_STOP = 300.0  # a step and a checkpoint may take long
_POLL_SECONDS = 0.1
_KILLED = "killed by the system, which does so when memory runs out"


class Job:
    """A trial that runs.

    Attributes:
        headline: name of the score in history.jsonl after `valid/`, when it is known.
        result: {"values": ...} or {"failed": why, "kind": ...}, when it has ended by itself; None while it runs.
    """

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self._server, self._pid, self._log = server, pid, log
        self.headline = ""
        self.result: dict[str, Any] | None = None
        self.ended = False

    def wait(self, seconds: float) -> bool:
        """Whether the trial has ended, or does within so many seconds."""
        until = time.monotonic() + seconds
        while not self.ended:
            answer = self._server.read(max(0.0, until - time.monotonic()))
            if answer is None:
                return False
            self._note(answer)
        return True

    def stop(self) -> None:
        """Has the trial write a checkpoint and end; a second interruption meanwhile ends it at once."""
        number, interrupted = signal.SIGTERM, None
        while not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)
            try:
                self.wait(SECONDS_TO_STOP)
            except KeyboardInterrupt as stop:
                interrupted = stop
            number = signal.SIGKILL
        if interrupted:
            raise interrupted

    def _note(self, answer: dict[str, Any]) -> None:
        self.headline = answer.get("headline", self.headline)
        if "values" in answer or "failed" in answer:
            self.result = answer
        if "status" in answer:
            self.ended = True
            if self.result is None and answer["status"]:
                self.result = _describe_end(answer["status"], self._log)


def _describe_end(status: int, log: Path) -> dict[str, str]:
    """Why a trial failed that could not say so itself: by the status of its process and its last words."""
    if status == -signal.SIGKILL:
        return {"failed": _KILLED, "kind": "memory"}
    said = _last_line(log)
    if says_no_memory(said):
        return {"failed": "out of memory", "kind": "memory"}
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return {"failed": f"the process of the trial ended {how}{said and ': ' + said}", "kind": "error"}


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


class ForkServer:
    """A process with TensorFlow imported, started when it is first needed and ended with the `with` block.

    Args:
        mode: that each trial runs.
        log: file for what the process says.
    """

    def __init__(self, mode: str, log: Path) -> None:
        self._mode, self._log = mode, log
        self._started: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._started
        if process is None:
            return
        assert process.stdin and process.stdout
        process.stdin.close()  # it ends at the end of its input, and a trial with it
        process.stdout.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._started is None:
            say("tune: loading TensorFlow ...")
            with self._log.open("ab") as screen:
                self._started = start_module(
                    "app.search.fork_server", self._mode, stdout=subprocess.PIPE, stderr=screen
                )
            with heartbeat("tune: loading TensorFlow"):
                self.read(None)  # that it is ready
        return self._started

    def load(self) -> None:
        """Starts the process, if it is not there; trials need it."""
        assert self._process

    def start(self, config: Config, *, folder: Path, log: Path) -> Job:
        """A trial in a process of its own; its `log` is added to."""
        request = {"mode": self._mode, "config": pack(config), "folder": str(folder), "log": str(log)}
        entrance = self._process.stdin
        assert entrance
        try:
            entrance.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._lost() from error
        job, early = None, []
        while job is None:  # the trial may answer before the server says its number
            answer = self.read(None)
            assert answer is not None
            if "pid" in answer:
                job = Job(self, answer["pid"], log)
            else:
                early.append(answer)
        for answer in early:
            job._note(answer)
        return job

    def read(self, seconds: float | None) -> dict[str, Any] | None:
        """The next answer; None if there is none in so many seconds.

        Raises:
            RunError: the process has ended.
            KeyboardInterrupt: a signal has asked to stop.
        """
        output = self._process.stdout
        assert output
        until = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            check_not_stopped()
            left = _POLL_SECONDS if until is None else max(0.0, until - time.monotonic())
            if not select.select([output], [], [], min(left, _POLL_SECONDS))[0]:
                if until is not None and time.monotonic() >= until:
                    return None
                continue
            block = os.read(output.fileno(), 2**16)
            if not block:
                raise self._lost()
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))

    def _lost(self) -> RunError:
        assert self._started
        with suppress(subprocess.TimeoutExpired):
            self._started.wait(timeout=30)
        killed = self._started.returncode == -signal.SIGKILL
        why = _KILLED if killed else _last_line(self._log) or "it says nothing"
        return RunError(f"the process that starts trials has ended: {why}; the same command goes on with the search")

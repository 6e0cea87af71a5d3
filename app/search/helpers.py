"""Search room: more processes of this machine at work on one search, each on cores of its own.

    python -m app.search.helpers

A helper reads one line of standard input, {"config": a pickled Config in base64, "run_dir", "cores"}, and takes part in
the search until nothing is left to do. It ends with the process that started it, its trial with a checkpoint.

Small networks leave cores idle: two trainings on one core each get further together than one after the other on two
(docs/results.md).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise

from app.config import Config, InputError, RunError
from app.run.directory import RunDirectory
from app.run.files import first_line
from app.run.screen import say
from app.search.child import pack, read_line, start_module, terminate, unpack
from app.search.stopping import stopping_others

SECONDS_TO_STOP = 300.0  # a step and a checkpoint may take long
Cores = frozenset[int]


def share_cores(processes: int) -> list[Cores]:
    """The cores that this process may use, in as many parts of nearly the same size; empty ones where that is unknown.

    Raises:
        InputError: there are fewer cores than processes.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [Cores()] * processes
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < processes:
        raise InputError(
            f"tune.processes must be at most the number of cores that this process may use, {len(cores)}; received "
            f"{processes}"
        )
    bounds = [len(cores) * part // processes for part in range(processes + 1)]
    return [Cores(cores[left:right]) for left, right in pairwise(bounds)]


@contextmanager
def helped(config: Config, run_dir: RunDirectory, shares: Sequence[Cores]) -> Iterator[None]:
    """Has the block run on the first share of the cores, and a helper on each of the others."""
    if len(shares) == 1:
        yield
        return
    with _sharing_gpus():
        helpers: list[subprocess.Popen[bytes]] = []
        try:
            for cores in shares[1:]:
                try:
                    helpers.append(_start(config, run_dir, cores))
                except OSError as error:
                    say(f"warning: a process of the search cannot be started: {first_line(error)}")
            with _only_on(shares[0]), stopping_others(partial(_let_go, helpers)):
                yield
        finally:
            _end(helpers)


def _end(helpers: Sequence[subprocess.Popen[bytes]]) -> None:
    """They are killed when that takes too long, or when it is interrupted once more."""
    try:
        _let_go(helpers)
        for helper in helpers:
            with suppress(subprocess.TimeoutExpired):
                helper.wait(SECONDS_TO_STOP)
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.kill()
                helper.wait()
    for helper in helpers:
        if helper.returncode < 0:  # of its errors it has told itself
            say(f"warning: process {helper.pid} of the search was ended by signal {-helper.returncode}")


def _let_go(helpers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Has them end, if they have not."""
    for helper in helpers:
        assert helper.stdin
        helper.stdin.close()  # what it waits for


def _start(config: Config, run_dir: RunDirectory, cores: Cores) -> subprocess.Popen[bytes]:
    process = start_module("app.search.helpers", stdout=subprocess.DEVNULL)
    request = {"config": pack(config), "run_dir": str(run_dir), "cores": sorted(cores)}
    assert process.stdin
    with suppress(OSError):  # it has ended; the search goes on without it
        process.stdin.write(json.dumps(request).encode() + b"\n")
    return process


@contextmanager
def _only_on(cores: Cores) -> Iterator[None]:
    """The calling thread, and every process it starts, on these cores; none stands for all."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _sharing_gpus() -> Iterator[None]:
    """Has TensorFlow take the memory of a GPU as it needs it, not all of it, unless the user says otherwise."""
    name = "TF_FORCE_GPU_ALLOW_GROWTH"
    before = os.environ.get(name)
    os.environ.setdefault(name, "true")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


# The other side.


def main() -> int:
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        line = read_line()
        if not line:  # the other one has ended already
            return 0
        request = json.loads(line)
        threading.Thread(target=_end_with_the_other, daemon=True).start()
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        _take_part(unpack(request["config"]), RunDirectory(request["run_dir"]))
    except KeyboardInterrupt:
        return 0
    except (InputError, RunError) as error:
        say(f"warning: process {os.getpid()} of the search ended: {error}")
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the other one may close its end at this moment
    return 0


def _take_part(config: Config, run_dir: RunDirectory) -> None:
    from app.search.search import take_part  # which imports this module

    take_part(config, run_dir)


def _end_with_the_other() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

"""Trains with several worker processes on this machine, as they would run on several machines.

    python scripts/run_workers.py --workers=2 --restarts=3 -- --mode=finetune --run_dir=runs/two_workers

Everything after `--` goes to `python -m app.main` of every worker. Free ports are picked and TF_CONFIG is set; each
line of output begins with the number of its worker. If one worker ends early, TensorFlow cannot take it back into a
running job: all workers are ended and, up to `--restarts` times, started again, and go on from the last checkpoint.
They are not started again after a mistake (exit status 2) or a failure that would come again (1). Ctrl-C and SIGTERM
are passed on, and the workers save a checkpoint.

The exit status is that of the worker that ended first in a bad way.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

PROJECT = Path(__file__).resolve().parent.parent
LOST_WORKER = 138  # a worker that ends because another one did
WORTH_ANOTHER_TRY = 128  # killed by a signal, or lost another worker


def pick_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def start_worker(index: int, addresses: list[str], arguments: list[str], threads: int) -> subprocess.Popen[str]:
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    if threads:
        environment |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", "app.main", *arguments],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,  # Ctrl-C comes through this process, once
    )  # fmt: skip


class Job:
    """One start of all workers."""

    def __init__(self, options: argparse.Namespace, arguments: list[str]) -> None:
        addresses = [f"localhost:{port}" for port in pick_ports(options.workers)]
        self.grace_seconds = options.grace_seconds
        self.workers = [start_worker(i, addresses, arguments, options.threads) for i in range(options.workers)]
        self.readers = [
            threading.Thread(target=self._show, args=(number, worker, options.logs), daemon=True)
            for number, worker in enumerate(self.workers)
        ]
        for reader in self.readers:
            reader.start()
        started = [f"{worker.pid} at {address}" for worker, address in zip(self.workers, addresses, strict=True)]
        print(f"workers: {', '.join(started)}", flush=True)

    @staticmethod
    def _show(number: int, worker: subprocess.Popen[str], logs: Path | None) -> None:
        assert worker.stdout is not None
        with ExitStack() as stack:
            log: TextIO | None = None
            if logs:
                log = stack.enter_context((logs / f"worker-{number}.log").open("a", encoding="utf-8"))
            for line in worker.stdout:
                print(f"[{number}] {line}", end="", flush=True)
                if log:
                    log.write(line)
                    log.flush()

    def send(self, number: int) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(number)

    def wait(self) -> int:
        """Returns when all workers have ended; one bad end is, after a while, the end of all."""
        status = limit = 0.0
        while any(worker.poll() is None for worker in self.workers):
            bad = [code for code in (_status(worker) for worker in self.workers) if code]
            if bad and not limit:
                limit = time.monotonic() + self.grace_seconds
            status = status or next((code for code in bad if code != LOST_WORKER), 0)
            if limit and time.monotonic() > limit:
                self.send(signal.SIGKILL)  # it waits for a worker that is gone and can save nothing
                limit = float("inf")
            time.sleep(0.1)
        for reader in self.readers:
            reader.join()
        codes = [_status(worker) for worker in self.workers]
        print(f"workers ended with status {', '.join(map(str, codes))}", flush=True)
        return int(status) or next((code for code in codes if code not in (0, LOST_WORKER)), 0) or max(codes)


def _status(worker: subprocess.Popen[str]) -> int:
    """As a shell would say it: 128 + the signal for a killed process; 0 while it runs."""
    code = worker.poll() or 0
    return 128 - code if code < 0 else code


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="run_workers.py [--workers=2] [--restarts=0] [--threads=0] [--logs=FOLDER] -- --mode=finetune ...",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=0, help="how often all are started again after one was lost")
    parser.add_argument("--threads", type=int, default=0, help="TensorFlow's threads in a worker; 0 = its own choice")
    parser.add_argument("--logs", type=Path, help="folder for a file of each worker's output; not the run directory")
    parser.add_argument("--grace_seconds", type=float, default=20.0, help="for the others when one worker has ended")
    options = parser.parse_args(own)
    if options.workers < 2:
        parser.error(f"--workers must be at least 2, received {options.workers}")
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not arguments:
        parser.error("the arguments of app.main must follow after --")
    return options, arguments


def main() -> int:
    options, arguments = parse_arguments()
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = []
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        if jobs:
            jobs[-1].send(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    while True:
        jobs.append(Job(options, arguments))
        status = jobs[-1].wait()
        if status < WORTH_ANOTHER_TRY or asked or len(jobs) > options.restarts:
            return status
        arguments = [argument for argument in arguments if argument not in ("--overwrite", "--overwrite=true")]
        print(f"a worker was lost (status {status}); start {len(jobs) + 1} of all workers", flush=True)


if __name__ == "__main__":
    sys.exit(main())

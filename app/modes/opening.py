"""Modes room: how a training mode opens its run directory, alone or with other workers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.artifacts import Request
from app.modes.scoring import say
from app.training.workers import Workers


@contextmanager
def open_run(request: Request, workers: Workers) -> Iterator[None]:
    """The run directory, which the chief locks and writes; the other workers go on when that is done."""
    if not workers.is_chief:
        workers.wait()
        yield
        return
    run_dir = request.run_dir
    with run_dir.open_for_training(request.config, overwrite=request.overwrite) as resumed:
        run_dir.write_environment(seed=request.config.seed, command=sys.argv)
        workers.wait()
        if resumed:
            say(f"resuming {run_dir}")
        yield

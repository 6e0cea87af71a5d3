"""Modes room: how a training mode opens its run directory, alone or with other workers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.artifacts import Request
from app.training.workers import Workers


@contextmanager
def open_run(request: Request, workers: Workers) -> Iterator[bool]:
    """The run directory, which the chief locks and writes; the other workers go on when that is done.

    Yields:
        whether the chief resumes an earlier run; false on the others, which are told at the checkpoint.
    """
    if not workers.is_chief:
        workers.wait()
        yield False
        return
    run_dir = request.run_dir
    with run_dir.open_for_training(request.config, overwrite=request.overwrite) as resumed:
        run_dir.write_environment(seed=request.config.seed, command=sys.argv)
        workers.wait()
        yield resumed

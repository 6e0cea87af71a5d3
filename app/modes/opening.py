"""Modes room: how a training mode opens its run directory, alone or with other workers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.artifacts import Request
from app.modes.corpora import Corpora, check_same_corpora, note_corpora
from app.modes.scoring import say
from app.training.workers import Workers


@contextmanager
def open_run(request: Request, workers: Workers, *, corpora: Corpora | None = None) -> Iterator[None]:
    """The run directory, which the chief locks and writes; the other workers go on when that is done.

    Args:
        request: what is asked of the mode.
        workers: all of them.
        corpora: what the run learns from and is scored on (`describe_corpora`).

    Raises:
        InputError: it holds a run of another configuration, or one that began with other corpora.
    """
    if corpora and not request.overwrite:
        check_same_corpora(request.run_dir, corpora)
    if not workers.is_chief:
        workers.wait()
        yield
        return
    run_dir = request.run_dir
    with run_dir.open_for_training(request.config, overwrite=request.overwrite) as resumed:
        run_dir.write_environment(seed=request.config.seed, command=sys.argv)
        if corpora:
            note_corpora(run_dir, corpora)
        workers.wait()
        if resumed:
            say(f"resuming {run_dir}")
        yield

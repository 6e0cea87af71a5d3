"""Modes room: how a training mode opens its run directory, alone or with other workers, and says what trains."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.artifacts import Request
from app.modes.scoring import say
from app.training.devices import count_cores, describe_devices, find_unused_gpu, name_gpus
from app.training.workers import Workers, remove_notes


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
        remove_notes(run_dir.path)
        workers.wait()
        if resumed:
            say(f"resuming {run_dir}")
        yield


def say_devices(devices: Sequence[str], precision: str, workers: Workers) -> None:
    """One line of every worker on the devices that it trains on, and one if a GPU of its machine cannot be used.

    Args:
        devices: TensorFlow's names of them.
        precision: what `set_up` returned.
        workers: that train together.
    """
    who = f" of worker {workers.index}" if workers.count > 1 else ""
    say(f"devices{who}: {describe_devices(devices, gpus=name_gpus(), cores=count_cores())}; precision {precision}")
    if unused := find_unused_gpu():
        say(unused)

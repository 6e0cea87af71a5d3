"""Training room: how a training mode opens its run directory, alone or with other workers, and says what trains."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.config import Config, TrainingConfig
from app.run.directory import Request
from app.run.screen import say
from app.tasks.corpora import Corpora, check_same_corpora, note_corpora
from app.training.cluster import read_cluster
from app.training.strategy import count_cores, describe_devices, find_unused_gpu, name_gpus
from app.training.workers import Workers, remove_notes


@contextmanager
def open_run(request: Request, workers: Workers, *, mode: str, corpora: Corpora | None = None) -> Iterator[None]:
    """The run directory, which the chief locks and writes; the other workers go on when that is done.

    Call it when everything that training needs is there: what fails before leaves no trace in the run directory.

    Args:
        request: what is asked of the mode.
        workers: all of them.
        mode: that trains.
        corpora: what the run learns from and is scored on (`describe_corpora`).

    Raises:
        InputError: it holds a run of another configuration, or one that began with other corpora.
    """
    workers.wait()  # until each of them has come so far
    if not workers.is_chief:
        workers.wait()
        yield
        return
    config, run_dir = request.config, request.run_dir
    plan = run_dir.plan_training(config, mode=mode, overwrite=request.overwrite)
    if corpora and plan == "resume":
        check_same_corpora(run_dir, corpora)
    before = run_dir.read_config().training.epochs if plan == "resume" else 0
    with run_dir.open_for_training(config, mode=mode, overwrite=request.overwrite) as resumed:
        run_dir.write_environment(seed=config.seed, command=sys.argv)
        if corpora:
            note_corpora(run_dir, corpora)
        remove_notes(run_dir.path)
        workers.wait()
        if plan == "replace":
            say(f"{run_dir} held a run of another configuration without any checkpoint: this run takes its place")
        if resumed:
            say(f"resuming {run_dir}")
        if resumed and config.training.epochs > before:
            say(
                f"trained for {before} epoch(s), continuing to {config.training.epochs}: the learning rate follows the "
                "schedule of all of them from here on, so the weights are not those of so many epochs from the start"
            )
        yield


@contextmanager
def open_finished_run(request: Request, *, mode: str) -> Iterator[Config | None]:
    """A run whose plan is "finished", locked to be scored.

    Yields the configuration to score with, which is in config.yaml now, or None to a worker that is not the chief and
    has nothing to do.
    """
    run_dir = request.run_dir
    if not _is_chief(request.config.training):
        say(f"{run_dir} is finished: the chief worker scores it")
        yield None
        return
    with run_dir.locked():
        state = run_dir.read_state()
        if "trained" not in state:  # of an earlier version
            when = run_dir.model_sums.stat().st_mtime
            run_dir.mark_trained(run_dir.read_config(), mode=mode, when=when)
            state = run_dir.read_state() | {"scored": ""}
        if "scored" in state:
            say(f"{run_dir}: this run is finished (trained {state['trained']}); --overwrite trains it from scratch")
        else:
            say(f"{run_dir}: this run is trained ({state['trained']}); what is left is to score it")
        yield run_dir.settle_config(request.config)


def _is_chief(config: TrainingConfig) -> bool:
    """Whether this process writes the run directory; known without waiting for the others."""
    several = config.strategy == "multi_worker" or (config.strategy == "auto" and not config.tpu_address)
    return not several or read_cluster().index == 0


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

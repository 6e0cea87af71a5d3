"""Training room: settings that are found by trial.

`training.accumulation_steps=0`: the fewest parts of a batch that fit into memory. `data.max_length=0`: the longest
sequence that is trained on nearly as fast as any. Trials run in a process of their own (`trial_process.py`): what they
do to random state, weights and memory ends with it. If it ends for lack of memory, what it found before then counts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from app.config import FOUND_BY_TRIAL, Config, InputError, RunError, TrainingConfig
from app.config.rules import FEWEST_PIECES
from app.run.directory import Request, RunDirectory
from app.run.screen import heartbeat, say
from app.training.memory import PART_OF_FREE, allowed_parts, free_memory, own_memory

_MODULE = "app.training.trial_worker"
BAD_INPUT = 2
_PROJECT = Path(__file__).resolve().parents[2]


def decide(request: Request, *, mode: str) -> Request:
    """The request with numbers for the settings of `FOUND_BY_TRIAL` that are 0: the run's own, or what trials find.

    Args:
        request: what is asked of the mode.
        mode: whose step is tried, "pretrain" or "finetune".

    Raises:
        RunError: a trial failed for another reason than memory.
        InputError: several machines or a TPU, whose memory one process cannot probe; or not even a row fits.
    """
    config = request.config
    used = FOUND_BY_TRIAL if mode == "finetune" else (_PARTS,)
    wanted = [name for name in used if not _get(config, name)]
    if wanted and request.run_dir.plan_training(config, mode=mode, overwrite=request.overwrite) == "resume":
        old = request.run_dir.read_config()
        for name in wanted:
            config = _put(config, name, _get(old, name))
        return dataclasses.replace(request, config=config)
    if _LENGTH in wanted:
        config = _put(config, _LENGTH, _find_length(config))
    if _PARTS in wanted:
        config = _put(config, _PARTS, _find_parts(config, mode))
    return dataclasses.replace(request, config=config)


_LENGTH, _PARTS = FOUND_BY_TRIAL
_LENGTHS = (64, 96, 128, 192, 256, 384, 512)
_NEARLY = 0.9  # of the speed of the fastest length
# What a process says that ends because it gets no more memory. (TensorFlow's own error is caught in the trial.)
_NO_MEMORY = ("bad_alloc", "MemoryError", "out_of_memory", "out of memory", "OOM when allocating", "Cannot allocate")


def _get(config: Config, name: str) -> int:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _put(config: Config, name: str, value: int) -> Config:
    section, _, key = name.partition(".")
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{key: value})})


def _find_length(config: Config) -> int:
    shortest = max(config.data.overlap_tokens + 3, FEWEST_PIECES)
    candidates = [length for length in _LENGTHS if length >= shortest] or [_LENGTHS[-1]]
    training = config.training
    replicas, shares_memory = _replicas(training, _LENGTH)
    rows = max(1, training.batch_size // replicas // max(1, training.accumulation_steps))
    budget = _memory_budget(training)
    limit = budget // (replicas if shares_memory else 1)
    task = {"trial": "lengths", "mode": "finetune", "lengths": candidates, "rows": rows, "limit": limit}
    done, found = _in_a_process(config, task)
    if not ran_out_of_memory(done):
        _check(done, _LENGTH)
    tried = {int(length): rate for length, rate in found}  # 0 is said before each trial
    rates = {length: rate for length, rate in tried.items() if rate}
    if not rates:
        raise InputError(
            f"a step with {rows} row(s) of {min(tried, default=candidates[0])} pieces does not fit into "
            f"{budget / 1e6:,.0f} MB of memory (data.max_length=0); lower training.batch_size, received "
            f"{training.batch_size}"
        )
    length = max(length for length, rate in rates.items() if rate >= _NEARLY * max(rates.values()))
    speeds = ", ".join(f"{length}: {rate:,.0f}" for length, rate in rates.items())
    too_long = [str(length) for length in tried if length not in rates]
    rest = f"; sequences of {too_long[0]} do not fit into memory" if too_long else ""
    say(f"sequences of {length} pieces; pieces/s by length: {speeds}{rest}")
    return length


def _find_parts(config: Config, mode: str) -> int:
    training, settings = config.training, config.pretrain
    replicas, shares_memory = _replicas(training, _PARTS)
    batch = training.batch_size // replicas
    length, long, stages = config.data.max_length, 0, 1
    if mode == "pretrain":
        length = settings.max_length
        if settings.long_epochs:  # of 0 rows, one is tried: it is trained on, though a short batch has fewer pieces
            long, stages = training.batch_size * length // settings.long_length // replicas, 2
    if training.batch_size % replicas:
        return 1  # `build_strategy` says what is wrong
    budget = _memory_budget(training)
    counts = allowed_parts(batch, long)
    task = {
        "trial": "parts",
        "mode": mode,
        "lengths": [[batch, length], *([[long, settings.long_length]] if stages > 1 else [])],
        "parts": counts,
        "limit": budget // (replicas if shares_memory else 1),
    }
    done, found = _in_a_process(config, task)
    if not ran_out_of_memory(done):
        _check(done, _PARTS)
    if not found:
        raise InputError(
            f"a step with {batch // counts[0]} row(s) does not fit into {budget / 1e6:,.0f} MB of memory "
            "(training.accumulation_steps=0)"
        )
    parts, peak = found[-1]
    say(
        f"batch of {training.batch_size} in {parts} part(s) of {batch // parts} rows on {replicas} replica(s): "
        f"{peak / 1e6:,.0f} of {budget / 1e6:,.0f} MB, found by {len(found)} trial(s)"
    )
    return int(parts)


def _in_a_process(config: Config, task: dict) -> tuple[subprocess.CompletedProcess[str], list[list[float]]]:
    """A trial in a process of its own, and the lines of numbers it printed."""
    with tempfile.TemporaryDirectory() as folder:
        RunDirectory(folder).write_config(config)
        search = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", _MODULE, folder, json.dumps(task)]
        with heartbeat(f"finding {task['trial']} by trial"):
            done = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True)
    return done, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def _memory_budget(training: TrainingConfig) -> int:
    """Bytes that training may take."""
    return training.memory_limit_mb * 10**6 or int(PART_OF_FREE * (free_memory() + own_memory()))


def ran_out_of_memory(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a process ended because it got no more memory; the kernel kills what takes too much."""
    return done.returncode == -signal.SIGKILL or bool(done.returncode and says_no_memory(done.stderr))


def says_no_memory(text: str) -> bool:
    """Whether this is what a process says that ends because it gets no more memory."""
    return any(sign in text for sign in _NO_MEMORY)


def _check(done: subprocess.CompletedProcess[str], name: str) -> None:
    if not done.returncode:
        return
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == BAD_INPUT:
        raise InputError(reason)
    raise RunError(f"the trial of {name}=0 ended with status {done.returncode}: {reason}")


def _replicas(config: TrainingConfig, name: str) -> tuple[int, bool]:
    """How many replicas there will be, and whether they share one memory; `name` is the setting to be found."""
    import tensorflow as tf

    from app.training.workers import read_cluster

    alone = config.strategy in ("one_device", "mirrored") or len(read_cluster().addresses) < 2
    if not alone or config.strategy in ("multi_worker", "tpu") or config.tpu_address:
        raise InputError(
            f"{name}=0 is for one process, whose memory and speed can be probed; set a number on several machines or "
            "a TPU"
        )
    if config.logical_devices > 1:
        return config.logical_devices, True
    gpus = len(tf.config.list_physical_devices("GPU"))
    return (1 if config.strategy == "one_device" else max(1, gpus)), False

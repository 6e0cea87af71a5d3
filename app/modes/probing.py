"""Modes room: `training.accumulation_steps=0`: the fewest parts of a batch that fit into memory, found by trial.

Trials run in a process of their own: what they do to random state, weights and memory ends with it. If it is killed for
lack of memory, what it found before then counts.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from app.artifacts import Request, RunDirectory
from app.config import BackboneConfig, Config, InputError, RunError, TrainingConfig
from app.modes.scoring import say
from app.training.memory import PART_OF_FREE, allowed_parts, free_memory, own_memory, try_parts

_MODULE = "app.modes.probing"
_BAD_INPUT = 2
_PROJECT = Path(__file__).resolve().parents[2]


def decide_parts(request: Request) -> Request:
    """The request with a number for `training.accumulation_steps`: the one asked for, the run's own, or the probe's.

    Raises:
        RunError: the trial failed for another reason than memory.
        InputError: several machines or a TPU, whose memory one process cannot probe; or not even a row fits.
    """
    training = request.config.training
    if training.accumulation_steps:
        return request
    if request.run_dir.is_run() and not request.overwrite:
        return _with_parts(request, request.run_dir.read_config().training.accumulation_steps)
    return _with_parts(request, _probe(request.config))


def _with_parts(request: Request, parts: int) -> Request:
    training = dataclasses.replace(request.config.training, accumulation_steps=parts)
    return dataclasses.replace(request, config=dataclasses.replace(request.config, training=training))


def _probe(config: Config) -> int:
    training, settings = config.training, config.pretrain
    replicas, shares_memory = _replicas(training)
    batch = training.batch_size // replicas
    long = training.batch_size * settings.max_length // settings.long_length // replicas if settings.long_epochs else 0
    if training.batch_size % replicas:
        return 1  # `build_strategy` says what is wrong
    budget = int(PART_OF_FREE * (free_memory() + own_memory()))
    if training.memory_limit_mb:
        budget = training.memory_limit_mb * 10**6
    counts = allowed_parts(batch, long)
    task = {
        "lengths": [[batch, settings.max_length], *([[long, settings.long_length]] if long else [])],
        "parts": counts,
        "limit": budget // (replicas if shares_memory else 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        RunDirectory(folder).write_config(config)
        search = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", _MODULE, folder, json.dumps(task)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    if done.returncode not in (0, -signal.SIGKILL):  # the kernel kills what takes too much memory
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == _BAD_INPUT:
            raise InputError(reason)
        raise RunError(f"the trial of training.accumulation_steps=0 ended with status {done.returncode}: {reason}")
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


def _replicas(config: TrainingConfig) -> tuple[int, bool]:
    """How many replicas there will be, and whether they share one memory."""
    import tensorflow as tf

    from app.training.workers import read_cluster

    alone = config.strategy in ("one_device", "mirrored") or len(read_cluster().addresses) < 2
    if not alone or config.strategy in ("multi_worker", "tpu") or config.tpu_address:
        raise InputError(
            "training.accumulation_steps=0 is for one process, whose memory can be probed; set a number on several "
            "machines or a TPU"
        )
    if config.logical_devices > 1:
        return config.logical_devices, True
    gpus = len(tf.config.list_physical_devices("GPU"))
    return (1 if config.strategy == "one_device" else max(1, gpus)), False


def _try(config: Config, lengths: list[list[int]], parts: list[int], limit: int, folder: Path) -> None:
    """Prints [parts, peak in bytes] for each trial that fits."""
    import numpy as np
    import tensorflow as tf

    from app.models.activation import compile_activations
    from app.models.backbone import build_backbone
    from app.models.masked_lm import build_pretrainer
    from app.training.fine_tuner import SpecialIds
    from app.training.masked_lm import MaskedLmTuner
    from app.training.optimizers import build_optimizer
    from app.training.strategy import set_up

    # Two parts, so that the sum of their gradients is there too.
    training = dataclasses.replace(config.training, accumulation_steps=2, jit_compile=False)
    precision = set_up(training, seed=config.seed)
    backbone = build_backbone(_with_some_vocabulary(config, folder))
    compile_activations(backbone.model)
    network, depths = build_pretrainer(backbone, pairs=config.pretrain.objective != "masked_lm")
    tuner = MaskedLmTuner(network, special=SpecialIds(2, 3, 4), config=training, seed=0)
    tuner.compile(optimizer=build_optimizer(training, total_steps=1000, depths=depths, precision=precision))
    row, cell = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
    names = ("token_ids", "segment_ids", "padding_mask", "positions", "targets")
    signature = dict.fromkeys(names, cell) | {"pair_label": row, "weights": tf.TensorSpec([None, None], tf.float32)}
    step = tf.function(tuner.train_step, input_signature=[signature])
    random = np.random.default_rng(0)

    def run(number: int) -> None:
        for rows, length in lengths:
            rows = 2 * max(1, rows // number)
            hidden = max(1, round(config.pretrain.mask_fraction * length))
            pieces = random.integers(0, backbone.model.vocabulary_size, (rows, length))
            batch = {
                "token_ids": pieces, "segment_ids": np.zeros_like(pieces), "padding_mask": np.ones_like(pieces),
                "positions": np.tile(np.arange(hidden), (rows, 1)), "targets": pieces[:, :hidden],
                "weights": np.ones((rows, hidden)), "pair_label": np.zeros(rows),
            }  # fmt: skip
            tensors = {name: tf.constant(value, signature[name].dtype) for name, value in batch.items()}
            float(step(tensors)["step_loss"])

    gpu = bool(tf.config.list_physical_devices("GPU"))
    peak = (lambda: int(tf.config.experimental.get_memory_info("GPU:0")["peak"])) if gpu else _host_peak
    for found in try_parts(parts, run, limit=2**63 if gpu else limit, peak=peak):
        print(json.dumps(found), flush=True)


def _host_peak() -> int:
    return own_memory("VmHWM")


def _with_some_vocabulary(config: Config, folder: Path) -> BackboneConfig:
    """The backbone's section; a vocabulary that is not learnt yet is stood in for by one of its size."""
    size = config.pretrain.vocabulary_size
    if not size:
        return config.backbone
    from app.data.word_pieces import SPECIAL_PIECES

    pieces = [*SPECIAL_PIECES, *(f"piece{number}" for number in range(size - len(SPECIAL_PIECES)))]
    path = folder / "vocabulary.txt"
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return dataclasses.replace(config.backbone, vocabulary_path=str(path), lowercase="true")


if __name__ == "__main__":
    try:
        _try(RunDirectory(sys.argv[1]).read_config(), **json.loads(sys.argv[2]), folder=Path(sys.argv[1]))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(_BAD_INPUT)

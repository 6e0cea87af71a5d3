"""Modes room: `training.accumulation_steps=0`: the fewest parts of a batch that fit into memory, found by trial.

Trials run in a process of their own: what they do to random state, weights and memory ends with it. If it is killed for
lack of memory, what it found before then counts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.artifacts import Request, RunDirectory
from app.config import BackboneConfig, Config, InputError, RunError, TrainingConfig
from app.modes.scoring import say
from app.training.memory import PART_OF_FREE, allowed_parts, free_memory, own_memory, try_parts

if TYPE_CHECKING:
    import numpy as np

    from app.training.step import StepTuner

_MODULE = "app.modes.probing"
_BAD_INPUT = 2
_PROJECT = Path(__file__).resolve().parents[2]


def decide_parts(request: Request, *, mode: str = "pretrain") -> Request:
    """The request with a number for `training.accumulation_steps`: the one asked for, the run's own, or the probe's.

    Args:
        request: what is asked of the mode.
        mode: whose step is tried, a key of `_TRIALS`.

    Raises:
        RunError: the trial failed for another reason than memory.
        InputError: several machines or a TPU, whose memory one process cannot probe; or not even a row fits.
    """
    training = request.config.training
    if training.accumulation_steps:
        return request
    if request.run_dir.is_run() and not request.overwrite:
        return _with_parts(request, request.run_dir.read_config().training.accumulation_steps)
    return _with_parts(request, _probe(request.config, mode))


def _with_parts(request: Request, parts: int) -> Request:
    training = dataclasses.replace(request.config.training, accumulation_steps=parts)
    return dataclasses.replace(request, config=dataclasses.replace(request.config, training=training))


def _probe(config: Config, mode: str) -> int:
    training, settings = config.training, config.pretrain
    replicas, shares_memory = _replicas(training)
    batch = training.batch_size // replicas
    length, long = config.data.max_length, 0
    if mode == "pretrain":
        length = settings.max_length
        long = training.batch_size * length // settings.long_length // replicas if settings.long_epochs else 0
    if training.batch_size % replicas:
        return 1  # `build_strategy` says what is wrong
    budget = int(PART_OF_FREE * (free_memory() + own_memory()))
    if training.memory_limit_mb:
        budget = training.memory_limit_mb * 10**6
    counts = allowed_parts(batch, long)
    task = {
        "mode": mode,
        "lengths": [[batch, length], *([[long, settings.long_length]] if long else [])],
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


Batches = Callable[[int, int], dict]  # (rows, length) -> arrays


def _pretraining(config: Config, training: TrainingConfig, folder: Path) -> tuple[StepTuner, dict[str, int], Batches]:
    """What a run of `--mode=pretrain` trains, the depths of its variables, and batches for it."""
    from app.models.activation import compile_activations
    from app.models.backbone import build_backbone
    from app.models.masked_lm import build_pretrainer
    from app.training.fine_tuner import SpecialIds
    from app.training.masked_lm import MaskedLmTuner

    backbone = build_backbone(_with_some_vocabulary(config, folder))
    compile_activations(backbone.model)
    network, depths = build_pretrainer(backbone, pairs=config.pretrain.objective != "masked_lm")
    tuner = MaskedLmTuner(network, special=SpecialIds(2, 3, 4), config=training, seed=0)

    def make_batch(rows: int, length: int) -> dict:
        hidden = max(1, round(config.pretrain.mask_fraction * length))
        pieces = _random_integers(backbone.model.vocabulary_size, rows, length)
        return {
            "token_ids": pieces, "segment_ids": pieces * 0, "padding_mask": pieces * 0 + 1,
            "positions": pieces[:, :hidden] * 0, "targets": pieces[:, :hidden],
            "weights": (pieces[:, :hidden] * 0 + 1).astype("float32"), "pair_label": pieces[:, 0] * 0,
        }  # fmt: skip

    return tuner, depths, make_batch


def _finetuning(config: Config, training: TrainingConfig, _: Path) -> tuple[StepTuner, dict[str, int], Batches]:
    """The same for `--mode=finetune`; how many labels there are makes no difference that could be seen."""
    from app.modes.tagger_training import start_tagger
    from app.training.fine_tuner import FineTuner, SpecialIds

    labels = ["O", *(f"{prefix}-{kind}" for kind in range(8) for prefix in "BI")]
    backbone = dataclasses.replace(config.backbone, source=config.init_from or config.backbone.source)
    tagger = start_tagger(dataclasses.replace(config, backbone=backbone), labels)
    tuner = FineTuner(tagger.network, tagger.head.compute_loss, special=SpecialIds(2, 3, 4), config=training, seed=0)

    def make_batch(rows: int, length: int) -> dict:
        pieces = _random_integers(tagger.backbone.model.vocabulary_size, rows, length)
        return {
            "token_ids": pieces, "shape_ids": pieces * 0 + 1, "padding_mask": pieces * 0 + 1,
            "labels": pieces % len(labels),
        }  # fmt: skip

    return tuner, tagger.layer_depths(), make_batch


_TRIALS = {"pretrain": _pretraining, "finetune": _finetuning}


def _random_integers(below: int, rows: int, length: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).integers(0, below, (rows, length), np.int32)


def _try(
    config: Config, mode: str, lengths: list[list[int]], parts: list[int], limit: int, folder: Path
) -> None:
    """Prints [parts, peak in bytes] for each trial that fits."""
    import tensorflow as tf

    from app.training.optimizers import build_optimizer
    from app.training.strategy import set_up

    # Two parts, so that the sum of their gradients is there too.
    training = dataclasses.replace(config.training, accumulation_steps=2, jit_compile=False)
    precision = set_up(training, seed=config.seed)
    tuner, depths, make_batch = _TRIALS[mode](config, training, folder)
    tuner.compile(optimizer=build_optimizer(training, total_steps=1000, depths=depths, precision=precision))
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in make_batch(1, 8).items()}
    step = tf.function(tuner.train_step, input_signature=[specs])

    def run(number: int) -> None:
        for rows, length in lengths:
            batch = make_batch(2 * max(1, rows // number), length)
            float(step({name: tf.constant(value) for name, value in batch.items()})["step_loss"])

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

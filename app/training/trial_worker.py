"""Training room: the process in which `trials.py` tries what fits into memory and what is fast.

    python -m app.training.trial_worker FOLDER TASK

FOLDER holds a config.yaml, TASK is JSON. Prints lists of numbers, one a line. Nothing of it reaches the run.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import BackboneConfig, Config, InputError, TrainingConfig
from app.encoder.activation import compile_activations
from app.encoder.backbone import build_backbone
from app.run.directory import RunDirectory
from app.tasks.bundle import start_model
from app.tasks.masked_lm.network import build_pretrainer
from app.text import SPECIAL_PIECES
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.masked_lm import MaskedLmTuner
from app.training.memory import own_memory, try_parts, try_rising
from app.training.optimizers import build_optimizer
from app.training.step import StepTuner
from app.training.strategy import run_in_order, set_up
from app.training.trials import BAD_INPUT

TIMED_STEPS = 3
_SPECIAL = SpecialIds(2, 3, 4)
_LABELS = ("O", *(f"{prefix}-{kind}" for kind in range(8) for prefix in "BI"))  # how many makes no visible difference


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a mode trains.

    Attributes:
        tuner: its step.
        depths: of the trainable variables of its network, in its order.
        positions: pieces of the longest sequence.
        make_batch: (rows, length) -> made-up arrays.
    """

    tuner: StepTuner
    depths: list[int]
    positions: int
    make_batch: Callable[[int, int], dict[str, np.ndarray]]


def _pretraining(config: Config, training: TrainingConfig, folder: Path) -> Subject:
    backbone = build_backbone(_with_some_vocabulary(config, folder))
    compile_activations(backbone.model, config.training.compile_activations)
    network, depths = build_pretrainer(backbone, pairs=config.pretrain.objective != "masked_lm")
    tuner = MaskedLmTuner(network, special=_SPECIAL, config=training, seed=0)

    def make_batch(rows: int, length: int) -> dict:
        hidden = max(1, round(config.pretrain.mask_fraction * length))
        pieces = _random_integers(backbone.model.vocabulary_size, rows, length)
        return {
            "token_ids": pieces, "segment_ids": pieces * 0, "padding_mask": pieces * 0 + 1,
            "positions": pieces[:, :hidden] * 0, "targets": pieces[:, :hidden],
            "weights": (pieces[:, :hidden] * 0 + 1).astype("float32"), "pair_label": pieces[:, 0] * 0,
        }  # fmt: skip

    return Subject(tuner, depths, backbone.model.max_sequence_length, make_batch)


def _finetuning(config: Config, training: TrainingConfig, _: Path) -> Subject:
    backbone = dataclasses.replace(config.backbone, source=config.init_from or config.backbone.source)
    tagger = start_model(dataclasses.replace(config, backbone=backbone), _LABELS)
    exits = ExitLoss.of(tagger, training)
    tuner = FineTuner(tagger.whole, tagger.head.compute_loss, special=_SPECIAL, config=training, seed=0, exits=exits)

    def make_batch(rows: int, length: int) -> dict:
        pieces = _random_integers(tagger.backbone.model.vocabulary_size, rows, length)
        return {
            "token_ids": pieces, "shape_ids": pieces * 0 + 1, "padding_mask": pieces * 0 + 1,
            "labels": pieces % len(_LABELS),
        }  # fmt: skip

    return Subject(tuner, tagger.layer_depths(), tagger.backbone.model.max_sequence_length, make_batch)


_SUBJECTS = {"pretrain": _pretraining, "finetune": _finetuning}


def _random_integers(below: int, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, (rows, length), np.int32)


def _make_step(config: Config, mode: str, folder: Path, *, parts: int) -> tuple[Callable[[int, int], float], int]:
    """A training step on made-up rows, (rows, length) -> its loss; and the length of the longest sequence."""
    training = dataclasses.replace(config.training, accumulation_steps=parts, jit_compile=False)
    run_in_order(training)
    precision = set_up(training, seed=config.seed)
    subject = _SUBJECTS[mode](config, training, folder)
    variables = subject.tuner.network.trainable_variables
    optimizer = build_optimizer(
        training, total_steps=1000, variables=variables, depths=subject.depths, precision=precision
    )
    subject.tuner.compile(optimizer=optimizer)
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in subject.make_batch(1, 8).items()}
    step = tf.function(subject.tuner.train_step, input_signature=[specs], autograph=False)

    def run(rows: int, length: int) -> float:
        batch = {name: tf.constant(value) for name, value in subject.make_batch(rows, length).items()}
        return float(step(batch)["step_loss"])

    return run, subject.positions


def _try_parts(
    config: Config, folder: Path, *, mode: str, lengths: list[list[int]], parts: list[int], limit: int
) -> None:
    """Prints [parts, peak in bytes] for each trial that fits."""
    step, _ = _make_step(config, mode, folder, parts=2)  # two, so that the sum of their gradients is there too

    def run(number: int) -> None:
        for rows, length in lengths:
            step(2 * max(1, rows // number), length)

    limit, peak = _memory(limit)
    for found in try_parts(parts, run, limit=limit, peak=peak):
        print(json.dumps(found), flush=True)


def _try_lengths(
    config: Config, folder: Path, *, mode: str, lengths: list[int], rows: int, limit: int
) -> None:
    """Prints [length, 0] before each length is tried, and [length, pieces per second] once it is known to fit.

    None is longer than the backbone's positions.
    """
    step, positions = _make_step(config, mode, folder, parts=1)
    rates: dict[int, float] = {}

    def run(length: int) -> None:
        print(json.dumps([length, 0]), flush=True)
        step(rows, length)
        seconds = []
        for _ in range(TIMED_STEPS):
            began = time.perf_counter()
            step(rows, length)
            seconds.append(time.perf_counter() - began)
        rates[length] = rows * length / statistics.median(seconds)

    lengths = sorted({min(length, positions) for length in lengths})
    limit, peak = _memory(limit)
    for length, _ in try_rising(lengths, run, amount=float, limit=limit, peak=peak):
        print(json.dumps([length, rates[length]]), flush=True)


def _memory(limit: int) -> tuple[int, Callable[[], int]]:
    """The limit in bytes, and what tells the most memory used until now; a GPU says itself when it has no more."""
    if tf.config.list_physical_devices("GPU"):
        return 2**63, lambda: int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return limit, lambda: own_memory("VmHWM")


def _with_some_vocabulary(config: Config, folder: Path) -> BackboneConfig:
    """The backbone's section; a vocabulary that is not learnt yet is stood in for by one of its size."""
    size = config.pretrain.vocabulary_size
    if not size:
        return config.backbone
    pieces = [*SPECIAL_PIECES, *(f"piece{number}" for number in range(size - len(SPECIAL_PIECES)))]
    path = folder / "vocabulary.txt"
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return dataclasses.replace(config.backbone, vocabulary_path=str(path), lowercase="true")


if __name__ == "__main__":
    task: dict[str, Any] = json.loads(sys.argv[2])
    attempt = _try_parts if task.pop("trial") == "parts" else _try_lengths
    try:
        attempt(RunDirectory(sys.argv[1]).read_config(), Path(sys.argv[1]), **task)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)

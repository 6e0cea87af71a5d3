"""A task of one's own, one folder (`tests/third_task`), through the modes that nobody wrote for it."""

import csv
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toy
from absl import flags
from absl.testing import flagsaver

from app.config import TASK_DEFAULTS, InputError, task_names
from app.evaluation.runtimes import TFLiteModel, build_predictor, load_saved_model
from app.main import MODES, build_request, load_run_config
from app.run.directory import RunDirectory
from app.tasks import HANDED_ON, TASKS, Registered, find_task, import_tasks, register
from app.tasks.bundle import load_model
from app.tasks.examples import ExampleCorpus, join_examples, split_off_examples, summarize_examples
from app.tasks.network import build_encoder

MOST_WORDS = 12
TEXTS = ["the old house was in Rome", "Ada", "Bob met Cleo and Dan and Ada in the old house in Oslo", ""]


@pytest.fixture(scope="module")
def registry():
    """What a module registers is known in it alone."""
    known = (task_names, TASK_DEFAULTS, TASKS)
    before = (list(task_names), dict(TASK_DEFAULTS), dict(TASKS))
    yield
    os.environ.pop(HANDED_ON, None)
    for mapping, old in zip(known, before, strict=True):
        mapping.clear()
        mapping.extend(old) if isinstance(mapping, list) else mapping.update(old)
    sys.modules.pop("third_task", None)


def write_texts(path: Path, count: int, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "length"])
        for length in rng.integers(1, MOST_WORDS + 1, count):
            table.writerow([" ".join(rng.choice(toy.OTHERS, length)), length])


def run_mode(mode: str, run: Path, *settings: str, **more) -> dict:
    """As `python -m app.main --mode=MODE --task_module=third_task` does, in this process."""
    flags.FLAGS.mark_as_parsed()
    given = {"mode": mode, "run_dir": str(run), "set": list(settings), "task_module": "third_task"}
    with flagsaver.flagsaver(**{"config": "", "input": [], "output": "", **given, **more}):
        name, request = build_request()
    return importlib.import_module(MODES[name].module).run(request)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, vocabulary, registry):
    """A run of `--mode=finetune` with what it returned."""
    folder = tmp_path_factory.mktemp("lengths")
    for seed, (split, count) in enumerate({"train": 300, "valid": 60, "test": 60}.items()):
        write_texts(folder / f"{split}.csv", count, seed=seed)
    settings = [flag.removeprefix("--set=") for flag in toy.run_settings(folder, vocabulary)]
    own = {f"data.{split}_path": folder / f"{split}.csv" for split in ("train", "valid", "test")} | {
        "task": "text_length", "training.epochs": 12, "training.checkpoint_every_steps": 0, "training.tensorboard": "false",
        "training.batch_size": 8, "training.average_weights_decay": 0, "model.word_shape": "false",
    }  # fmt: skip
    settings = [each for each in settings if not each.startswith(("model.head=", *(f"{key}=" for key in own)))]
    settings += [f"{key}={value}" for key, value in own.items()]
    metrics = run_mode("finetune", folder / "run", *settings)
    return SimpleNamespace(path=folder / "run", folder=folder, metrics=metrics)


def lengths_of(path: Path) -> np.ndarray:
    with open(path, encoding="utf-8", newline="") as file:
        return np.array([int(row["length"]) for row in csv.DictReader(file)])


def test_finetune_learns_it(trained):
    history = [json.loads(line) for line in (trained.path / "history.jsonl").read_text().splitlines()]
    print([(row["loss"], row["valid/loss"], row["valid/mean_error_in_words"]) for row in history], trained.metrics)
    errors = [row["valid/mean_error_in_words"] for row in history]

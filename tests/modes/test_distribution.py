"""One device, two replicas and two worker processes, from the command line: the same weights."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import toy

from app.tasks.bundle import load_model

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
BATCH = 6
# No random draw that replicas would share out in another way, an epsilon at which rounding decides about no step, and
# everything by which the step of one variable differs from that of another.
EQUAL = [
    "backbone.dropout=0", "backbone.attention_dropout=0", "model.head_dropout=0", "data.valid_path=", "data.test_path=",
    "training.epochs=1", f"training.batch_size={BATCH}", "training.learning_rate=2e-3", "training.epsilon=1e-3",
    "training.checkpoint_every_steps=1", "training.tensorboard=false", "backbone.num_layers=2",
    "training.layer_learning_rate_decay=0.3", "training.head_learning_rate_multiplier=3", "training.weight_decay=0.3",
    "training.clip_norm=0.5", "training.freeze_embeddings=true",
]  # fmt: skip


@pytest.fixture(scope="module")
def flags(tmp_path_factory, vocabulary) -> list[str]:
    folder = tmp_path_factory.mktemp("distribution")
    toy.write_corpora(folder)
    return ["--mode=finetune", "--run_dir=run", *toy.run_settings(folder, vocabulary), *(f"--set={s}" for s in EQUAL)]


def finish(process) -> str:
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    return messages


def digest(run: Path) -> str:
    return json.loads((run / "metrics.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, flags, app_process) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    finish(app_process(*flags, cwd=folder))
    return folder / "run"


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, flags, app_process) -> list[Path]:
    """A folder for each of two workers, which on one machine would share their run directory."""
    return run_two_workers([tmp_path_factory.mktemp(f"worker{index}") for index in range(2)], flags, app_process)


def run_two_workers(folders: list[Path], flags: list[str], app_process) -> list[Path]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in folders]
        addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    with pytest.MonkeyPatch.context() as patch:
        processes = []
        for index, folder in enumerate(folders):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            patch.setenv("TF_CONFIG", json.dumps(task))
            processes.append(app_process(*flags, cwd=folder))
    for process in processes:
        finish(process)
    return folders


def assert_same_weights(run: Path, other: Path) -> None:
    one, two = (load_model(each / "model").network.variables for each in (run, other))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)


def test_the_last_batch_is_smaller_than_the_rest(alone):
    encoder = toy.make_encoder(load_model(alone / "model"))
    rows = list(encoder.training_rows(toy.make_sentences(150, seed=11)))
    assert len(rows) % BATCH


def test_two_replicas_on_parts_of_the_processor_end_with_the_weights_of_one_device(
    alone, flags, tmp_path, app_process
):
    replicas = ["--set=training.strategy=mirrored", "--set=training.logical_devices=2"]
    assert "2 replica(s)" in finish(app_process(*flags, *replicas, cwd=tmp_path))
    assert_same_weights(alone, tmp_path / "run")


def test_two_workers_end_with_the_weights_of_one_device_and_the_chief_alone_writes(alone, two_workers):
    chief, other = two_workers
    assert_same_weights(alone, chief / "run")
    assert not [path for path in other.rglob("*") if path.is_file()]


def test_a_killed_worker_is_started_again_with_the_others_and_the_weights_are_the_same(two_workers, flags, tmp_path):
    command = [sys.executable, str(PROJECT / "scripts" / "run_workers.py"), "--restarts=1", "--grace_seconds=5"]
    with subprocess.Popen(
        [*command, "--", *flags], cwd=tmp_path, env=os.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as job:  # fmt: skip
        assert job.stdout is not None
        line = next(line for line in job.stdout if line.startswith("workers: "))
        victim = int(line.split()[4])  # workers: PID at ADDRESS, PID at ADDRESS
        limit = time.monotonic() + 200
        while not (tmp_path / "run" / "checkpoints" / "ckpt-1.index").exists():
            assert job.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "start 2 of all workers" in output and "resuming" in output, output
    assert digest(tmp_path / "run") == digest(two_workers[0] / "run")


def test_two_workers_measure_once_what_they_prune_by(flags, tmp_path, app_process):
    """The chief measures, and all workers build the networks that are measured."""
    sizes = {"hidden_dim": 64, "num_heads": 8, "intermediate_dim": 1024, "max_positions": 256}  # half of it takes less
    flags = [*flags, *(f"--set=backbone.{key}={value}" for key, value in sizes.items())]
    finish(app_process(*flags, cwd=tmp_path))
    settings = {"steps": "prune_structured", "latency_length": 256}
    pruning = {"costs": "int8", "latency_ms": 100_000, "rounds": 1, "importance_steps": 2, "last_epochs": 1}
    settings |= {f"prune_structured.{key}": value for key, value in pruning.items()}
    flags = [*flags, *(f"--set=compression.{key}={value}" for key, value in settings.items())]
    flags += ["--mode=compress", "--set=init_from=run", "--run_dir=pruned"]
    run_two_workers([tmp_path, tmp_path], flags, app_process)  # each reads what the chief left after a step
    numbers = json.loads((tmp_path / "pruned" / "compression.json").read_text())["numbers"]
    assert numbers["prune_structured/head_ms"] > 0 and numbers["prune_structured/column_ms"] > 0
    assert numbers["prune_structured/fraction"] == 1  # fast enough as it is

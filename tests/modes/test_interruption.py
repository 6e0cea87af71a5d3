"""A run that is ended from outside, and one whose newest checkpoint is damaged, from the command line."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def finish(process) -> tuple[int, str]:
    _, messages = process.communicate(timeout=300)
    return process.returncode, messages


def digest(run: Path) -> str:
    return json.loads((run / "metrics.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def terminated(trained_run, tmp_path_factory, app_process) -> Path:
    """The run directory that SIGTERM in the middle of training leaves."""
    folder = tmp_path_factory.mktemp("terminated")
    process = app_process("--mode=finetune", "--run_dir=run", *trained_run.flags, cwd=folder)
    limit = time.monotonic() + 200
    while not (folder / "run" / "checkpoints" / "ckpt-1.index").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    status, messages = finish(process)
    assert status == 143 and "stopped: terminated; the same command resumes the run" in messages, messages
    return folder / "run"


def resume(terminated: Path, folder: Path, trained_run, app_process, *, damaged: bool) -> str:
    run = Path(shutil.copytree(terminated, folder / "run"))
    newest = max(run.glob("checkpoints/ckpt-*.index"), key=lambda path: int(path.stem.rpartition("-")[2]))
    assert newest.stem != "ckpt-1" and not (run / "metrics.json").exists()
    if damaged:
        newest.write_bytes(newest.read_bytes()[:40])
    status, messages = finish(app_process("--mode=finetune", "--run_dir=run", *trained_run.flags, cwd=folder))
    assert status == 0, messages
    assert digest(run) == digest(trained_run.path)
    assert damaged == (f"{newest.stem} cannot be read" in messages and "going back to ckpt-" in messages)
    return messages


def test_sigterm_saves_ends_with_143_and_the_same_command_ends_with_the_same_bits(
    terminated, tmp_path, trained_run, app_process
):
    assert "resuming" in resume(terminated, tmp_path, trained_run, app_process, damaged=False)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_it_and_is_named(
    terminated, tmp_path, trained_run, app_process
):
    resume(terminated, tmp_path, trained_run, app_process, damaged=True)

"""Kills training runs at random points, runs the same command again until it is done, and compares the weights.

    python benchmarks/kill_and_resume.py --mode=finetune
    python benchmarks/kill_and_resume.py --mode=pretrain

A small network is trained on the sample corpus once without a break. Then come 20 runs of the same command, each ended
by SIGKILL one to three times: after a random time or, as often, while the next checkpoint after it is being written.
The weights must have the same bits as those of the run without a break. Arguments after `--` go to
`python -m app.main`.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SETTINGS = (
    "backbone.source=random",
    "backbone.num_layers=1",
    "backbone.hidden_dim=64",
    "backbone.intermediate_dim=128",
    "training.epochs=2",
    "training.checkpoint_every_steps=3",
    "training.tensorboard=false",
)
# Small parts of the sample corpus; pieces behind [MASK] and a second length of sequences have a state to restore.
OF_MODE = {
    "finetune": (
        "data.train_path=data/sample/valid.conll",
        "data.valid_path=data/sample/test.conll",
        "data.test_path=",
        "data.max_length=96",
        "training.word_mask_fraction=0.1",
    ),
    "pretrain": (
        "pretrain.train_path=data/sample/valid.conll",
        "pretrain.valid_path=data/sample/test.conll",
        "pretrain.max_length=64",
        "pretrain.long_length=128",
        "pretrain.long_epochs=1",
    ),
}
MOST_KILLS = 3  # of one run
SECONDS_TO_LOOK_AGAIN = 0.001
LONGEST_WRITE_SECONDS = 0.1  # a kill in a write comes so long after its beginning, at most


def start(mode: str, run_dir: Path, arguments: list[str]) -> subprocess.Popen:
    settings = [f"--set={setting}" for setting in SETTINGS + OF_MODE[mode]]
    command = [sys.executable, "-m", "app.main", f"--mode={mode}", f"--run_dir={run_dir}", *settings, *arguments]
    log = run_dir.with_suffix(".log").open("a", encoding="utf-8")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen, run_dir: Path) -> str:
    """The digest of the weights."""
    if process.wait():
        sys.exit(f"a run ended with exit status {process.returncode}; see {run_dir.with_suffix('.log')}")
    return json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))["weights_sha256"]


def find_writes(run_dir: Path) -> set[tuple[str, int]]:
    """Folders of checkpoints that are being written, or were when the process was killed, and when they changed."""
    found = set()
    for folder, names, _ in os.walk(run_dir / "checkpoints"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                if name.endswith("_temp"):
                    found.add((name, os.stat(os.path.join(folder, name)).st_mtime_ns))
    return found


def kill(process: subprocess.Popen, run_dir: Path, *, after_seconds: float, in_write: bool) -> str:
    """Ends the process as no program can hinder.

    Returns:
        where it was; empty if it had finished before.
    """
    began = time.monotonic()
    left_by_an_earlier_kill = find_writes(run_dir)
    while process.poll() is None:
        is_time = time.monotonic() - began >= after_seconds
        if is_time and (not in_write or find_writes(run_dir) - left_by_an_earlier_kill):
            break
        time.sleep(SECONDS_TO_LOOK_AGAIN)
    else:
        return ""
    time.sleep(random.uniform(0, LONGEST_WRITE_SECONDS) if in_write else 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if find_writes(run_dir) - left_by_an_earlier_kill:
        return "in a write"
    return "between writes" if any(run_dir.glob("checkpoints/**/ckpt-*.index")) else "before the first checkpoint"


def run_with_kills(mode: str, run_dir: Path, arguments: list[str], *, seconds: float) -> tuple[str, list[str]]:
    """The digest of the weights, and where the run was killed, once at least.

    Args:
        mode: of app.main.
        run_dir: does not exist yet.
        arguments: for app.main.
        seconds: that a run takes without a break.
    """
    kills: list[str] = []
    wanted = random.randint(1, MOST_KILLS)
    while len(kills) < wanted:
        process = start(mode, run_dir, arguments)
        after = random.uniform(0.25, 1) * seconds
        where = kill(process, run_dir, after_seconds=after, in_write=random.random() < 0.5)
        if where:
            kills.append(where)
        elif kills:
            return finish(process, run_dir), kills
        else:  # it was faster than the one before
            finish(process, run_dir)
            shutil.rmtree(run_dir)
    return finish(start(mode, run_dir, arguments), run_dir), kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=OF_MODE, default="finetune", help="of app.main")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the points at which runs are killed")
    parser.add_argument("--folder", type=Path, default=Path("runs/kill_and_resume"), help="is emptied first")
    parser.add_argument("arguments", nargs="*", help="for app.main")
    options = parser.parse_args()
    random.seed(options.seed)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    began = time.monotonic()
    whole = options.folder / "whole"
    expected = finish(start(options.mode, whole, options.arguments), whole)
    seconds = time.monotonic() - began
    print(f"without a break: {seconds:.1f} s, weights {expected[:16]}", flush=True)
    identical, places = 0, Counter[str]()
    for number in range(1, options.runs + 1):
        run_dir = options.folder / f"killed-{number}"
        digest, kills = run_with_kills(options.mode, run_dir, options.arguments, seconds=seconds)
        identical += digest == expected
        places.update(kills)
        print(f"run {number}: killed {', '.join(kills)}: weights {digest[:16]}", flush=True)
        if digest == expected:
            shutil.rmtree(run_dir)
    print(f"{identical} of {options.runs} identical")
    print(json.dumps({"mode": options.mode, "runs": options.runs, "identical": identical, "kills": dict(places)}))
    sys.exit(identical < options.runs)


if __name__ == "__main__":
    main()

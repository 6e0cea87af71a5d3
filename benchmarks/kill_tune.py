"""Kills a search at random times, starts it again with the same command, and counts its trials at the end.

    python benchmarks/kill_tune.py
    python benchmarks/kill_tune.py --processes=2
    python benchmarks/kill_tune.py --url=postgresql://USER:PASSWORD@HOST/NAME

SIGKILL ends `--mode=tune` 10 times, each time after a random number of seconds, with --processes one of those that
search together. Trials are trainings of a tiny model that take seconds. At the end there must be exactly as many
finished trials as asked for, each number once, each with its own run directory, whose history has each epoch once.
Exit status 1 if not.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SENTENCES = (
    "Ada B-PER\nlived O\nin O\nLondon B-LOC\n. O\n", "Paris B-LOC\nis O\nold O\n. O\n",
    "They O\nmet O\nBob B-PER\nhere O\n. O\n", "The O\nriver O\nis O\nlong O\n. O\n",
)  # fmt: skip


def command(folder: Path, options: argparse.Namespace) -> list[str]:
    settings = {
        "data.train_path": folder / "train.conll", "data.valid_path": folder / "valid.conll", "data.max_length": 32,
        "data.overlap_tokens": 8, "backbone.source": "random", "backbone.vocabulary_path": folder / "vocab.txt",
        "backbone.num_layers": 1, "backbone.hidden_dim": 16, "backbone.intermediate_dim": 32, "model.head": "softmax",
        "training.epochs": 6, "training.precision": "float32", "training.compile_activations": "false",
        "tune.space": "{training.learning_rate: {low: 1e-4, high: 5e-2, log: true}, training.batch_size: [2, 4]}",
        "tune.trials": options.trials, "tune.seeds": 0, "tune.storage": options.url,
    }  # fmt: skip
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "app.main", "--mode=tune", f"--run_dir={folder / 'tune'}", *flags]


def write_corpora(folder: Path) -> None:
    words = "ada bob lived in london paris is old the they met ."
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split()]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    for name, times in (("train", 10), ("valid", 3)):
        (folder / f"{name}.conll").write_text("\n".join(SENTENCES * times))


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with (folder / "said.txt").open("ab") as screen:
        return subprocess.Popen(command(folder, options), cwd=folder, env=environment, stdout=screen, stderr=screen)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="an empty database; default: study.db of the search")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--most_seconds", type=float, default=30.0, help="between a start and a kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        return run(folder, options)


def run(folder: Path, options: argparse.Namespace) -> int:
    """Kills, starts again, counts and prints what was found as JSON."""
    chance = random.Random(options.seed)
    searching = [start(folder, options) for _ in range(options.processes)]
    kills = 0
    while kills < options.kills:
        time.sleep(chance.uniform(1.0, options.most_seconds))
        victim = chance.randrange(len(searching))
        killed = searching[victim].poll() is None  # one that had nothing left to do was not killed
        searching[victim].kill()
        searching[victim].wait()
        kills += killed
        searching[victim] = start(folder, options)
        if not killed and all(process.poll() is not None for process in searching[:victim] + searching[victim + 1 :]):
            break  # the search is over
    statuses = [process.wait() for process in searching]
    result = count(folder / "tune") | {"kills": kills, "asked": options.trials, "statuses": statuses}
    print(json.dumps(result))
    if any(statuses):
        print((folder / "said.txt").read_text(errors="replace")[-3000:], file=sys.stderr)
    whole = result["finished"] == result["numbers"] == result["folders"] == options.trials
    return 0 if whole and not result["repeated_epochs"] and not any(statuses) else 1


def count(run_dir: Path) -> dict[str, int]:
    """What is there after the search."""
    with (run_dir / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    repeated = 0
    for row in rows:
        history = run_dir / "trials" / row["trial"] / "history.jsonl"
        epochs = Counter(json.loads(line)["epoch"] for line in history.read_text(encoding="utf-8").splitlines())
        repeated += sum(number > 1 for number in epochs.values())
    states = Counter(row["state"] for row in rows)
    return {
        "finished": states["complete"] + states["stopped early"] + states["failed"],
        "numbers": len({row["trial"] for row in rows}),
        "folders": sum((run_dir / "trials" / row["trial"] / "config.yaml").is_file() for row in rows),
        "repeated_epochs": repeated,
        **{state.replace(" ", "_"): number for state, number in states.items()},
        "gone_on_with": (run_dir.parent / "said.txt").read_text(errors="replace").count("gone on with"),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Two worker processes of one thread each against one process of two threads: the same global batch, pieces per second.

    python benchmarks/workers.py --text data/pretraining/conll2003.txt --rounds 3

Both sides are `--mode=pretrain` runs on the first `--kilobytes` of the text, in turns; what they do beside the step
(gRPC between the workers, the optimizer in each of them) is what the ratio shows. The first epoch, which compiles, is
left out. Everything after `--` goes to both, for example `--set=backbone.source=random`. Prints a table and JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LAUNCHER = PROJECT / "scripts" / "run_workers.py"


def run_once(command: list[str], run_dir: Path, environment: dict[str, str]) -> float:
    """Trains and returns pieces per second over all epochs but the first."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    epochs = [json.loads(line) for line in (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    pieces = metrics["train/pieces"] * (len(epochs) - 1) / len(epochs)  # every epoch reads the same rows
    return pieces / (epochs[-1]["seconds"] - epochs[0]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--kilobytes", type=int, default=60, help="of the text that an epoch reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=32, help="global")
    parser.add_argument("arguments", nargs="*", help="for app.main")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error(f"--epochs must be at least 2, received {options.epochs}: the first one is left out")
    speeds: dict[str, list[float]] = {"one process": [], "workers": []}
    threads = str(options.workers)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        beginning = options.text.read_bytes()[: 1000 * options.kilobytes]
        text.write_bytes(beginning[: beginning.rfind(b"\n") + 1])
        settings = {
            "pretrain.train_path": text, "pretrain.valid_path": "", "training.epochs": options.epochs,
            "training.batch_size": options.batch_size, "training.tensorboard": "false",
        }  # fmt: skip
        mode = ["--mode=pretrain", *(f"--set={key}={value}" for key, value in settings.items()), *options.arguments]
        for number in range(options.rounds):
            alone, several = (Path(folder) / f"{side}-{number}" for side in ("alone", "workers"))
            one = [sys.executable, "-m", "app.main", *mode, f"--run_dir={alone}"]
            pool = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, "PYTHONPATH": str(PROJECT)}
            speeds["one process"].append(run_once(one, alone, pool))
            launcher = [sys.executable, str(LAUNCHER), f"--workers={options.workers}", "--threads=1"]
            speeds["workers"].append(run_once([*launcher, "--", *mode, f"--run_dir={several}"], several, {}))
    medians = {side: statistics.median(each) for side, each in speeds.items()}
    print(f"{'pieces/s':<14}" + "".join(f"{f'round {i + 1}':>12}" for i in range(options.rounds)) + f"{'median':>12}")
    for side, each in speeds.items():
        print(f"{side:<14}" + "".join(f"{speed:>12,.0f}" for speed in [*each, medians[side]]))
    ratio = medians["workers"] / medians["one process"]
    print(f"workers / one process: {ratio:.3f}")
    print(json.dumps({"pieces_per_second": speeds, "ratio": ratio, "batch_size": options.batch_size}))


if __name__ == "__main__":
    main()

"""Runs another trainer and this one, one after the other on the same idle machine, and prints the ratios.

The peer is any command whose last line on standard output is a JSON object of numbers, named as in `METRICS` below:

    python benchmarks/compare.py --run_dir=runs/compare --peer="/tmp/peers/bin/python benchmarks/huggingface_peer.py \
        --model=MODEL_FOLDER --data=data/conll2003 --group_by_length" \
        -- --config=configs/finetune_conll2003.yaml

Everything after `--` goes to `python -m app.main --mode=MODE`. Pretraining is compared with `--mode=pretrain` (a whole
run, compilation included) and with `--mode=benchmark` (steps after the warm-up); see benchmarks/README.md.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

# mode -> what a peer prints -> the same number in our metrics.json
METRICS = {
    "finetune": {
        "words_per_s": "train/words_per_second",  # words trained on a second, over whole epochs
        "seconds": "train/seconds",
        "entity_f1": "test/entity_f1",
        "texts_per_s": "train/texts_per_second",
        "accuracy": "test/accuracy",
        "macro_f1": "test/macro_f1",
    },
    "pretrain": {"pieces_per_s": "train/pieces_per_second", "seconds": "train/seconds"},
    "benchmark": {"steady_pieces_per_s": "benchmark/train_pieces_per_second"},
}


def run_peer(command: str) -> dict[str, float]:
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_ours(mode: str, run_dir: Path, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "app.main", f"--mode={mode}", f"--run_dir={run_dir}", *arguments]
    if mode != "benchmark":
        command.append("--overwrite")
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    return {name: metrics[key] for name, key in METRICS[mode].items() if key in metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="command of the peer")
    parser.add_argument("--mode", choices=METRICS, default="finetune", help="of app.main")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/compare"))
    parser.add_argument("arguments", nargs="*", help="for app.main")
    options = parser.parse_args()
    peer = run_peer(options.peer)
    ours = run_ours(options.mode, options.run_dir, options.arguments)
    print(f"{'':<20}{'peer':>12}{'ours':>12}{'ours / peer':>14}")
    for name in METRICS[options.mode]:
        if name in peer and name in ours:
            print(f"{name:<20}{peer[name]:>12,.3f}{ours[name]:>12,.3f}{ours[name] / peer[name]:>14.3f}")
    print(json.dumps({"peer": peer, "ours": ours}))


if __name__ == "__main__":
    main()

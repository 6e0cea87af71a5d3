"""Runs another trainer and this one, one after the other on the same idle machine, and prints the ratios.

The peer is any command whose last line on standard output is a JSON object with `words_per_s` (words trained on a
second, over whole epochs) and, if it scores, `seconds` and `entity_f1`:

    python benchmarks/compare.py --run_dir=runs/compare --peer="/tmp/peers/bin/python benchmarks/huggingface_peer.py \
        --model=MODEL_FOLDER --data=data/conll2003 --group_by_length" \
        -- --config=configs/finetune_conll2003.yaml

Everything after `--` goes to `python -m app.main --mode=finetune`.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path


def run_peer(command: str) -> dict[str, float]:
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_ours(run_dir: Path, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "app.main", "--mode=finetune", f"--run_dir={run_dir}", "--overwrite", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    return {
        "words_per_s": metrics["train/words_per_second"],
        "seconds": metrics["train/seconds"],
        "entity_f1": metrics.get("test/entity_f1", float("nan")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="command of the peer")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/compare"))
    parser.add_argument("arguments", nargs="*", help="for app.main")
    options = parser.parse_args()
    peer = run_peer(options.peer)
    ours = run_ours(options.run_dir, options.arguments)
    print(f"{'':<14}{'peer':>12}{'ours':>12}{'ours / peer':>14}")
    for name in ("words_per_s", "seconds", "entity_f1"):
        if name in peer:
            ratio = ours[name] / peer[name]
            print(f"{name:<14}{peer[name]:>12,.3f}{ours[name]:>12,.3f}{ratio:>14.3f}")
    print(json.dumps({"peer": peer, "ours": ours}))


if __name__ == "__main__":
    main()

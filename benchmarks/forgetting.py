"""What a tagger forgets while it learns from corrections, with and without a replay of its training corpus.

A finished run is corrected with another corpus: half of its sentences are learnt, half are held out, as `--mode=update`
chooses them. Both halves and the run's own test split are scored before and after:

    python benchmarks/forgetting.py --run=runs/conll2003 --corrections=data/wikigold/wikigold.conll.txt

Each number is of the model that the update ends with, whether it would go live or not. About as long as
`--seeds` times `--replay` epochs of fine-tuning on the corpus of corrections, and its replay, take.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from app.config import DataConfig
from app.tasks.tagging.answers import as_texts
from app.tasks.tagging.corpus import open_corpus

PASSED, REFUSED = 0, 1


def write_texts(corpus: str, path: Path, *, limit: int) -> int:
    """Writes each sentence of a tagged corpus as a text with its entities, and returns how many there are."""
    sentences = open_corpus(corpus, split="train", config=DataConfig()).examples()
    alone = (dataclasses.replace(sentence, document=number) for number, sentence in enumerate(sentences))
    rows = []
    for text, entities in as_texts(alone):
        places = sorted((start, end, label) for label, start, end in entities)
        found = [{"start": start, "end": end, "label": label} for start, end, label in places]
        rows.append(json.dumps({"text": text.rstrip("\n"), "entities": found}, ensure_ascii=False) + "\n")
    rows = rows[:limit] if limit else rows
    path.write_text("".join(rows), encoding="utf-8")
    return len(rows)


def call(*settings: str, run_dir: Path, flags: tuple[str, ...] = ()) -> None:
    command = [sys.executable, "-m", "app.main", "--mode=update", f"--run_dir={run_dir}", *flags]
    done = subprocess.run([*command, *(f"--set={each}" for each in settings)], stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (PASSED, REFUSED):
        sys.exit(done.returncode)


def updates(options: argparse.Namespace) -> Iterator[tuple[float, int, dict[str, float]]]:
    """Yields (replay, seed, numbers of the update)."""
    store = options.run_dir.resolve() / "corrections.sqlite"
    for replay in options.replay:
        for seed in options.seeds:
            folder = options.run_dir / f"replay-{replay:g}-seed-{seed}"
            call(
                f"init_from={options.run}", f"feedback.url=sqlite:///{store}", "update.held_out_fraction=0.5",
                "update.export=false", f"update.replay_fraction={replay}", f"seed={seed}", *options.set,
                run_dir=folder, flags=("--overwrite",),
            )  # fmt: skip
            yield replay, seed, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="finished run of --mode=finetune")
    parser.add_argument("--corrections", required=True, help="tagged corpus that the run is corrected with")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/forgetting"), help="where the updates are written")
    parser.add_argument("--replay", type=float, nargs="+", default=[0.0, 0.5, 0.8], help="update.replay_fraction")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=0, help="use only so many of the sentences; 0 = all")
    parser.add_argument("--set", action="append", default=[], help="setting of the updates, such as update.epochs=3")
    options = parser.parse_args()
    options.run_dir.mkdir(parents=True, exist_ok=True)
    texts = options.run_dir / "corrections.jsonl"
    print(f"{write_texts(options.corrections, texts, limit=options.limit):,} sentences of {options.corrections}")
    store = options.run_dir.resolve() / "corrections.sqlite"
    store.unlink(missing_ok=True)
    call(f"update.import_path={texts}", f"feedback.url=sqlite:///{store}", run_dir=options.run)
    parts = ("held_out", "test")
    names = ("corrections held out", "the run's own test")
    print(f"{'replay':>8}{'seed':>6}" + "".join(f"{name:>32}" for name in names))
    gains: dict[float, list[list[float]]] = {}
    for replay, seed, found in updates(options):
        pairs = [(found[f"update/{part}/entity_f1_before"], found[f"update/{part}/entity_f1"]) for part in parts]
        shown = [f"{before:.4f} -> {after:.4f} ({100 * (after - before):+.2f})" for before, after in pairs]
        print(f"{replay:>8g}{seed:>6}" + "".join(f"{each:>32}" for each in shown), flush=True)
        gains.setdefault(replay, []).append([100 * (after - before) for before, after in pairs])
    print(f"\n{'replay':>8}{'':>6}" + "".join(f"{f'points, {name}':>32}" for name in names))
    for replay, rows in gains.items():
        means = [(statistics.mean(each), statistics.pstdev(each)) for each in zip(*rows, strict=True)]
        print(f"{replay:>8g}{'':>6}" + "".join(f"{f'{mean:+.2f} +- {spread:.2f}':>32}" for mean, spread in means))


if __name__ == "__main__":
    main()

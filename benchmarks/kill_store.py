"""Kills a process that stores corrections at random points, starts it again, and counts what is there at the end.

    python benchmarks/kill_store.py
    python benchmarks/kill_store.py --url=postgresql://USER:PASSWORD@HOST/NAME

A writer stores corrections one by one and says the id of each when the store has acknowledged it. SIGKILL ends it
20 times during 1,000 corrections, after a random number of them and a random fraction of the time that one takes. As a
client would, the next writer sends again what was not acknowledged, with the same id. At the end every correction must
be there once, and at each kill every acknowledged one. Exit status 1 if not.
"""

import argparse
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
sys.path.insert(0, str(PROJECT))

from app.feedback.store import Correction, Store  # noqa: E402

LONGEST_WAIT_SECONDS = 0.004  # after an acknowledgement: about as long as the next correction takes


def write(url: str, first: int, number: int) -> None:
    """Stores corrections `first` to `number` and says each id when it is stored."""
    with Store.open(url) as store:
        for i in range(first, number):
            answer = {"entities": [{"start": 0, "end": 4, "label": "MISC"}]}
            (name,) = store.add([Correction(f"Text {i} 🎉", "tagging", answer, id=f"id-{i}", author="kill_store")])
            os.write(1, f"{name}\n".encode())


def start_writer(url: str, first: int, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, f"--url={url}", f"--first={first}", f"--corrections={number}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)


def kill_at(writer: subprocess.Popen[bytes], acknowledgements: int, wait_seconds: float) -> list[str]:
    """The ids that a writer acknowledged until it was killed, or until it had nothing left to do."""
    assert writer.stdout is not None
    heard = [writer.stdout.readline() for _ in range(acknowledgements)]
    time.sleep(wait_seconds)
    writer.kill()
    heard += writer.communicate()[0].splitlines(keepends=True)
    return [line.decode().strip() for line in heard if line.endswith(b"\n")]


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="an empty database; default: a new SQLite file")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--corrections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=-1, help=argparse.SUPPRESS)  # a writer
    options = parser.parse_args()
    if options.first >= 0:
        write(options.url, options.first, options.corrections)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return run(options.url or f"sqlite:///{folder}/feedback.sqlite", options)


def run(url: str, options: argparse.Namespace) -> int:
    """Kills, starts again, counts and prints what was found as JSON."""
    chance = random.Random(options.seed)
    acknowledged: list[str] = []
    lost_at_kills = unheard = 0
    for kills_left in reversed(range(options.kills + 1)):
        writer = start_writer(url, len(acknowledged), options.corrections)
        left = options.corrections - len(acknowledged)
        if kills_left:
            number = chance.randint(1, max(2 * left // (kills_left + 1) - 1, 1))
            acknowledged += kill_at(writer, min(number, left), chance.uniform(0, LONGEST_WAIT_SECONDS))
        else:
            acknowledged += writer.communicate()[0].decode().split()
        with Store.open(url) as store:
            found = Counter(each.id for each in store.read(author="kill_store"))
        lost_at_kills += len(set(acknowledged) - set(found))
        unheard += len(set(found) - set(acknowledged))
    result = {
        "database": url.partition(":")[0],
        "kills": options.kills,
        "acknowledged": len(set(acknowledged)),
        "stored": sum(found.values()),
        "lost": lost_at_kills,
        "stored_twice": sum(count > 1 for count in found.values()),
        "stored_but_not_acknowledged_at_a_kill": unheard,
    }
    print(json.dumps(result))
    complete = result["acknowledged"] == result["stored"] == options.corrections
    return 0 if complete and not result["lost"] and not result["stored_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())

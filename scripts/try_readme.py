#!/usr/bin/env python3
"""Runs the commands of README.md as they stand, in their order, in a fresh clone of this checkout.

    python scripts/try_readme.py                 all that this machine can run (about an hour on 2 cores)
    python scripts/try_readme.py --quick         the quick ones, as continuous integration does
    python scripts/try_readme.py --list          which commands there are and how each is run
    python scripts/try_readme.py --data=FOLDER   with real corpora: FOLDER/conll2003/train.txt and so on

A comment before a block of commands, which readers do not see, says what is special about it:

    <!-- try: slow, needs docker data/conll2003 -->     left out by --quick; left out where one of these is missing
    <!-- try: background -->                            a server: it is stopped after the next block

The clone is of the last commit. Files made for it take the place of a reader's own ("my/train.conll", "texts/").

"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FIRST_WORDS = re.compile(r"(make|python|echo|tail|docker|source|RUN=\w+|cat) ")
REMARK = re.compile(r"<!-- try: (.*?)-->")
READY_SECONDS = 180  # for a server to print its address


@dataclass(frozen=True)
class Block:
    """Commands that stand together.

    Attributes:
        commands: one or more, continued lines joined.
        slow: takes minutes.
        background: a server.
        needs: docker, or files and folders, relative ones in the clone.
    """

    commands: tuple[str, ...]
    slow: bool = False
    background: bool = False
    needs: tuple[str, ...] = ()


def read_blocks(text: str) -> Iterator[Block]:
    """The indented blocks of a README that are commands; other indented blocks (files, folders) are passed over."""
    remark = ""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        found = REMARK.fullmatch(paragraph.strip())
        if found:
            remark = found[1]
            continue
        lines = paragraph.strip("\n").split("\n")
        if all(line.startswith("    ") for line in lines) and FIRST_WORDS.match(lines[0].strip()):
            commands = "\n".join(line[4:] for line in lines).replace("\\\n", " ")
            words = [part.split() for part in remark.split(",")]
            needs = [name for part in words if part[:1] == ["needs"] for name in part[1:]]
            yield Block(tuple(commands.split("\n")), ["slow"] in words, ["background"] in words, tuple(needs))
        remark = ""


def is_missing(need: str, clone: Path) -> bool:
    if need == "docker":  # the program alone is no use
        return shutil.which(need) is None or bool(subprocess.run([need, "info"], capture_output=True).returncode)
    return not (clone / need).exists()


def make_clone(folder: Path, data: str) -> Path:
    """A clone with the environment of this checkout and stand-ins for a reader's own files."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
    for name in ("requirements.lock", "weights.lock", "setup.cfg", "pyproject.toml"):
        os.utime(clone / name, (0, 0))  # older than the environment, which make therefore takes as it is
    (clone / ".venv").symlink_to(Path(sys.prefix))
    sample = clone / "data" / "sample"
    (clone / "my").mkdir()
    for split in ("train", "valid", "test"):
        shutil.copy(sample / f"{split}.conll", clone / "my")
        labelled = (sample / "support" / f"{split}.csv").read_text(encoding="utf-8")
        (clone / "my" / f"{split}.csv").write_text(labelled.replace("text,intent", "text,label", 1), encoding="utf-8")
    text = "Ada Lovelace met Charles Babbage in London.\nAngela Merkel visited New York.\n"
    (clone / "texts.txt").write_text(text, encoding="utf-8")
    (clone / "held_out.txt").write_text("\n\n".join([text] * 20), encoding="utf-8")
    for folder_name in ("texts", "mails"):
        (clone / folder_name).mkdir()
        (clone / folder_name / "one.txt").write_text("\n\n".join([text] * 200), encoding="utf-8")
    for corpus in Path(data).iterdir() if data else ():
        shutil.copytree(corpus, clone / "data" / corpus.name)
    return clone


def run_block(block: Block, clone: Path, environment: dict[str, str]) -> list[tuple[str, int, float]]:
    """Runs each command to its end: (command, exit status, seconds)."""
    found = []
    for command in block.commands:
        print(f"\n$ {command}", flush=True)
        began = time.monotonic()
        status = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", command], cwd=clone, env=environment, stdin=subprocess.DEVNULL
        ).returncode
        found.append((command, status, time.monotonic() - began))
        if status:
            break
    return found


def start_server(block: Block, clone: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts the server of a block and waits until its models are loaded, as a reader does who waits for its line."""
    print(f"\n$ {block.commands[0]} &", flush=True)
    server = subprocess.Popen(["bash", "-c", f"exec {block.commands[0]}"], cwd=clone, env=environment)
    port = int((re.search(r"127\.0\.0\.1:(\d+)", block.commands[0]) or [0, 8501])[1])
    for _ in range(READY_SECONDS):
        time.sleep(1)
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            break
    return server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--list", action="store_true", help="print the commands, run none")
    parser.add_argument("--readme", default="README.md", help="which README of the checkout")
    parser.add_argument("--data", default="", help="folder of real corpora, copied to data/ of the clone")
    options = parser.parse_args()
    blocks = list(read_blocks((PROJECT / options.readme).read_text(encoding="utf-8")))
    if options.list:
        for block in blocks:
            kind = "slow" if block.slow else "background" if block.background else "quick"
            print("\n".join(f"{kind:<11}{command}" for command in block.commands))
        return 0
    results: list[tuple[str, int | None, float]] = []
    server: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder), options.data)
        environment = {**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
        for block in blocks:
            missing = [need for need in block.needs if is_missing(need, clone)]
            own_tests = any(command.startswith("make test") for command in block.commands)
            if missing or (options.quick and block.slow):
                results += [(command, None, 0.0) for command in block.commands]
                continue
            if own_tests:  # they are run by whoever runs this
                block = Block(tuple(command for command in block.commands if not command.startswith("make test")))
            if block.background:
                server = start_server(block, clone, environment)
                results.append((block.commands[0], server.poll() or 0, 0.0))
                continue
            results += run_block(block, clone, environment)
            if server:
                server.send_signal(signal.SIGINT)
                server.wait(60)
                server = None
    failed = [command for command, status, _ in results if status]
    print("\nstatus  seconds  command")
    for command, status, seconds in results:
        print(f"{'left out' if status is None else status:<8}{seconds:>7.0f}  {command}")
    print(f"\n{len(failed)} of {len(results)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

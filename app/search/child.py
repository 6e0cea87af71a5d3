"""Search room: modules of this program as processes of their own, whose standard input tells them what to do."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import IO, NoReturn

from app.config import Config, Terminated

_PROJECT = Path(__file__).resolve().parents[2]


def start_module(
    name: str, *arguments: str, stdout: int, stderr: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a module in a session of its own: Ctrl-C is for this process, which tells the other.

    Args:
        name: of the module.
        arguments: of its command line.
        stdout: `subprocess.PIPE` or `subprocess.DEVNULL`.
        stderr: where its messages go; None = to those of this process.

    Raises:
        OSError: it cannot be started.
    """
    places = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", name, *arguments],
        stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, bufsize=0,
        env={**os.environ, "PYTHONPATH": places}, start_new_session=True,
    )  # fmt: skip


def pack(config: Config) -> str:
    """A configuration as a part of a line of JSON."""
    return base64.b64encode(pickle.dumps(config)).decode("ascii")


# The other side.


def unpack(packed: str) -> Config:
    config: Config = pickle.loads(base64.b64decode(packed))
    return config


def read_line() -> bytes:
    """The next line of standard input, empty at its end. Byte by byte: what a buffer held, a fork would hold too, and a
    thread that waits for the end would not see it.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def terminate(*_: object) -> NoReturn:
    """What SIGTERM does."""
    raise Terminated

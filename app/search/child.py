"""Search room: modules of this program as processes of their own, whose standard input tells them what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

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

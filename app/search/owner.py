"""Search room: which process is at work on a trial, as the study notes it, and whether that process is still there."""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from pathlib import Path
from typing import Any


@cache
def machine() -> str:
    """This machine, as long as it runs; in a container, the container."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(read().strip())
        except OSError:
            continue
    return " ".join(parts)


def start_of(pid: int) -> str:
    """When a process of this machine started; empty if there is none. Numbers of processes are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def note_owner(token: str) -> dict[str, Any]:
    """This process, at this moment, as the owner of a trial."""
    return {
        "token": token,
        "machine": machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": start_of(os.getpid()),
        "beat": time.time(),
    }

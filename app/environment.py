"""What a run ran on: the content of environment.json."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parent.parent


def describe_environment(*, seed: int, command: Sequence[str]) -> dict[str, Any]:
    return {
        "command": shlex.join(command),
        "seed": seed,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "environment_variables": {
            name: os.environ[name] for name in sorted(os.environ) if name.startswith("TF_")
        },
        "packages": _packages(),
    }


def _packages() -> dict[str, str]:
    found = {str(package.metadata["Name"]).lower(): package.version for package in metadata.distributions()}
    return dict(sorted(found.items()))


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor()


def _git_revision() -> str | None:
    """The commit, with "+changes" if files differ from it; None outside a checkout."""
    if not (_PROJECT / ".git").exists():
        return None
    git = ["git", "-C", str(_PROJECT)]
    try:
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, timeout=10, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # Bytes: names of files need not be UTF-8.
    return revision.stdout.strip().decode("ascii") + ("+changes" if status.stdout.strip() else "")

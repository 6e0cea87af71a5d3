"""Models room: SHA-256 sums of weight files, in the format of `sha256sum -c`."""

import re
from collections.abc import Iterable
from pathlib import Path

from app.artifacts import sha256_of_file
from app.config import InputError

SUMS_FILE = "SHA256SUMS"


def check_sha256(path: Path, expected: str) -> None:
    """Raises InputError unless the file has the expected sum; an empty sum expects nothing."""
    if not expected:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise InputError(f"backbone.sha256 must be 64 hexadecimal digits or empty, received {expected!r}")
    received = sha256_of_file(path)
    if received != expected.lower():
        raise InputError(
            f"{path} is truncated or not the expected file: "
            f"its SHA-256 is {received}, allowed is {expected.lower()}"
        )


def read_sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 from a folder's `SHA256SUMS`; empty where there is none."""
    path = folder / SUMS_FILE
    if not path.is_file():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not found:
            raise InputError(
                f"{path}, line {number}: must be a SHA-256, two spaces and a file name, received {line!r}"
            )
        sums[found[2]] = found[1]
    return sums


def check_sums(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError unless each file is there, listed and unaltered."""
    for name, expected in check_listed(folder, names).items():
        check_sha256(folder / name, expected)


def check_listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The expected sum of each file; raises InputError unless all are there and listed."""
    sums = read_sums(folder)
    expected = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder} is not a complete model: {name} is missing")
        if name not in sums:
            raise InputError(f"{folder} is not a complete model: {SUMS_FILE} has no line for {name}")
        expected[name] = sums[name]
    return expected

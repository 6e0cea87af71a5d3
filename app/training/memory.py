"""Training room: how much memory is free, and the largest part of a batch that fits into it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tensorflow as tf

PART_OF_FREE = 0.8  # the rest is for data, checkpoints and whatever else the machine does
_CGROUPS = (  # (limit, usage) of this process in version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that may still be taken: what the machine has free, and what the limit of the container leaves."""
    found = [_kilobytes(root / "proc/meminfo", "MemAvailable") * 1024]
    for limit, usage in _CGROUPS:
        try:
            numbers = [int((root / path.lstrip("/")).read_text()) for path in (limit, usage)]
        except (OSError, ValueError):  # another version, or "max": no limit
            continue
        found.append(max(0, numbers[0] - numbers[1]))
    return min(found)


def own_memory(field: str = "VmRSS") -> int:
    """Resident bytes of this process now; with "VmHWM", the most it ever had."""
    return _kilobytes(Path("/proc/self/status"), field) * 1024


def _kilobytes(path: Path, name: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def allowed_parts(batch: int, also: int = 0) -> list[int]:
    """Numbers of equal parts a replica's rows can be computed in, the most first; `also` are rows of a later stage."""
    return [parts for parts in range(batch, 0, -1) if batch % parts == 0 and also % parts == 0]


def compute_long_batch(batch_size: int, *, length: int, long_length: int, shares: int) -> int:
    """Rows of a batch of long sequences: as many pieces as a batch of `batch_size` short ones has, about.

    Args:
        batch_size: rows of `length` pieces, over all devices.
        length: pieces in a short row.
        long_length: pieces in a long row.
        shares: what the rows are shared out among: replicas times parts. Each gets the same number, at least 1.
    """
    return max(1, batch_size * length // long_length // shares) * shares


def try_parts(
    parts: Iterable[int], run: Callable[[int], None], *, limit: int, peak: Callable[[], int]
) -> Iterator[tuple[int, int]]:
    """Computes a step with ever larger parts as long as they fit, and yields (parts, peak of memory in bytes).

    Args:
        parts: the most first.
        run: computes a step whose batch is cut into so many parts.
        limit: bytes.
        peak: the most memory used until now, bytes.
    """
    return try_rising(parts, run, amount=lambda number: 1 / number, limit=limit, peak=peak)


def try_rising(
    sizes: Iterable[int],
    run: Callable[[int], None],
    *,
    amount: Callable[[int], float],
    limit: int,
    peak: Callable[[], int],
) -> Iterator[tuple[int, int]]:
    """Computes steps that need ever more memory as long as they fit, and yields (size, peak of memory in bytes).

    The processor has no limit that could be hit and survived, so what the next step needs is told from the two before
    it and not tried if it is too much. A GPU says so itself.

    Args:
        sizes: that which needs least memory first.
        run: computes a step of that size.
        amount: of rows or pieces in a step of that size; memory grows with it.
        limit: bytes.
        peak: the most memory used until now, bytes.
    """
    known: list[tuple[float, int]] = []
    for size in sizes:
        wanted = amount(size)
        if len(known) > 1:
            (less, low), (more, high) = known[-2:]
            if high + (high - low) * (wanted - more) / (more - less) > limit:
                return
        try:
            run(size)
        except tf.errors.ResourceExhaustedError:
            return
        known.append((wanted, peak()))
        if known[-1][1] > limit:
            return
        yield size, known[-1][1]

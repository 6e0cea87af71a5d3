"""Evaluation room: several contestants timed in turns, so that a machine whose speed drifts is as slow for one as for
the other.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

PAUSE_SECONDS = 0.01  # threads of the last contestant that still spin go to sleep

Key = TypeVar("Key")


def time_in_rounds(tasks: Mapping[Key, Callable[[], float]], *, rounds: int) -> dict[Key, float]:
    """The median of what each task measures. In a round each has one turn; the next round begins with the next task.

    Args:
        tasks: each does its work and returns the seconds it took.
        rounds: at least 1.
    """
    keys = list(tasks)
    found: dict[Key, list[float]] = {key: [] for key in keys}
    for number in range(rounds):
        first = number % len(keys) if keys else 0
        for key in keys[first:] + keys[:first]:
            time.sleep(PAUSE_SECONDS)
            found[key].append(tasks[key]())
    return {key: statistics.median(seconds) for key, seconds in found.items()}


def time_calls(call: Callable[[], object], *, calls: int, warm_up: int) -> float:
    """Median seconds of a call, after some that do not count."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)

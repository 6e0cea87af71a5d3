"""Serving room: a busy server lowers the bar for leaving the network early, and raises it again when it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.tasks.exit_table import FACT, choose_row, loses_at_most, read_table

CALM = 0.5  # part of the target latency below which the bar is raised again
PATIENCE = 8  # batches in a row that must be calm for that: down at once, up slowly, so that it does not swing
REST_SECONDS = 10.0  # without a batch, after which a peak is over


def find_thresholds(facts: Mapping[str, Any], *, max_f1_loss: float, under_load: float) -> list[float]:
    """Those of the stored table (`app/tasks/exit_table.py`), ascending, from that for `max_f1_loss` points on.

    Args:
        facts: of the model.
        max_f1_loss: points that may be lost with nothing to do.
        under_load: points that may be lost at most.
    """
    layers = tuple((facts.get(FACT) or {}).get("layers", ()))
    rows = read_table(facts, layers)
    if not rows:
        return []
    start = choose_row(rows, max_loss=max_f1_loss) or rows[0]
    further = [row for row in rows if row.operations < start.operations and loses_at_most(rows, row, under_load)]
    return [start.threshold, *(row.threshold for row in further)]


class LoadAdapter:
    """Chooses a threshold by how long requests take.

    Args:
        thresholds: at which texts leave the network, ascending, the first with nothing to do.
        target_ms: latency of a request above which the next one is taken; 0 = never.
        clock: seconds that only rise.
    """

    def __init__(
        self, thresholds: Sequence[float], *, target_ms: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._thresholds = list(thresholds)
        self._target = target_ms / 1000
        self._level = self._calm = 0
        self._clock, self._noted = clock, clock()
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether there is anything to choose from."""
        return self._target > 0 and len(self._thresholds) > 1

    @property
    def level(self) -> int:
        """How many thresholds further than with nothing to do."""
        with self._lock:
            self._rest()
            return self._level

    @property
    def threshold(self) -> float:
        """At which texts leave now."""
        return self._thresholds[self.level]

    def note(self, seconds: float) -> None:
        """A batch has been answered, whose oldest request took so long from its arrival on."""
        with self._lock:
            self._noted = self._clock()
            if seconds > self._target:
                self._level = min(self._level + 1, len(self._thresholds) - 1)
                self._calm = 0
            elif seconds < CALM * self._target:
                self._calm += 1
                if self._calm >= PATIENCE:
                    self._level, self._calm = max(0, self._level - 1), 0
            else:
                self._calm = 0

    def _rest(self) -> None:
        """Forgets a peak that nothing followed: calm batches, which would end it, do not come by themselves."""
        if self._clock() - self._noted > REST_SECONDS:
            self._level = self._calm = 0

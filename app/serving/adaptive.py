"""Serving room: a busy server lowers the bar for leaving the network early, and raises it again when it can."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from app.tasks.exit_table import FACT, choose_row, read_table

CALM = 0.5  # part of the target latency below which the bar is raised again
PATIENCE = 8  # batches in a row that must be calm for that: down at once, up slowly, so that it does not swing


class LoadAdapter:
    """Chooses a row of the stored table (`app/tasks/exit_table.py`) by how long requests take.

    Args:
        facts: of the model.
        target_ms: latency of a request above which the next row is taken; 0 = never.
        max_f1_loss: that the first row is chosen for, in points of 100.
    """

    def __init__(self, facts: Mapping[str, Any], *, target_ms: float, max_f1_loss: float) -> None:
        layers = tuple((facts.get(FACT) or {}).get("layers", ()))
        rows = read_table(facts, layers)
        start = choose_row(rows, max_loss=max_f1_loss) or (rows[0] if rows else None)
        self._thresholds = [row.threshold for row in rows if start and row.operations <= start.operations]
        self._target = target_ms / 1000
        self._level = self._calm = 0
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether there is anything to choose from."""
        return self._target > 0 and len(self._thresholds) > 1

    @property
    def level(self) -> int:
        """How many rows lower than with nothing to do."""
        return self._level

    @property
    def threshold(self) -> float:
        """At which texts leave now."""
        return self._thresholds[self._level]

    def note(self, seconds: float) -> None:
        """A batch has been answered, whose oldest request took so long from its arrival on."""
        with self._lock:
            if seconds > self._target:
                self._level = min(self._level + 1, len(self._thresholds) - 1)
                self._calm = 0
            elif seconds < CALM * self._target:
                self._calm += 1
                if self._calm >= PATIENCE:
                    self._level, self._calm = max(0, self._level - 1), 0
            else:
                self._calm = 0

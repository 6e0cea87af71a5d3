"""Serving room: the stores of corrections of the models that are served."""

from __future__ import annotations

import threading

from app.config import FeedbackConfig
from app.feedback.database import mask_url
from app.feedback.store import FILE_NAME, Store, open_store
from app.run.directory import RunDirectory


class Stores:
    """Opened when they are first needed: one for all models if `feedback.url` is set, else one in each run directory.

    Threads may share it.
    """

    def __init__(self, config: FeedbackConfig) -> None:
        self.config = config
        self._stores: dict[str, Store] = {}
        self._lock = threading.Lock()

    def of(self, run_dir: RunDirectory) -> Store:
        """Raises InputError if the database cannot be used."""
        name = self.name(run_dir)
        with self._lock:
            if name not in self._stores:
                self._stores[name] = open_store(self.config.url, run_dir.path)
            return self._stores[name]

    def name(self, run_dir: RunDirectory) -> str:
        """Where corrections of a run go, as people read it."""
        return mask_url(self.config.url) if self.config.url else str(run_dir.path / FILE_NAME)

    def close(self) -> None:
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

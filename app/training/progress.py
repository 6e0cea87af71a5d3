"""Training room: what a person watching sees: a progress bar on a terminal, a line now and then in a log."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.one_keras import keras

SECONDS_BETWEEN_LINES = 30.0
_CONSOLE = Console(stderr=True)


class ProgressDisplay(keras.callbacks.Callback):
    """Loss, words/s and time left.

    Args:
        total_steps: of the whole run, over all epochs.
        first_step: steps done before this process started.
        epochs: of the whole run.
        unit: what speed is counted in.
        quiet: count, but show nothing: for all workers but the chief.
    """

    def __init__(
        self, *, total_steps: int, first_step: int, epochs: int, unit: str = "words", quiet: bool = False
    ) -> None:
        super().__init__()
        self.unit, self.quiet = unit, quiet
        self.total_steps = total_steps
        self.done = self.first_step = first_step
        self.epochs = epochs
        self.epoch = 0
        self._paused = 0.0
        self._pause_began = 0.0
        self._began = self._last_line = time.monotonic()
        self._words_before = self._words = 0.0
        percent = TextColumn("{task.percentage:>3.0f}%")
        bar = Progress(TextColumn("{task.description}"), BarColumn(), percent, TimeRemainingColumn(), console=_CONSOLE)
        self._task = bar.add_task("starting", total=total_steps, completed=first_step)
        self._bar = bar if sys.stderr.isatty() and not quiet else None

    @property
    def says_lines(self) -> bool:
        """Whether the person watching sees lines, and no bar."""
        return not self._bar and not self.quiet

    @property
    def training_seconds(self) -> float:
        """Seconds this process spent on training steps, first compilation included, scoring between epochs not."""
        now = time.monotonic()
        pause = now - self._pause_began if self._pause_began else 0.0
        return now - self._began - self._paused - pause

    @property
    def words_seen(self) -> float:
        return self._words_before + self._words

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._bar:
            self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._pause_began:
            self._paused += time.monotonic() - self._pause_began
            self._pause_began = 0.0
        self.epoch = epoch
        self._words = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.done += 1
        self._words = float((logs or {}).get("words", 0.0))
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=self._line(logs or {}))
        elif not self.quiet and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = self.training_seconds / (self.done - self.first_step) * (self.total_steps - self.done)
            print(f"{self._line(logs or {})} | {left / 60:.1f} min left", file=sys.stderr, flush=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._words_before += self._words
        self._words = 0.0
        self._pause_began = time.monotonic()

    def close(self) -> None:
        """Stops the bar; safe to call twice."""
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line without tearing the bar."""
        if self._bar:
            self._bar.console.print(text, highlight=False)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _line(self, logs: dict) -> str:
        rate = self.words_seen / max(self.training_seconds, 1e-9)
        place = f"epoch {self.epoch + 1}/{self.epochs} | step {self.done}/{self.total_steps}"
        return f"{place} | loss {float(logs.get('loss', 0.0)):.4f} | {rate:,.0f} {self.unit}/s"

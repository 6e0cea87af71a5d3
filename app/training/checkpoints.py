"""Training room: checkpoints from which a run goes on exactly where it stopped."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from app.config import InputError, RunError
from app.config.paths import plain, real_names
from app.one_keras import keras
from app.run.files import reason_of, remove
from app.training.step import StepTuner
from app.training.workers import Workers

_NONE, _FAILED = 0, -1  # what the chief says instead of the number of a checkpoint
KEPT = 2  # the newest may be lost to a full disk; the one before it survives
_FILE = re.compile(r"(?P<name>ckpt-\d+)(?P<part>_temp|\.index|\.data-\d+-of-\d+)")


@dataclass
class Position:
    """Where training stands: `epoch` whole epochs and `step` steps of the next one are done.

    `loss` is the mean of that next epoch so far, over `epoch_words` words.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    epoch_words: float = 0.0
    best_score: float = -1.0
    best_epoch: int = 0
    words: int = 0
    seconds: float = 0.0
    checkpoint_seconds: float = 0.0


def _dropout_generators(tuner: StepTuner) -> dict[str, tf.random.Generator]:
    """The random state of the dropout layers, which Keras leaves out of a model's checkpoint."""
    layers = (layer for layer in tuner.network._flatten_layers() if hasattr(layer, "_random_generator"))
    found = (layer._random_generator._generator for layer in layers)
    return {str(number): generator for number, generator in enumerate(found) if generator is not None}


def _state(tuner: StepTuner) -> dict[str, Any]:
    """Everything the tuner holds but its metrics, which begin anew anyway; on several machines, reading them takes all.

    So the chief can save by itself: weights, slots and random state are the same on every worker.
    """
    children = tuner._trackable_children().items()
    return {name: child for name, child in children if not isinstance(child, keras.metrics.Metric)}


class Checkpoints:
    """Model, optimizer, averages, random state and position, saved together.

    The chief alone writes; all workers read the checkpoint that the chief has found readable.

    Args:
        folder: `checkpoints/` of the run directory; every worker sees it.
        tuner: compiled, its optimizer's variables built, so that nothing is restored late.
        workers: that train together.
    """

    def __init__(self, folder: Path, tuner: StepTuner, workers: Workers) -> None:
        self._workers = workers
        self._position = {
            name: tf.Variable(value, dtype=tf.int64 if isinstance(value, int) else tf.float64, trainable=False)
            for name, value in vars(Position()).items()
        }
        model = tf.train.Checkpoint(**_state(tuner))
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=tuner.optimizer, position=self._position, dropout=_dropout_generators(tuner)
        )
        _ = self._checkpoint.save_counter  # exists before it is restored, so that numbers go on
        self._folder = folder
        if workers.is_chief:
            folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        self._manager = tf.train.CheckpointManager(self._checkpoint, plain(folder), max_to_keep=KEPT)

    def restore(self) -> Position | None:
        """The newest checkpoint that can be read; an unreadable one is passed over, not silently, for the one before.

        Raises:
            InputError: none can be read, or they are of another model.
        """
        error: InputError | None = None
        restored: str | None = None
        if self._workers.is_chief:
            try:
                restored = self._restore_newest()
            except InputError as found:
                error = found
        number = _FAILED if error else _number(restored) if restored else _NONE
        chosen = int(self._workers.from_chief([number])[0])
        if error or chosen == _FAILED:
            raise error or InputError("the chief worker can read no checkpoint; its message says why")
        if chosen == _NONE:
            return None
        if not self._workers.is_chief:
            self._restore_same(chosen)
        return Position(**{name: variable.numpy().item() for name, variable in self._position.items()})

    def _restore_newest(self) -> str | None:
        broken = ""
        for path in reversed(self._manager.checkpoints):
            if broken:
                print(f"{broken}; going back to {Path(path).name}", file=sys.stderr, flush=True)
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
            except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
                why = f"{type(error).__name__}: {reason_of(error)}"
                broken = f"the checkpoint {real_names(path)} cannot be read ({why})"
                continue
            return str(path)
        if broken:
            raise InputError(f"no checkpoint in {self._folder} can be read: {broken}; start over with --overwrite")
        return None

    def _restore_same(self, number: int) -> None:
        path = f"{self._manager.directory}/ckpt-{number}"
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
            raise InputError(
                f"worker {self._workers.index} cannot read {real_names(path)}, from which the chief continues: all "
                "workers must see the same run directory"
            ) from error

    def save(self, position: Position) -> None:
        """Writes a checkpoint under a new name, then removes the oldest; a failed write loses nothing."""
        if not self._workers.is_chief:
            return
        for name, value in vars(position).items():
            self._position[name].assign(value)
        try:
            self._manager.save()
        except (OSError, tf.errors.OpError) as error:
            newest = self._remove_leftovers(failed=True)
            before = f"{newest} before it is intact" if newest else "there is none before it"
            again = "continues from there" if newest else "trains from the beginning"
            raise RunError(
                f"{reason_of(error)}: checkpoint {self._checkpoint.save_counter.numpy()} could not be written to "
                f"{self._folder}; {before}: free some space and run the same command again, which {again}"
            ) from error

    def _remove_leftovers(self, *, failed: bool = False) -> str:
        """Deletes what a save that was killed, or has just failed, left behind; whole checkpoints stay.

        Args:
            failed: a save has failed: files of a checkpoint that is not listed are parts of it.

        Returns:
            the name of the newest checkpoint that is listed; empty if there is none.
        """
        state = tf.train.get_checkpoint_state(plain(self._folder))
        listed = [Path(path).name for path in state.all_model_checkpoint_paths] if state else []
        for path in list(self._folder.iterdir()):
            found = _FILE.fullmatch(path.name)
            if not found:
                leftover = path.name.startswith("checkpoint.tmp")  # of the list
            elif found["part"] == "_temp":
                leftover = True
            else:
                whole = (self._folder / f"{found['name']}.index").exists()
                leftover = found["name"] not in listed and (failed or not whole)
            if leftover:
                remove(path)
        return listed[-1] if listed else ""


def _number(path: str) -> int:
    return int(path.rpartition("-")[2])

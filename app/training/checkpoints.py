"""Training room: checkpoints from which a run goes on exactly where it stopped."""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from app.config import InputError, RunError
from app.training.fine_tuner import FineTuner

KEPT = 2  # the newest may be lost to a full disk; the one before it survives


@dataclass
class Position:
    """Where training stands: `epoch` whole epochs and `step` steps of the next one are done."""

    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    words: int = 0
    seconds: float = 0.0


def _dropout_generators(tuner: FineTuner) -> dict[str, tf.random.Generator]:
    """The random state of the dropout layers, which Keras leaves out of a model's checkpoint."""
    layers = (layer for layer in tuner.network._flatten_layers() if hasattr(layer, "_random_generator"))
    found = (layer._random_generator._generator for layer in layers)
    return {str(number): generator for number, generator in enumerate(found) if generator is not None}


class Checkpoints:
    """Model, optimizer, averages, random state and position, saved together.

    Args:
        folder: `checkpoints/` of the run directory.
        tuner: compiled, its optimizer's variables built, so that nothing is restored late.
    """

    def __init__(self, folder: Path, tuner: FineTuner) -> None:
        self._position = {
            name: tf.Variable(value, dtype=tf.int64 if isinstance(value, int) else tf.float64, trainable=False)
            for name, value in vars(Position()).items()
        }
        self._checkpoint = tf.train.Checkpoint(
            model=tuner, optimizer=tuner.optimizer, position=self._position, dropout=_dropout_generators(tuner)
        )
        _ = self._checkpoint.save_counter  # exists before it is restored, so that numbers go on
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=KEPT)

    def restore(self) -> Position | None:
        """The newest checkpoint that can be read; an unreadable one is passed over for the one before it.

        Raises:
            InputError: none can be read, or they are of another model.
        """
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
            except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
                broken = error
                continue
            return Position(**{name: variable.numpy().item() for name, variable in self._position.items()})
        if self._manager.checkpoints:
            raise InputError(
                f"no checkpoint in {self._manager.directory} can be read ({type(broken).__name__}: "
                f"{str(broken).splitlines()[0][:200]}); start anew with --overwrite"
            )
        return None

    def save(self, position: Position) -> None:
        """Writes a checkpoint under a new name, then removes the oldest; a failed write loses nothing."""
        for name, value in vars(position).items():
            self._position[name].assign(value)
        try:
            self._manager.save()
        except tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0][:200]
            raise RunError(
                f"the checkpoint could not be written to {self._manager.directory} ({reason}); the one before it is "
                "intact: free some space and run the same command again"
            ) from error

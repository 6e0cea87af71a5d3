"""Training room: what a run of the fit loop is given beside the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from app.one_keras import keras

BatchesFrom = Callable[[int, int], tf.data.Dataset]  # (first epoch, first step) -> all batches from there on
Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Plan:
    """What a run of `fit` is given beside the model.

    Of several workers, only the chief validates, logs and writes; the others may be given the same plan.

    Attributes:
        batches: the training data from a position on.
        steps_per_epoch: batches in an epoch.
        depths: depth of each trainable variable of the network, in its order (`Tagger.layer_depths`).
        precision: what `set_up` returned.
        checkpoints: folder for resume.
        tensorboard: folder for TensorBoard, or None.
        validate: scores the validation split. None: the last weights are kept.
        log: takes one flat row of numbers per epoch.
        forget: takes a number of epochs; rows of later ones, logged before a kill lost their checkpoint, are dropped.
        name: of the phase, for the person watching.
        score: name of the validation score that chooses the best weights; higher is better.
        unit: what speed is counted in.
        breaks: epochs at which the batches change their shape: `batches` is asked anew there.
        callbacks: what else happens between steps; they run before the weights are validated or saved.
        first_kept_epoch: the weights of earlier epochs are scored, and not kept as the best.
    """

    batches: BatchesFrom
    steps_per_epoch: int
    depths: Sequence[int]
    precision: str
    checkpoints: Path
    tensorboard: Path | None
    validate: Callable[[], dict[str, float]] | None
    log: Log
    forget: Callable[[int], None] = lambda epochs: None
    name: str = ""
    score: str = "entity_f1"
    unit: str = "words"
    breaks: tuple[int, ...] = ()
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    first_kept_epoch: int = 1

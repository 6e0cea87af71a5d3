"""Training room: the one fit loop, and what happens between its steps: validation, history, checkpoints, stopping."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from app.config import RunError, Terminated, TrainingConfig
from app.config.paths import plain
from app.one_keras import keras
from app.run.directory import atomic
from app.run.screen import heartbeat
from app.training.checkpoints import Checkpoints, Position
from app.training.plan import Plan, with_input_threads
from app.training.progress import ProgressDisplay
from app.training.step import StepTuner
from app.training.workers import Workers

_MOST_WRITING = 0.02  # part of the time that checkpoints may take at the default interval


class RunKeeper(keras.callbacks.Callback):
    """Validation, best weights, early stopping, history, checkpoints and the NaN stop: what happens between steps."""

    def __init__(
        self,
        config: TrainingConfig,
        plan: Plan,
        checkpoints: Checkpoints,
        position: Position,
        progress: ProgressDisplay,
        workers: Workers,
    ) -> None:
        super().__init__()
        self.config, self.plan, self.checkpoints = config, plan, checkpoints
        self.position, self.progress, self.workers = position, progress, workers
        self._epoch_before = (position.loss, position.epoch_words)
        self._before = (position.words, position.seconds)
        self._saves, self._spent_before = 0, position.checkpoint_seconds
        self._best: list[np.ndarray] | None = None  # not on disk yet
        self._best_path = plan.checkpoints / "best.npz"
        writes = workers.is_chief
        if plan.tensorboard and writes:
            plan.tensorboard.mkdir(parents=True, exist_ok=True)
        self._writer = tf.summary.create_file_writer(plain(plan.tensorboard)) if plan.tensorboard and writes else None
        self._asked: type[KeyboardInterrupt] | None = None
        self._validating = False

    @contextmanager
    def stop_between_steps(self) -> Iterator[None]:
        """Holds Ctrl-C and SIGTERM back until weights and position agree; they would nearly always fall between."""

        def ask(number: int, _: object) -> None:
            kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            if self._asked or (self._validating and kind is Terminated):
                raise kind
            self._asked = kind
            again = b"SIGTERM" if kind is Terminated else b"Ctrl-C"
            os.write(2, b"\nstopping after this step; " + again + b" again stops at once, without a checkpoint\n")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if before[signal.SIGINT] is not signal.default_int_handler:  # whoever set another one wants it otherwise
            del before[signal.SIGINT]
        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_asked(self) -> type[KeyboardInterrupt] | None:
        """What any of the workers was asked to stop with."""
        kinds = (Terminated, KeyboardInterrupt)
        asked = self.workers.total([float(self._asked is kind) for kind in kinds])
        return next((kind for kind, count in zip(kinds, asked, strict=True) if count), None)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self.position.step += 1
        loss = float(logs.get("step_loss", 0.0))
        if not math.isfinite(loss):
            done = self.position.epoch * self.plan.steps_per_epoch + self.position.step
            raise RunError(
                f"the loss became {loss} at step {done}; lower training.learning_rate ({self.config.learning_rate:g}), "
                "raise training.warmup_fraction, or set training.precision=float32"
            )
        self.model.update_averages(self.plan.steps_per_epoch)
        every = self.config.log_every_steps
        if self._writer and every and self.position.step % every == 0:
            with self._writer.as_default(step=int(self.model.optimizer.iterations.numpy())):
                tf.summary.scalar("train/loss", loss)
                speed = self.progress.words_seen / self.progress.training_seconds
                tf.summary.scalar(f"train/{self.plan.unit}_per_second", speed)
        self._count_epoch(logs)
        asked = self._stop_asked()
        every = self.config.checkpoint_every_steps
        if self.position.step == self.plan.steps_per_epoch:  # what follows the last step saves, too, if there is time
            asked, every = (asked if asked is Terminated else None), 0
        if asked or (every and self.position.step % every == 0):
            self.save()
        if asked:
            raise asked

    def _count_epoch(self, logs: dict) -> None:
        """The mean loss of the epoch, over the part of it that an earlier process did as well."""
        loss, words = self._epoch_before
        more = float(logs.get("words", 0.0))
        self.position.epoch_words = words + more
        mean = float(logs.get("loss", 0.0))
        self.position.loss = (loss * words + mean * more) / self.position.epoch_words if words else mean

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.plan.steps_per_epoch,
            "loss": self.position.loss,
            "seconds": round(self._before[1] + self.progress.training_seconds, 1),
            f"{self.plan.unit}_per_second": self.progress.words_seen / self.progress.training_seconds,
        }
        if self.plan.validate:
            try:
                row |= {f"valid/{k}": value for k, value in self._validate(epoch + 1, self.plan.validate).items()}
            except Terminated:
                self.save()  # the epoch is trained; the next process begins with its validation
                raise
        self.position.epoch, self.position.step = epoch + 1, 0
        self.position.loss, self.position.epoch_words = self._epoch_before = (0.0, 0.0)
        if self.workers.is_chief:
            self.plan.log(row)
            self._show(row)
        saves = bool(self.workers.from_chief([float(self._is_worth_saving())])[0])  # each worker has a clock of its own
        if saves:
            self.save()
        asked = self._stop_asked()
        if asked:
            if not saves:
                self.save()
            raise asked
        if self.stopped_early():
            patience = self.config.early_stopping_patience_epochs
            self.progress.say(f"stopped early: no better validation score for {patience} epochs")
            self.model.stop_training = True

    def stopped_early(self) -> bool:
        """Whether early stopping ends the run here, in this process or in the one it resumes."""
        return stopped_early(self.config, self.plan, self.position)

    def _is_worth_saving(self) -> bool:
        """Whether a checkpoint follows this epoch; the last epoch has one, so that a finished run is not trained again.

        By the default interval, short epochs of large models go without: a crash then costs little.
        """
        last = self.position.epoch == self.config.epochs or self.stopped_early()
        if last or self.config.checkpoint_every_steps or not self._saves:
            return True
        spent, seconds = self.position.checkpoint_seconds, self._before[1] + self.progress.training_seconds
        another = (spent - self._spent_before) / self._saves
        return spent + 2 * another <= _MOST_WRITING * seconds  # this one and the last

    def _validate(self, epoch: int, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Scores the weights that would be kept: the averages, if there are any. The chief scores for all workers."""
        scores = {self.plan.score: 0.0}
        self.model.swap_averages()
        try:
            if self.workers.is_chief:
                self._validating = True
                with heartbeat("validating", shown=self.progress.says_lines):
                    scores = validate()
        except BaseException:
            self.model.swap_averages()
            raise
        finally:
            self._validating = False
        (score,) = self.workers.from_chief([scores[self.plan.score]])
        if score > self.position.best_score and epoch >= self.plan.first_kept_epoch:
            self.position.best_score, self.position.best_epoch = score, epoch
            self._best = self.model.read_weights()
        self.model.swap_averages()
        return scores

    def _show(self, row: dict[str, float]) -> None:
        score = f"valid/{self.plan.score}"
        name = self.plan.score.replace("_f1", " F1").replace("_", " ")
        valid = f" | valid {name} {row[score]:.4f}" if score in row else ""
        unit = self.plan.unit
        mark = "best" if self.plan.first_kept_epoch == 1 else "kept"  # an earlier epoch may have scored better
        best = f" ({mark})" if self.position.best_epoch == row["epoch"] else ""
        self.progress.say(
            f"{self.plan.name}epoch {row['epoch']}/{self.config.epochs} | loss {row['loss']:.4f}{valid}{best} | "
            f"{row[f'{unit}_per_second']:,.0f} {unit}/s | {row['seconds']:.0f} s of training"
        )
        if self._writer:
            with self._writer.as_default(step=int(row["step"])):
                for name, value in row.items():
                    if name not in ("epoch", "step"):
                        tf.summary.scalar(f"epoch/{name}", value)
            self._writer.flush()

    def save(self) -> None:
        self.position.words = round(self._before[0] + self.progress.words_seen)
        self.position.seconds = self._before[1] + self.progress.training_seconds
        began = time.perf_counter()
        if self._best and self.workers.is_chief:
            with atomic(self._best_path) as path:
                np.savez(path, *self._best)
        self._best = None
        self.checkpoints.save(self.position)
        self._saves += 1
        self.position.checkpoint_seconds += time.perf_counter() - began

    def load_best(self) -> None:
        """Puts the best weights into the network; without a validation split, the averages or the last weights."""
        if not self._best_path.exists():
            self.model.swap_averages()
            return
        with np.load(self._best_path) as arrays:
            self.model.write_weights([arrays[f"arr_{number}"] for number in range(len(arrays.files))])

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def summary(self) -> dict[str, float]:
        seconds = max(self.position.seconds, 1e-9)
        return {
            "train/best_epoch": self.position.best_epoch or self.position.epoch,
            "train/epochs": self.position.epoch,
            f"train/{self.plan.unit}": self.position.words,
            "train/seconds": seconds,
            "train/checkpoint_seconds": self.position.checkpoint_seconds,
            f"train/{self.plan.unit}_per_second": self.position.words / seconds,
            **({f"valid/{self.plan.score}": self.position.best_score} if self.position.best_epoch else {}),
        }


def stopped_early(config: TrainingConfig, plan: Plan, position: Position) -> bool:
    """Whether so many epochs have brought no better score that the run ends at a position."""
    patience = config.early_stopping_patience_epochs
    return bool(patience and plan.validate and position.epoch - position.best_epoch >= patience)


# The one fit loop, on `keras.Model.fit`.
#
# Order of initialisation: the run's own checkpoint if there is one, else the weights the tagger came with.


__all__ = ["Plan", "run_fit"]


def run_fit(tuner: StepTuner, config: TrainingConfig, plan: Plan) -> dict[str, float]:
    """Trains to the end, resuming if the run has a checkpoint, and leaves the best weights in the network.

    Call inside the strategy's scope. The first Ctrl-C lets the step or the validation finish and saves a checkpoint; a
    second one stops at once. SIGTERM does the same, but breaks a validation off. One worker that is asked to stop stops
    all of them, after the same step.

    Returns:
        flat numbers: best epoch and F1, words, seconds, words per second, and seconds of writing checkpoints.

    Raises:
        RunError: the loss is no longer a number, or a checkpoint cannot be written.
        KeyboardInterrupt: Ctrl-C; `Terminated`: SIGTERM. A checkpoint is written.
    """
    workers = Workers(tf.distribute.get_strategy())
    total_steps = plan.steps_per_epoch * config.epochs
    optimizer = tuner.make_optimizer(config, total_steps=total_steps, depths=plan.depths, precision=plan.precision)
    tuner.compile(optimizer=optimizer, jit_compile=config.jit_compile)
    checkpoints = Checkpoints(plan.checkpoints, tuner, workers)
    position = checkpoints.restore() or Position()
    if workers.is_chief:
        plan.forget(position.epoch)
    first_step = position.epoch * plan.steps_per_epoch + position.step
    if first_step < total_steps and not stopped_early(config, plan, position):
        plan.prepare()  # not between steps, where Ctrl-C waits for the next one
    progress = ProgressDisplay(
        total_steps=total_steps,
        first_step=first_step,
        epochs=config.epochs,
        unit=plan.unit,
        quiet=not workers.is_chief,
    )
    plan, found = with_input_threads(plan, config.input_threads, steps=total_steps - first_step)
    if found:
        progress.say(found)
    keeper = RunKeeper(config, plan, checkpoints, position, progress, workers)
    keeper.set_model(tuner)  # Keras would do so in `fit`, which a finished run does not enter
    callbacks = [progress, *plan.callbacks, keeper]
    try:
        with keeper.stop_between_steps():
            _fit(tuner, config, plan, keeper, callbacks)
    finally:
        progress.close()
        keeper.close()
    keeper.load_best()
    return keeper.summary()


def _fit(tuner: StepTuner, config: TrainingConfig, plan: Plan, keeper: RunKeeper, callbacks: list) -> None:
    """Keras counts epochs of equal length, so the rest of a broken-off epoch is a fit of its own."""
    position, known = keeper.position, None
    while position.epoch < config.epochs and not keeper.stopped_early():
        rest = plan.steps_per_epoch - position.step
        if not rest:  # broken off in the validation
            keeper.on_epoch_end(position.epoch)
            continue
        whole = position.step == 0
        until = min((at for at in plan.breaks if at > position.epoch), default=config.epochs)
        batches = plan.batches(position.epoch, position.step)
        if batches.element_spec != known:
            # For a second shape, TensorFlow would trace a step of any shape, which rounds in another way than the one
            # that a run resumed here traces.
            tuner.train_function, known = None, batches.element_spec
        tuner.fit(
            batches,
            steps_per_epoch=rest,
            initial_epoch=position.epoch,
            epochs=until if whole else position.epoch + 1,
            callbacks=callbacks,
            verbose=0,
        )

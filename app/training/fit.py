"""Training room: the one fit loop, on `keras.Model.fit`.

Order of initialisation: the run's own checkpoint if there is one, else the weights the tagger came with.
"""

import tensorflow as tf

from app.config import TrainingConfig
from app.training.checkpoints import Checkpoints, Position
from app.training.plan import Plan, with_input_threads
from app.training.progress import ProgressDisplay
from app.training.run_keeper import RunKeeper
from app.training.step import StepTuner
from app.training.workers import Workers

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

"""Modes room: learn from what people corrected, and choose which version of a run is live."""

from app.config.update import chosen_actions
from app.feedback.actions import act
from app.run.directory import Request


def run(request: Request) -> dict[str, float]:
    """Trains an update of `init_from`, or does the one thing that a setting asks of `--run_dir`."""
    if chosen_actions(request.config.update):
        return act(request)
    from app.feedback.updating import update  # imports TensorFlow, which the rest has no need of

    return update(request)

"""Evaluation room: which other run can be asked the same, to see where two models disagree. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from app.config import InputError
from app.encoder.sources import TAGGER_SETTINGS, check_tagger, read_json
from app.run.directory import RunDirectory

SETTING = "predict.other_run"


def check_other_run(source: str, *, task: str, labels: Sequence[str]) -> RunDirectory:
    """The run, if it answers what a model of this task with these labels answers. Reads no weights.

    Raises:
        InputError: it is no finished run, or one of another task or other labels.
    """
    run = RunDirectory(source)
    run.require_run(SETTING)
    found = check_tagger(run.model).labels
    other_task = read_json(run.model / TAGGER_SETTINGS).get("task", "tagging")
    if other_task != task:
        raise InputError(f"{SETTING}: {source} is of task={other_task}, it must be of task={task} as this run is")
    if tuple(found) != tuple(labels):
        raise InputError(
            f"{SETTING}: {source} has the labels {', '.join(found)}, this run has {', '.join(labels)}; "
            "they must be the same"
        )
    return run

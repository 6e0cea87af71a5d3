"""Tasks room: what is learnt. `task.py` is the contract; each task is a folder. Imports nothing heavy."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.config import InputError

if TYPE_CHECKING:
    from app.tasks.task import Task


@dataclass(frozen=True)
class Registered:
    """Where a task is.

    Attributes:
        task: "module:NAME" of the `Task`.
        early: "module:NAME" of a function (path, *, config, labels) that looks at the beginning of a corpus in
            milliseconds and imports nothing heavy; empty = there is none.
    """

    task: str
    early: str = ""


TASKS: dict[str, Registered] = {
    "tagging": Registered("app.tasks.tagging.task:TAGGING", "app.tasks.tagging.corpus_heads:check_split_head"),
    "classification": Registered(
        "app.tasks.classification.task:CLASSIFICATION", "app.tasks.classification.corpus_checks:check_split_head"
    ),
}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"task must be one of {', '.join(TASKS)}, received {name!r}")
    task: Task = _load(TASKS[name].task)
    return task


def check_split_head(name: str, path: str, **settings: Any) -> None:
    """What `Registered.early` of a task says about the beginning of a corpus."""
    if name in TASKS and TASKS[name].early:
        _load(TASKS[name].early)(path, **settings)


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)

"""Tasks room: what is learnt. `task.py` is the contract; each task is a folder. Imports nothing heavy.

A task of one's own is registered, see docs/tasks.md. Processes that this one starts know it too: registered tasks are
handed on in the environment.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.config import InputError, register_task

if TYPE_CHECKING:
    from app.config import PredictConfig
    from app.tasks.task import Task

HANDED_ON = "APP_TASKS"  # in the environment: NAME=module:NAME, with ";" between tasks


@dataclass(frozen=True)
class Registered:
    """Where a task is.

    Attributes:
        task: "module:NAME" of the `Task`.
        early: "module:NAME" of a function (path, *, config, split, labels) that looks at the beginning of a corpus in
            milliseconds and imports nothing heavy; empty = there is none.
        settings: the same of a function (facts, config) that looks whether a model can answer with the settings of
            `predict`.
        kind: the same of a function (path, *, config, split, facts) that looks whether a model can read a corpus,
            whatever labels it has.
    """

    task: str
    early: str = ""
    settings: str = ""
    kind: str = ""


TASKS: dict[str, Registered] = {
    "tagging": Registered("app.tasks.tagging.task:TAGGING", "app.tasks.tagging.corpus_heads:check_split_head"),
    "classification": Registered(
        "app.tasks.classification.task:CLASSIFICATION",
        "app.tasks.classification.corpus_checks:check_split_head",
        "app.tasks.classification.min_score:check_settings",
        "app.tasks.classification.corpus_checks:check_kind_head",
    ),
}
_BUILT_IN = frozenset(TASKS)


def register(name: str, *, task: str, early: str = "", defaults: Mapping[str, str] | None = None) -> None:
    """Adds a task of one's own, under the name that the setting `task` gives; before a configuration is loaded.

    Args:
        name: a lower-case identifier, the `Task.name` of the task.
        task: "module:NAME" of the `Task`, which is imported when it is needed.
        early: see `Registered`.
        defaults: {"section.key": value} where the task's own differ from the general ones.

    Raises:
        ValueError: the name is no lower-case identifier or another task's, or `task` is not "module:NAME".
    """
    if not all(task.partition(":")):
        raise ValueError(f"the task {name} is registered as 'module:NAME', received {task!r}")
    found = Registered(task, early)
    if TASKS.get(name, found).task != task:
        raise ValueError(f"the task {name} is there already, as {TASKS[name].task}; received {task}")
    register_task(name, defaults)
    TASKS[name] = found
    os.environ[HANDED_ON] = ";".join(f"{own}={TASKS[own].task}" for own in TASKS if own not in _BUILT_IN)


def import_tasks(module: str) -> None:
    """Imports a module that registers tasks.

    Raises:
        InputError: it cannot be imported, or registers none.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"--task_module={module} cannot be imported: {error}") from error
        raise InputError(
            f"--task_module={module}: there is no module {error.name} in this folder or in PYTHONPATH"
        ) from error
    except Exception as error:  # whatever somebody else's module does
        said = next(iter(str(error).splitlines()), "")
        raise InputError(f"--task_module={module} cannot be imported: {type(error).__name__}: {said}") from error
    if _BUILT_IN.issuperset(TASKS):
        raise InputError(f"--task_module={module} registers no task: it must call app.tasks.register")


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        InputError: there is none, or what was registered is none.
    """
    if name not in TASKS:
        raise InputError(
            f"task must be one of {', '.join(TASKS)}, or one that --task_module registers; received {name!r}"
        )
    place = TASKS[name].task
    if name in _BUILT_IN:
        task: Task = _load(place)
        return task
    try:
        task = _load(place)
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise InputError(f"task={name}: {place} cannot be imported: {type(error).__name__}: {said}") from error
    if getattr(task, "name", None) != name:
        raise InputError(f"task={name}: {place} must be a Task of this name, received {task!r}")
    return task


def check_split_head(name: str, path: str, **settings: Any) -> None:
    """What `Registered.early` of a task says about the beginning of a corpus."""
    if name in TASKS and TASKS[name].early:
        _load(TASKS[name].early)(path, **settings)


def check_kind_head(name: str, path: str, **settings: Any) -> None:
    """What `Registered.kind` of a task says about the beginning of a corpus that a model is to read."""
    if name in TASKS and TASKS[name].kind:
        _load(TASKS[name].kind)(path, **settings)


def check_settings(name: str, facts: Mapping[str, Any], config: PredictConfig) -> None:
    """What `Registered.settings` of a task says: InputError if a model of these facts cannot answer by a setting."""
    if name in TASKS and TASKS[name].settings:
        _load(TASKS[name].settings)(facts, config)


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


for _own in filter(None, os.environ.get(HANDED_ON, "").split(";")):
    _name, _, _place = _own.partition("=")
    register(_name, task=_place)

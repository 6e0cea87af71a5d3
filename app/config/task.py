"""What is learnt: the names of the tasks, and the settings that only some of them have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.config.options import option

TASKS = ("tagging", "classification")  # built in
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
# What `task` may be: those built in and those that `register_task` added.
task_names = list(TASKS)

# Where a task's own defaults differ from the general ones, as YAML writes them: a sample that the project brings.
TASK_DEFAULTS: dict[str, Mapping[str, str]] = {
    "classification": {
        "data.train_path": "data/sample/finance/train.csv",
        "data.valid_path": "data/sample/finance/valid.csv",
        "data.test_path": "data/sample/finance/test.csv",
        "data.label_column": "sentiment",
    },
}


def register_task(name: str, defaults: Mapping[str, str] | None = None) -> None:
    """Adds a task of one's own to what the setting `task` may be; to be called before a configuration is loaded.

    `app.tasks.register` calls it, and knows where the task is.

    Args:
        name: a lower-case identifier. A name that is known already keeps its place.
        defaults: {"section.key": value} where the task's own differ from the general ones, see `TASK_DEFAULTS`. The
            samples of other tasks are not among them: a corpus that is not named here has no path.

    Raises:
        ValueError: the name is no lower-case identifier.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"a task is named by a lower-case identifier, such as relation_extraction; received {name!r}")
    if name not in task_names:
        task_names.append(name)
    if defaults is not None or (name not in TASKS and name not in TASK_DEFAULTS):
        none = dict.fromkeys(("data.train_path", "data.valid_path", "data.test_path"), "")
        TASK_DEFAULTS[name] = none | dict(defaults or {})


@dataclass(frozen=True)
class ClassificationConfig:
    """task=classification: what a label means. Which columns hold texts and labels: see DataConfig."""

    multi_label: bool = option(False, "a text may have several labels, or none, instead of exactly one")
    label_separator: str = option(
        "|", "multi_label: what stands between the labels of a text in a CSV or TSV field; empty = one label a field"
    )
    label_smoothing: float = option(
        0.0, "part of the probability that training takes from the labels and spreads evenly", at_least=0, below=1
    )
    class_weights: str = option(
        "none",
        "how much the errors of a class count in training: all the same, or balanced: the rarer the class, the more; "
        "texts are counted, not the windows of long ones",
        choices=("none", "balanced"),
    )
    out_of_scope_label: str = option(
        "out_of_scope",
        "label of texts that belong to no class; they may stand in the validation and test corpora only, where the "
        "right answer to them is none; empty = there are none",
    )

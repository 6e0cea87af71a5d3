"""A registry of tasks that a test file may add to."""

import os
import sys

import pytest

from app.config import TASK_DEFAULTS, task_names
from app.tasks import HANDED_ON, TASKS


@pytest.fixture(scope="module")
def registry():
    """What the tests of a file register is known to them alone: another file runs in the same process."""
    known = (task_names, TASK_DEFAULTS, TASKS)
    before = (list(task_names), dict(TASK_DEFAULTS), dict(TASKS))
    yield
    os.environ.pop(HANDED_ON, None)
    for mapping, old in zip(known, before, strict=True):
        mapping.clear()
        mapping.extend(old) if isinstance(mapping, list) else mapping.update(old)
    for module in ("third_task", "third_task.task"):
        sys.modules.pop(module, None)

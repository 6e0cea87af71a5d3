"""Why a trial failed, as it is recorded and shown."""

import errno

import pytest

from app.config import InputError, RunError
from app.search.fork_server import describe_failure
from app.search.job import _describe_end


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (MemoryError(), "memory", "out of memory"),
        (ResourceExhaustedError("OOM when allocating"), "memory", "out of memory"),
        (RunError("the loss became nan at step 3; lower it"), "run", "the loss became nan at step 3; lower it"),
        (InputError("data.max_length must be at most 64"), "settings", "data.max_length must be at most 64"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "the disk is full: "),
        (ValueError("first\nsecond"), "error", "ValueError: first"),
    ],
)
def test_a_failure_has_a_kind_and_a_sentence(error, kind, says):
    found = describe_failure(error)
    assert found["kind"] == kind and found["failed"].startswith(says) and "second" not in found["failed"]


def test_a_process_that_the_system_kills_has_run_out_of_memory():
    assert _describe_end(-9) == {"failed": "killed by the system, which does so when memory runs out", "kind": "memory"}
    assert _describe_end(-11)["failed"] == "the process of the trial ended by signal 11"
    assert _describe_end(3)["failed"] == "the process of the trial ended with status 3"

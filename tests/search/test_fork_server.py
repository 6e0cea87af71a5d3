"""Why a trial failed, as it is recorded and shown."""

import errno
import subprocess

import pytest

from app.config import InputError, RunError
from app.search.fork_server import describe_failure
from app.search.job import ForkServer, _describe_end


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


@pytest.mark.parametrize(
    ("status", "said", "kind", "failed"),
    [
        (-9, "", "memory", "killed by the system, which does so when memory runs out"),
        (-11, "", "error", "the process of the trial ended by signal 11"),
        (3, "", "error", "the process of the trial ended with status 3"),
        (-6, "first\nlast words\n\n", "error", "the process of the trial ended by signal 6: last words"),
        (-6, "terminate called\n  what():  std::bad_alloc\n", "memory", "out of memory"),
    ],
)
def test_a_process_that_cannot_say_why_it_ended_is_known_by_its_status_and_its_last_words(
    tmp_path, status, said, kind, failed
):
    (tmp_path / "log.txt").write_text(said)
    assert _describe_end(status, tmp_path / "log.txt") == {"failed": failed, "kind": kind}
    assert _describe_end(5, tmp_path / "none.txt")["failed"] == "the process of the trial ended with status 5"


def test_a_search_whose_server_is_killed_says_so_and_how_it_goes_on(tmp_path):
    server = ForkServer("finetune", tmp_path / "server.txt")
    server._started = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server, pytest.raises(RunError, match=r"has ended: killed by the system, .*; the same command goes on"):
        server._started.kill()
        server.read(None)

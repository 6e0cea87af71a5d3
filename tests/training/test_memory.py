"""Free memory as the kernel tells it, and parts of a batch tried until the next one would not fit."""

import pytest
import tensorflow as tf

from app.training.memory import allowed_parts, free_memory, own_memory, try_parts, try_rising

MB = 10**6


@pytest.fixture
def machine(tmp_path):
    """A root folder with 1,000,000 KB available; writes more files into it."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", "MemTotal:  9000000 kB\nMemFree:  5 kB\nMemAvailable:  1000000 kB\n")
    return tmp_path, write


def test_a_container_may_have_less_than_the_machine(machine):
    root, write = machine
    assert free_memory(root) == 1_024_000_000
    write("sys/fs/cgroup/memory.current", "300000000\n")
    write("sys/fs/cgroup/memory.max", "max\n")
    assert free_memory(root) == 1_024_000_000
    write("sys/fs/cgroup/memory.max", "700000000\n")
    assert free_memory(root) == 400_000_000
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "300000000")
    assert free_memory(root) == 400_000_000


def test_what_this_process_takes_shows():
    before = own_memory()
    data = bytearray(50 * MB)
    assert own_memory() - before > 40 * MB and own_memory("VmHWM") >= own_memory() and len(data)


def test_parts_are_those_that_leave_no_row_over():
    assert allowed_parts(12) == [12, 6, 4, 3, 2, 1]
    assert allowed_parts(32, 8) == [8, 4, 2, 1]  # of 8 long rows, too
    assert allowed_parts(7) == [7, 1]


class Machine:
    """A step of 8 rows takes 100 MB and 10 MB for each row of a part; a GPU has no more than `capacity`."""

    def __init__(self, capacity: int = 10**6) -> None:
        self.tried: list[int] = []
        self.used, self.capacity = 0, capacity

    def run(self, parts: int) -> None:
        self.tried.append(parts)
        self.used = 100 + 10 * 8 // parts
        if self.used > self.capacity:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    def find(self, limit: int) -> list[tuple[int, int]]:
        return list(try_parts([8, 4, 2, 1], self.run, limit=limit, peak=lambda: self.used))


def test_a_part_that_would_not_fit_is_told_beforehand_and_not_tried():
    machine = Machine()
    assert machine.find(limit=150) == [(8, 110), (4, 120), (2, 140)]
    assert machine.tried == [8, 4, 2]
    assert Machine().find(limit=180)[-1] == (1, 180)
    assert Machine().find(limit=115) == [(8, 110)]
    assert Machine().find(limit=109) == []


def test_a_part_for_which_the_gpu_has_no_memory_is_left_out():
    machine = Machine(capacity=130)
    assert machine.find(limit=10**9) == [(8, 110), (4, 120)]
    assert machine.tried == [8, 4, 2]


def test_lengths_are_tried_in_the_same_way():
    machine, used = [], lambda: 10 * machine[-1]
    found = list(try_rising([2, 4, 8, 16], machine.append, amount=float, limit=100, peak=used))
    assert found == [(2, 20), (4, 40), (8, 80)] and machine == [2, 4, 8]

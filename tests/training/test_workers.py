"""Who trains together: what `TF_CONFIG` may say, and workers that cannot be reached."""

import json
import socket
import threading
import time
from contextlib import closing

import pytest
import tensorflow as tf

from app.config import InputError, LostWorkerError, RunError
from app.training.workers import (
    Cluster,
    Workers,
    names_lost_worker,
    read_cluster,
    remove_notes,
    wait_for_workers,
)

TWO = ["one:2222", "two:2222"]


def tf_config(jobs: dict, kind: str = "worker", index: int = 0) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.fixture
def listen():
    """Opens a port that answers; returns it."""
    opened: list[socket.socket] = []

    def listen() -> int:
        opened.append(socket.create_server(("localhost", 0)))
        return opened[-1].getsockname()[1]

    yield listen
    for each in opened:
        each.close()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "addresses", "index"),
    [
        (tf_config({"worker": TWO}), TWO, 0),
        (tf_config({"worker": TWO}, index=1), TWO, 1),
        (tf_config({"worker": TWO}, index="1"), TWO, 1),
        (tf_config({"worker": ["b:1"], "chief": ["a:1"]}, "chief"), ["a:1", "b:1"], 0),
        (tf_config({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, index=1), ["a:1", "b:1", "c:1"], 2),
        (tf_config({"worker": ["[::1]:1", "[::1]:2"]}), ["[::1]:1", "[::1]:2"], 0),
    ],
)
def test_the_chief_is_the_first_of_all_addresses_whether_it_is_named_or_not(monkeypatch, text, addresses, index):
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster() == Cluster(tuple(addresses), index)
    assert read_cluster().own_address == addresses[index]


@pytest.mark.parametrize(
    "text",
    [
        None, "", "{}", tf_config({"worker": ["alone:1"]}), json.dumps({"cluster": {"worker": ["alone:1"]}}),
        json.dumps({"task": {"type": "master", "index": 0}, "environment": "cloud"}), '{"cluster": {}}',
    ],
)  # fmt: skip
def test_without_others_a_process_is_its_own_chief(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert len(read_cluster().addresses) < 2 and read_cluster().index == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"must be JSON like .*received \{$"),
        (tf_config({"worker": TWO}, index=2), r"must be one of its cluster's \(worker 0 to 1\), received worker 2$"),
        (tf_config({"worker": TWO}, index=-1), r"received worker -1$"),
        (tf_config({"worker": TWO}, "chief"), r"received chief 0$"),
        (json.dumps({"cluster": {"worker": TWO}}), r"must be one of its cluster's .*received worker without an index$"),
        (tf_config({"worker": ["one:1", "one:1"]}), r"an address is there twice in "),
        (tf_config({"chief": ["one:1"], "worker": ["one:1"]}), r"an address is there twice in "),
        (tf_config({"worker": ["one:1", "two"]}), r"'two' is not host:port in "),
        (tf_config({"worker": ["one:1", "two:http"]}), r"'two:http' is not host:port in "),
        (tf_config({"worker": ["one:1", ":2"]}), r"':2' is not host:port in "),
        (tf_config({"worker": ["one:1", "two:70000"]}), r"'two:70000' is not host:port in "),
        (tf_config({"worker": TWO, "ps": ["three:1"]}), r"may hold chief and worker only, received ps, worker$"),
        (tf_config({"worker": TWO, "evaluator": ["three:1"]}), r"may hold chief and worker only, received evaluator, "),
        (tf_config({"worker": TWO}, "evaluator"), r"received evaluator 0$"),
        (tf_config({"Worker": TWO}), r"'Worker' must be written 'worker' in "),
        (tf_config({"worker": TWO}, "Worker"), r"'Worker' must be written 'worker' in "),
        (json.dumps({"Cluster": {"worker": TWO}}), r"'Cluster' must be written 'cluster' in "),
        (json.dumps({"cluster": {"worker": TWO}, "TASK": {"index": 0}}), r"'TASK' must be written 'task' in "),
        (json.dumps({"cluster": {"worker": TWO}, "task": {"Index": 0}}), r"'Index' must be written 'index' in "),
        (tf_config({"worker": {"1": "two:2222"}}, index=1), r"'worker' must list all its addresses, .* a mapping is"),
        (tf_config({"worker": {"0": "one:1", "1": "two:1"}}), r"'worker' must list all its addresses"),
        (tf_config({"worker": "one:1,two:1"}), r"'worker' must be a list of addresses, text is there in "),
        (tf_config({"worker": None}), r"'worker' must be a list of addresses, null is there in "),
        (tf_config({"worker": ["one:1", None]}), r"None is not host:port in "),
        (tf_config({"worker": []}), r"no address is there in "),
        (tf_config({"chief": ["one:1", "two:1"]}, "chief"), r"there may be one chief, received more in "),
        (tf_config({"worker": ["one:1"]}, index=1), r"\(worker 0 to 0\), received worker 1$"),
        (json.dumps({"task": {"type": "worker", "index": 1}}), r"\(none is there\), received worker 1$"),
        (tf_config({"worker": TWO}, index=0.5), r"the index of the task must be a whole number, 0.5 is there in "),
        (tf_config({"worker": TWO}, index=True), r"the index of the task must be a whole number, True is there in "),
        (tf_config({"worker": TWO}, index="one"), r"the index of the task must be a whole number, 'one' is there in "),
        (tf_config({"worker": TWO}, kind=["worker"]), r"the type of the task must be text, a list is there in "),
        ("[]", r"it is a list, not a mapping in \[\]$"),
        ("null", r"it is null, not a mapping in null$"),
        ('{"cluster": []}', r"'cluster' is a list, not a mapping in "),
    ],
)
def test_a_fault_in_the_cluster_is_one_sentence_of_bad_input(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=message) as raised:
        read_cluster()
    assert "\n" not in str(raised.value) and "TF_CONFIG" in str(raised.value)


def test_a_worker_that_does_not_come_is_named_with_its_address_after_the_given_time(listen):
    port = free_port()
    cluster = Cluster((f"localhost:{free_port()}", f"localhost:{listen()}", f"localhost:{port}"), 0)
    began = time.monotonic()
    with pytest.raises(InputError, match=rf"worker 0 could not reach worker 2 at localhost:{port} in 0.3 seconds"):
        wait_for_workers(cluster, seconds=0.3)
    assert 0.3 <= time.monotonic() - began < 10


def test_workers_that_start_one_after_the_other_find_each_other():
    cluster = tuple(f"localhost:{free_port()}" for _ in range(2))
    done: list[int] = []

    def other() -> None:
        time.sleep(0.3)
        with socket.create_server(("localhost", int(cluster[1].rpartition(":")[2]))):
            time.sleep(1.0)
        done.append(1)

    late = threading.Thread(target=other)
    late.start()
    wait_for_workers(Cluster(cluster, 0), seconds=20)
    late.join()
    assert done == [1]


def test_a_port_that_another_program_holds_is_bad_input(listen):
    port = listen()
    with pytest.raises(InputError, match=rf"worker 0 cannot listen at localhost:{port}.*in use"):
        wait_for_workers(Cluster((f"localhost:{port}", f"localhost:{free_port()}"), 0), seconds=0.3)


def test_one_process_exchanges_nothing_and_is_the_chief():
    workers = Workers(tf.distribute.get_strategy())
    assert workers.is_chief and workers.count == 1
    assert workers.total([1.5, 2]) == [1.5, 2] and workers.from_chief([0.1]) == [0.1]
    with workers.chief_first():
        workers.wait()


def test_an_error_of_tensorflow_is_a_lost_worker_only_if_there_are_others():
    workers = Workers(tf.distribute.get_strategy())
    failure = tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore")
    with pytest.raises(tf.errors.UnavailableError), workers.watched():
        raise failure
    workers.count = 2
    with pytest.raises(LostWorkerError, match=r"lost another worker .*Connection reset by peer\); start all workers"):
        with workers.watched():
            raise failure


def test_a_lost_worker_is_told_in_one_sentence_without_the_graph():
    workers = Workers(tf.distribute.get_strategy())
    workers.count = 2
    message = (
        "Graph execution error:\n\nDetected at node div/CollectiveReduceV2 defined at (most recent call last):\n"
        '  File "<frozen runpy>", line 198, in _run_module_as_main\n\n'
        "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from remote target: {}\n"
        "\t [[{{node div/CollectiveReduceV2}}]] [Op:__inference_train_function_1]"
    )
    with pytest.raises(LostWorkerError) as raised, workers.watched():
        raise tf.errors.UnavailableError(None, None, message)
    assert str(raised.value) == (
        "worker 0 lost another worker (Collective ops is aborted by: Socket closed); start all workers again "
        "with the same command, they continue from the last checkpoint"
    )


HEARTBEAT = (
    "Collective ops is aborted by: Error reported from /job:worker/task:1: Task /job:worker/replica:0/task:1 heartbeat "
    "timeout. This indicates that the remote task has failed, got preempted, or crashed unexpectedly."
)
SOCKET = (
    "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from remote target "
    "/job:worker/replica:0/task:0 while calling /tensorflow.WorkerService/RecvBuf:"
)
RESTARTED = (
    "/job:worker/replica:0/task:1 unexpectedly tried to connect with a different incarnation. It has likely restarted."
)


@pytest.mark.parametrize(
    ("kind", "message", "lost"),
    [
        ("UnavailableError", HEARTBEAT, True),
        ("UnavailableError", SOCKET, True),
        ("UnavailableError", "failed to connect to all addresses", True),
        ("UnavailableError", "Connection reset by peer", True),
        ("UnavailableError", "cluster check alive failed, /job:worker/replica:0/task:1 is down", True),
        ("InternalError", "Collective ops is aborted by: Socket closed", True),
        ("AbortedError", RESTARTED, True),
        ("FailedPreconditionError", "RecvBuf expects a different device incarnation: 1 vs. 2.", True),
        ("DeadlineExceededError", "Collective has timed out waiting for other workers.", True),
        ("CancelledError", "[_Derived_]RecvAsync is cancelled.", None),
        ("AbortedError", "Step was aborted", None),
        ("DeadlineExceededError", "Deadline Exceeded", None),
        ("InternalError", "libdevice not found at ./libdevice.10.bc", False),
        ("InternalError", "Dst tensor is not initialized.", False),
        ("InternalError", "Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory", False),
        ("AbortedError", "Collective ops is aborted by: OOM when allocating tensor with shape[8,512,512]", False),
        ("FailedPreconditionError", "runs/a/checkpoints; Read-only file system", False),
        ("FailedPreconditionError", "Could not find variable dense/kernel", False),
        ("UnavailableError", "Error executing an HTTP request: libcurl code 56, Connection reset by peer", False),
        ("ResourceExhaustedError", "OOM when allocating tensor with shape[8,512,512]", False),
        ("ResourceExhaustedError", "runs/a/ckpt-1.data; No space left on device", False),
        ("InvalidArgumentError", "indices = 7 is not in [0, 3)", False),
        ("DataLossError", "corrupted record at 60", False),
        ("UnimplementedError", "DNN library is not found.", False),
    ],
)  # fmt: skip
def test_only_what_tells_of_a_peer_is_taken_for_a_lost_worker(kind, message, lost):
    full = f"Graph execution error:\n\n{message}\n\t [[{{{{node x}}}}]] [Op:__inference_train_function_1]"
    assert names_lost_worker(getattr(tf.errors, kind)(None, None, full)) is lost


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RunError("the loss became nan"), KeyError()])
def test_what_python_raises_is_no_lost_worker(error):
    assert names_lost_worker(error) is False


@pytest.fixture
def two(monkeypatch, listen):
    """Worker 0 of two, both of which can be reached."""

    class Two(Workers):
        start = 1795708660.813863628

        def from_chief(self, values):
            return [self.start]

    addresses = [f"localhost:{listen()}" for _ in range(2)]
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": addresses}))
    workers = Two(tf.distribute.get_strategy())
    workers.count = 2
    return workers


OWN = [
    tf.errors.InternalError(None, None, "libdevice not found"),
    tf.errors.CancelledError(None, None, "Operation was cancelled"),
    tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    RunError("the loss became nan at step 3"),
    InputError("data.train_path is empty"),
    ZeroDivisionError("division by zero"),
]


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_a_failure_of_this_worker_is_reported_as_itself_while_the_others_are_there(two, tmp_path, error):
    with pytest.raises(type(error)) as raised, two.watched(tmp_path):
        raise error
    assert raised.value is error


def test_an_error_without_a_reason_is_a_lost_worker_if_one_cannot_be_reached(two, monkeypatch, tmp_path):
    monkeypatch.setattr("app.training.workers._SECONDS_FOR_A_REPORT", 0.1)
    addresses = [f"localhost:{free_port()}", f"localhost:{free_port()}"]
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": addresses}))
    with pytest.raises(LostWorkerError), two.watched(tmp_path):
        raise tf.errors.CancelledError(None, None, "Operation was cancelled")


def lose_the_other(workers, folder) -> Exception:
    with pytest.raises(RunError) as raised, workers.watched(folder):
        raise tf.errors.UnavailableError(None, None, HEARTBEAT)
    return raised.value


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_the_other_workers_end_with_the_message_and_status_of_the_one_that_failed(two, tmp_path, error):
    other = type(two)(tf.distribute.get_strategy())
    other.count, other.index = 2, 1
    with pytest.raises(type(error)), other.watched(tmp_path):
        raise error
    kind = InputError if isinstance(error, InputError) else RunError
    with pytest.raises(kind, match=r"worker 1 has failed, so worker 0 ends, too: ") as raised, two.watched(tmp_path):
        raise tf.errors.UnavailableError(None, None, HEARTBEAT)
    assert not isinstance(raised.value, LostWorkerError)
    assert str(getattr(error, "message", error)) in str(raised.value)


def test_a_failure_of_an_earlier_start_does_not_count_and_is_removed(two, monkeypatch, tmp_path):
    monkeypatch.setattr("app.training.workers._SECONDS_FOR_A_REPORT", 0.1)
    other = type(two)(tf.distribute.get_strategy())
    other.count, other.index = 2, 1
    with pytest.raises(RunError), other.watched(tmp_path):
        raise RunError("the disk is full")
    two.start += 0.001
    assert isinstance(lose_the_other(two, tmp_path), LostWorkerError)
    remove_notes(tmp_path)
    assert not list(tmp_path.iterdir())

"""Who trains together: what `TF_CONFIG` may say, and workers that cannot be reached."""

import json
import socket
import threading
import time
from contextlib import closing

import pytest
import tensorflow as tf

from app.config import InputError, LostWorkerError
from app.training.workers import Cluster, Workers, read_cluster, wait_for_workers

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
        (tf_config({"chief": ["one:1", "two:1"]}, "chief"), r"there may be one chief, more are there in "),
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
        "with the same command, they go on from the last checkpoint"
    )

"""Ctrl-C and SIGTERM that come at a moment when Python forgets them."""

import os
import signal
import sqlite3
import subprocess
import threading
import weakref
from contextlib import closing
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from app.config import Terminated
from app.config.loading import load_config
from app.run.directory import RunDirectory
from app.search.job import ForkServer
from app.search.search import Worker
from app.search.stopping import check_not_stopped, stopping_others, stops_held_back
from app.search.study import open_studies


class Thing:
    """Has a callback when it is gone, as an object of a database has."""


def stop_in_a_callback(number: int) -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
    del thing
    assert reference() is None


@pytest.fixture
def handlers():
    def terminate(*_) -> None:
        raise Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_is_raised_when_it_is_asked_for_or_at_the_end_and_nowhere_else(number, kind, handlers):
    before = signal.getsignal(number)
    for asks in (True, False):
        reached = False
        with pytest.raises(KeyboardInterrupt) as raised:
            with stops_held_back():
                stop_in_a_callback(number)
                os.getpid()
                reached = True
                if asks:
                    check_not_stopped()
                    pytest.fail("it was forgotten")
        assert reached and type(raised.value) is kind
        check_not_stopped()
        assert signal.getsignal(number) is before


def test_a_second_signal_waits_for_nobody_and_each_is_raised_once(handlers):
    with stops_held_back():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
            check_not_stopped()


def test_in_another_thread_which_gets_no_signals_a_search_runs_all_the_same(handlers):
    reached = []

    def search() -> None:
        with stops_held_back():
            check_not_stopped()
            reached.append(True)

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert reached == [True]


def test_other_processes_are_told_before_this_one_stops(handlers):
    told = []
    with pytest.raises(Terminated), stopping_others(lambda: told.append(True)), stops_held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not told
        check_not_stopped()
    assert told == [True]


def test_a_signal_that_is_ignored_stays_so(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stops_held_back():
        os.kill(os.getpid(), signal.SIGINT)
        check_not_stopped()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_search_stops_while_its_trial_trains_or_tensorflow_is_loaded(handlers, tmp_path):
    server = ForkServer("finetune", tmp_path / "log")
    for seconds in (10.0, None):
        with subprocess.Popen(["sleep", "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server._started:
            with pytest.raises(Terminated), stops_held_back():
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
                server.read(seconds)
                pytest.fail("it waited until the end")
            server._started.kill()


def test_no_trial_begins_when_a_search_is_to_stop(handlers, tmp_path):
    worker = Worker(load_config(None, []), RunDirectory(tmp_path), ForkServer("finetune", tmp_path / "log"), "finetune")
    study = SimpleNamespace(claim=lambda _: pytest.fail("a trial began"))
    with pytest.raises(Terminated), stops_held_back():
        stop_in_a_callback(signal.SIGTERM)
        worker._go_through(study, lambda _: {}, lambda *_: None)


def test_a_signal_within_a_transaction_leaves_the_database_free(handlers, tmp_path):
    config = load_config(None, ["tune.space={model.head: [crf, softmax]}"])
    with open_studies(config, file=tmp_path / "study.db", name="a") as (study, _):
        claim, sent = study.claim(lambda _: {}), []

        @sa.event.listens_for(study._storage.engine, "after_cursor_execute")
        def stop(connection, cursor, statement, *_) -> None:
            if statement.startswith(("INSERT", "UPDATE")) and not sent:
                sent.append(statement)
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Terminated) as raised, stops_held_back():
            study.beat(claim)
        assert sent and raised.value.__traceback__  # which would keep the connection
        with closing(sqlite3.connect(tmp_path / "study.db", timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")

"""Ctrl-C and SIGTERM that come at a moment when Python forgets them."""

import os
import signal
import weakref
from types import SimpleNamespace

import pytest

from app.config import Terminated
from app.config.loading import load_config
from app.run.directory import RunDirectory
from app.search.job import ForkServer
from app.search.search import Worker
from app.search.stopping import check_not_stopped, stops_remembered
from app.search.trial import _watch


class Thing:
    """Has a callback when it is gone, as an object of a database has."""


def stop_in_a_callback(number: int) -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: (os.kill(os.getpid(), number), sum(range(1000))))
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


FORGOTTEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@FORGOTTEN
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_comes_in_a_callback_is_raised_when_it_is_asked_for_or_at_the_end(number, kind, handlers):
    before = signal.getsignal(number)
    for asks in (True, False):
        reached = False
        with pytest.raises(KeyboardInterrupt) as raised:
            with stops_remembered():
                stop_in_a_callback(number)
                reached = True
                if asks:
                    check_not_stopped()
                    pytest.fail("it was forgotten")
        assert reached and type(raised.value) is kind
        check_not_stopped()
        assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stops_remembered():
        os.kill(os.getpid(), signal.SIGINT)
        check_not_stopped()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@FORGOTTEN
def test_a_trial_is_not_watched_on_when_its_search_is_to_stop(handlers, tmp_path):
    class Running:
        headline, result, waited = "", None, 0

        def wait(self, seconds: float) -> bool:
            self.waited += 1
            assert self.waited == 1, "it went on"
            stop_in_a_callback(signal.SIGTERM)
            return False

    with pytest.raises(Terminated), stops_remembered():
        _watch(None, None, Running(), tmp_path / "none", lambda *_: False)


@FORGOTTEN
def test_no_trial_begins_when_a_search_is_to_stop(handlers, tmp_path):
    run_dir = RunDirectory(tmp_path)
    with pytest.raises(Terminated), stops_remembered():
        stop_in_a_callback(signal.SIGTERM)
        Worker(load_config(None, []), run_dir, ForkServer("finetune", tmp_path / "log"), "finetune")._go_through(
            SimpleNamespace(claim=lambda _: pytest.fail("a trial began")), lambda _: {}, lambda *_: None
        )

"""Search room: Ctrl-C and SIGTERM, which take effect between two steps of a search, and never within one.

Python raises what a signal raises in the code that happens to run. Within a transaction, the database stays locked for
all processes of the search as long as the traceback lives. In a callback of a weak reference, of which a database has
many, the exception is printed ("Exception ignored in ...") and forgotten.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]
_asked: list[tuple[Handler, int]] = []  # by signals that have not been raised yet
_others: list[Callable[[], None]] = []  # which have the other processes of a search stop too


@contextmanager
def stops_held_back() -> Iterator[None]:
    """Has signals wait for `check_not_stopped`, or for the end of the block; a second one waits no longer.

    Only the main thread of a program gets signals: in another one nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    for number, handler in handlers.items():
        signal.signal(number, _holding_back(handler))
    try:
        yield
        check_not_stopped()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _asked.clear()


def check_not_stopped() -> None:
    """Raises what a signal has asked for since; to be called often wherever a search waits."""
    if _asked:
        handler, number = _asked.pop()
        _asked.clear()
        for stop in _others:
            stop()
        handler(number, None)


@contextmanager
def stopping_others(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, `stop` is called before a signal is raised: others must not wait until this process is done."""
    _others.append(stop)
    try:
        yield
    finally:
        _others.remove(stop)


def _holding_back(handler: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        if _asked:  # whoever was to ask hangs, as with a database that does not answer
            _asked.clear()
            handler(number, frame)
        _asked.append((handler, number))

    return handle

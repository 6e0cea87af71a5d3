"""Search room: Ctrl-C and SIGTERM, none of which must be lost.

Python raises what a signal raises in the code that happens to run. In a callback of a weak reference or in a finalizer,
of which a database has many, the exception is printed ("Exception ignored in ...") and forgotten.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]
_asked: list[KeyboardInterrupt] = []


@contextmanager
def stops_remembered() -> Iterator[None]:
    """Has `check_not_stopped` know of signals in the block; one that it was not asked about is raised at its end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    for number, handler in handlers.items():
        signal.signal(number, _remembering(handler))
    try:
        yield
        check_not_stopped()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _asked.clear()


def check_not_stopped() -> None:
    """Raises again what a signal has raised in the block: whoever comes to ask was not reached by it."""
    if _asked:
        raise type(_asked[-1])


def _remembering(handler: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except KeyboardInterrupt as stop:
            _asked.append(stop)
            raise

    return handle

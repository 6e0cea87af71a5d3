"""A line on the screen now and then while something takes long and says nothing itself."""

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

SECONDS_BETWEEN_LINES = 30.0


def count_of(number: int, noun: str) -> str:
    """A number before its noun, such as "1 correction" or "1,200 corrections"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@contextmanager
def heartbeat(activity: str, *, so_far: Callable[[], str] | None = None, shown: bool = True) -> Iterator[None]:
    """Says every 30 seconds that the block is still at work: `scoring test: 60 s so far`.

    Args:
        activity: what the block does.
        so_far: what is done of it, such as "3 of 5 files"; None = it does not know.
        shown: false for workers that are not the chief, and where a progress bar is on the screen.
    """
    if not shown:
        yield
        return
    done = threading.Event()
    with _screen() as screen:
        thread = threading.Thread(target=_beat, args=(activity, so_far, done, screen), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _beat(activity: str, so_far: Callable[[], str] | None, done: threading.Event, screen: TextIO) -> None:
    began = time.monotonic()
    while not done.wait(SECONDS_BETWEEN_LINES):
        part = f", {so_far()}" if so_far else ""
        print(f"{activity}: {time.monotonic() - began:.0f} s so far{part}", file=screen, flush=True)


@contextmanager
def _screen() -> Iterator[TextIO]:
    """Standard error as it is now, also while `quiet()` points it elsewhere."""
    stream = sys.stderr
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a stand-in without a file
        yield stream
        return
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as screen:
        yield screen


# A screen for the program alone.


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off the screen what libraries say, the C++ below included; errors are raised as ever."""
    level, screen = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with open(os.devnull, "w", encoding="utf-8") as unread:
                os.dup2(unread.fileno(), 2)
                yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        logging.disable(level)


def say(text: str) -> None:
    """A line for the person watching; standard output stays free for results."""
    print(text, file=sys.stderr, flush=True)

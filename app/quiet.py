"""A screen for the program alone."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator


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

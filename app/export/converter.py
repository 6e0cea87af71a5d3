"""Export room: a function of a module on its way to TFLite."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def open_converter(module: tf.Module, concrete: Any) -> Iterator[tf.lite.TFLiteConverter]:
    """A converter for one function, from a SavedModel in a temporary folder that lives as long as the context.

    `TFLiteConverter.from_concrete_functions` makes the same folder, but where the folder cannot be written it goes
    another way without a word and loses the signature.

    Args:
        module: holds the variables of the function.
        concrete: the function, which becomes the signature `serving_default`.

    Raises:
        tf.errors.OpError, OSError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": concrete})
        yield tf.lite.TFLiteConverter.from_saved_model(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off the screen what converter and quantizer say at length, the C++ below included.

    Errors are raised as ever.
    """
    level, screen = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with tempfile.TemporaryFile() as unread:
                os.dup2(unread.fileno(), 2)
                yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        logging.disable(level)

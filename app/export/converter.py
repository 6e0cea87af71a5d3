"""Export room: a function of a module on its way to TFLite."""

import contextlib
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

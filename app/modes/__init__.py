"""Modes room: one file per mode, `run(request) -> metrics`; the middle rooms meet here, no algorithms."""

from app import one_keras as _first  # noqa: F401  before KerasNLP and anything else that brings a Keras in

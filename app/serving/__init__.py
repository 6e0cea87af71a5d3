"""Serving room: an exported model behind HTTP, for a look at it without TensorFlow Serving."""

"""Compression room: the one place TensorFlow Model Optimization is imported, after Keras has settled."""

from app.one_keras import keras

# isort: split
import tensorflow_model_optimization as tfmot

if tfmot.sparsity.keras.UpdatePruningStep.__mro__[1] is not keras.callbacks.Callback:
    raise ImportError("TensorFlow Model Optimization uses another Keras than this program")

__all__ = ["tfmot"]

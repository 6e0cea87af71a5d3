"""Encoder room: the exact GELU as two compiled kernels, for training.

Written in plain operations, the activation and its gradient pass over the widest tensors of the network a dozen times;
XLA fuses each into one pass. A training step of MiniLM on a CPU takes a tenth less time (docs/results.md).
"""

import math
import sys
from collections.abc import Callable

import tensorflow as tf
from keras_nlp.models import BertBackbone

from app.config import InputError
from app.encoder.parts import parts_of
from app.one_keras import keras
from app.run.screen import quiet


def _normal_distribution(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


@tf.function(jit_compile=True, autograph=False)
def _gelu(x: tf.Tensor) -> tf.Tensor:
    return x * _normal_distribution(x)


@tf.function(jit_compile=True, autograph=False)
def _gelu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    density = tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return upstream * (_normal_distribution(x) + x * density)


@tf.custom_gradient
def compiled_gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """X times the standard normal distribution function of x (Hendrycks & Gimpel 2016), any shape and float type."""
    return _gelu(x), lambda upstream: _gelu_gradient(x, upstream)


def compile_activations(model: BertBackbone, setting: str = "auto") -> None:
    """Makes a backbone compute its exact GELUs by `compiled_gelu` in whatever is traced from now on.

    Saved models do not hold it: XLA's kernels stay out of exports. Backbones with another activation are left alone.

    Args:
        model: whose layers are changed.
        setting: `training.compile_activations`: "auto" leaves the layers as they are where XLA cannot compile.

    Raises:
        InputError: the setting is "true" and XLA cannot compile here.
    """
    exact = [layer for layer in model.transformer_layers if layer.activation is keras.activations.gelu]
    if setting == "false" or not exact:
        return
    if refusal := _try_to_compile():
        if setting == "true":
            raise InputError(f"training.compile_activations is true, but XLA cannot compile here: {refusal}")
        print(f"XLA cannot compile here, so activations are computed without it: {refusal}", file=sys.stderr)
        return
    for layer in exact:
        parts_of(layer).inner.activation = compiled_gelu


def _try_to_compile() -> str:
    """Compiles the activation and its gradient once; returns why XLA refuses, empty if it does not."""
    x = tf.zeros([1])
    try:
        with quiet(), tf.GradientTape() as tape:  # XLA tells of the first thing it compiles, at any log level
            tape.watch(x)
            y = compiled_gelu(x)
            tape.gradient(y, x)
    except tf.errors.OpError as error:  # a GPU without the files of CUDA that XLA compiles with, for example
        return (str(error.message).strip().splitlines() or [type(error).__name__])[0][:200]
    return ""

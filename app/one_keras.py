"""The one place `keras` comes from: Keras 2.15, the one behind `tf.keras`, KerasNLP and TensorFlow Addons.

A second Keras 2 (`tf_keras`) is installed too, and importing TensorFlow Model Optimization sets
`TF_USE_LEGACY_KERAS=1`, which makes every `tf.keras` that is not loaded yet resolve to it. Layers of the two
do not mix. Touching the lazy loaders below settles all of them on `keras` first, so TensorFlow Model
Optimization must be imported after this module. `tf_keras` is then never imported.
"""

import contextlib
import io
import os

import tensorflow as tf

os.environ.pop("TF_USE_LEGACY_KERAS", None)
_LAYERS = [lazy.layers.Layer for lazy in (tf.keras, tf.compat.v1.keras, tf.compat.v2.keras)]
_PACKAGES = {layer.__module__.partition(".")[0] for layer in _LAYERS}
if _PACKAGES != {"keras"}:
    raise ImportError(
        f"tf.keras must be the package keras 2.15, received {sorted(_PACKAGES)}: "
        "import app.one_keras before tensorflow_model_optimization"
    )

# KerasNLP's import announces its backend on standard output, which belongs to results (JSON lines of predict).
with contextlib.redirect_stdout(io.StringIO()):
    import keras_core  # noqa: F401

keras = tf.keras

__all__ = ["keras"]

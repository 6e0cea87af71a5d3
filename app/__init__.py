"""Environment that must be set before TensorFlow is imported. Imports nothing heavy."""

import os
import warnings

# oneDNN is off by default on AVX2 machines and makes a training step about a third faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow's C++ side logs missing GPUs and doubly registered plug-ins as errors; real ones are exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Left by TensorFlow Model Optimization in a parent process, it would bring in a second Keras (one_keras.py).
os.environ.pop("TF_USE_LEGACY_KERAS", None)
# Keras, KerasNLP and Keras Core would take a backend, a number type and more from the environment and from keras.json,
# which belong to the user's other projects, and write that file where there is none. Here it can be neither.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
# A backend that is not installed here would be an error; charts are drawn without any.
os.environ.pop("MPLBACKEND", None)

# What pinned packages say about one another at import; nothing a user could act on.
for _message in (
    "You are using a Python version",
    "pkg_resources is deprecated",
    "\n\nTensorFlow Addons",
    ".* will be removed in a future version. This property should not be used",
):
    warnings.filterwarnings("ignore", message=_message)

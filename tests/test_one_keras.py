import json
import os
import subprocess
import sys

import pytest

ONE_LAYER = """
import os, sys
from app.one_keras import keras
import tensorflow as tf
import keras_nlp
import tensorflow_addons as tfa
from official.common import distribute_utils
from official.modeling import optimization, performance
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.keras.compat import keras as tfmot_keras

layer = keras.layers.Layer
assert layer is tf.keras.layers.Layer is tf.compat.v1.keras.layers.Layer is tf.compat.v2.keras.layers.Layer
assert layer is tfmot_keras.layers.Layer
assert issubclass(keras_nlp.layers.TransformerEncoder, layer)
assert issubclass(tfa.layers.CRF, layer)
assert issubclass(tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(2)).__class__, layer)
assert issubclass(tfa.optimizers.LAMB, keras.optimizers.legacy.Optimizer)
assert issubclass(optimization.ExponentialMovingAverage, keras.optimizers.legacy.Optimizer)
assert sys.modules["keras"].__version__.startswith("2.15.")
assert "tf_keras" not in sys.modules
assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
print("one keras")
"""


SETTINGS = """
import keras_core
assert (keras.backend.floatx(), keras.backend.epsilon()) == ("float32", 1e-7)
assert keras.backend.image_data_format() == "channels_last"
assert (keras_core.config.floatx(), keras_core.config.backend()) == ("float32", "tensorflow")
import matplotlib.figure
print("own settings")
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "jax", "floatx": "float16", "epsilon": 1e-3, "image_data_format": "channels_first"},
        {"backend": "torch", "floatx": "bfloat16", "epsilon": 1},  # of Keras 3: Keras 2 would end here
    ],
)
def test_one_layer_class_is_behind_every_library_and_settings_of_other_projects_change_nothing(settings, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    others = {"HOME": str(tmp_path), "KERAS_BACKEND": "torch", "MPLBACKEND": "nonsense"}
    done = run_python(ONE_LAYER + SETTINGS, TF_USE_LEGACY_KERAS="1", **others)
    assert "one keras" in done.stdout and done.stdout.strip().endswith("own settings"), done.stderr[-3000:]
    assert json.loads((tmp_path / ".keras" / "keras.json").read_text()) == settings


def test_model_optimization_imported_first_is_refused_instead_of_mixing_two_kerases():
    done = run_python(
        "import app, tensorflow_model_optimization\nprint('loaded')\nimport app.one_keras\n"
        "import sys; assert 'tf_keras' not in sys.modules"
    )
    assert "loaded" in done.stdout
    assert done.returncode == 1
    assert "import app.one_keras before tensorflow_model_optimization" in done.stderr


def test_importing_the_package_loads_no_tensorflow_and_respects_a_choice_already_made():
    code = (
        "import os, sys, app\n"
        "assert not {'tensorflow', 'numpy', 'yaml'} & set(sys.modules)\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    assert run_python(code, TF_ENABLE_ONEDNN_OPTS="0", TF_USE_LEGACY_KERAS="1").stdout.strip() == "0"

"""What is read off a `.tflite` file."""

import numpy as np
import pytest
from toy import make_tagger

from app.config import ExportConfig, ModelConfig
from app.export.metadata import measure_zero_fraction
from app.export.tflite import TFLiteWriter


@pytest.fixture(scope="module")
def writer(vocabulary):
    """Of a tagger with half of its kernels pruned, the rest far from 0."""
    tagger = make_tagger(vocabulary, model=ModelConfig(head="softmax"), hidden_dim=32, intermediate_dim=64)
    rng = np.random.default_rng(0)
    for variable in tagger.network.variables:
        if "kernel" in variable.name:
            signs = rng.permutation(np.resize([0.0, 0.0, 1.0, -1.0], variable.shape.num_elements()))
            variable.assign(signs.reshape(variable.shape) * rng.uniform(0.8, 1.0, variable.shape))
    return TFLiteWriter(tagger, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [])


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "int4"])
def test_the_part_of_pruned_weights_is_read_off_a_file_of_any_precision(writer, name):
    assert measure_zero_fraction(writer.write(name)) == pytest.approx(0.5, abs=0.005)

"""One file knows the private attributes in which KerasNLP and Keras keep the layers of a layer."""

import re
from pathlib import Path

import pytest

from app.encoder import parts
from app.encoder.bert import BertSettings, make_bert_backbone
from app.encoder.parts import find_path, input_axes, parts_of

APP = Path(parts.__file__).parents[1]
PRIVATE = re.compile(
    r"_self_attention_(layer|dropout)|_feedforward_|_(query|key|value|output)_dense|_dropout_layer|_masked_softmax"
    r"|_num_heads|\._key_dim|_build_from_signature"
)


def test_no_other_file_names_them():
    naming = {path.relative_to(APP).as_posix() for path in APP.rglob("*.py") if PRIVATE.search(path.read_text("utf-8"))}
    assert naming == {"encoder/parts.py"}


@pytest.fixture(scope="module")
def model():
    slim = {"head_dim": 5, "layer_heads": (2, 1), "layer_intermediate_dims": (7, 3)}
    return make_bert_backbone(
        BertSettings(vocabulary_size=9, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=7, **slim)
    )


def test_the_parts_of_a_layer_have_the_shapes_they_say(model):
    for layer, heads, columns in zip(model.transformer_layers, (2, 1), (7, 3), strict=True):
        found = parts_of(layer)
        attention = found.attention_parts
        assert (attention.heads, attention.size, attention.width) == (heads, 5, 5 * heads)
        for dense in attention.projections[:3]:
            assert (tuple(dense.kernel.shape), tuple(dense.bias.shape)) == ((8, heads, 5), (heads, 5))
        assert tuple(attention.output.kernel.shape) == (heads, 5, 8)
        assert [tuple(dense.kernel.shape) for dense in found.dense[4:]] == [(8, columns), (columns, 8)]
        assert [input_axes(dense) for dense in found.dense] == [[0], [0], [0], [0, 1], [0], [0]]
        of_parts = [v.ref() for part in (*found.dense, *found.norms) for v in part.variables]
        assert len(of_parts) == 16 and set(of_parts) == {v.ref() for v in layer.variables}


@pytest.mark.parametrize("part", ["attention.query.kernel", "attention.output.bias", "inner.kernel", "outer.bias"])
def test_the_path_of_a_weight_leads_to_it(model, part):
    pattern = find_path(part)
    path = pattern.removeprefix(".*").replace("\\.", ".")
    assert re.match(pattern, f"transformer_layers.1.{path}")
    found, wanted = model.transformer_layers[1], parts_of(model.transformer_layers[1])
    for name in path.split("."):
        found = getattr(found, name)
    for name in part.replace("attention.", "attention_parts.").split("."):
        wanted = getattr(wanted, name)
    assert found is wanted

import dataclasses
import json

import numpy as np
import pytest
import toy

from app.config import InputError
from app.encoder.backbone import build_backbone, load_backbone, save_backbone
from app.encoder.parts import parts_of
from app.encoder.slimming import KeptLayer, cut_layers, cut_vocabulary


def plain(vocabulary, **settings):
    return build_backbone(toy.backbone_config(vocabulary, **settings))


def hidden(model):
    tokens = np.array([[2, 5, 9, 11, 14, 3], [2, 7, 8, 3, 0, 0]])
    features = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": (tokens > 0).astype(int)}
    return model(features)["sequence_output"].numpy()


@pytest.fixture(params=["BERT", "MPNet"])
def backbone(vocabulary, request):
    make = toy.make_mpnet if request.param == "MPNet" else plain
    backbone = make(vocabulary, num_layers=3, num_heads=4)
    rng = np.random.default_rng(0)
    for variable in backbone.model.variables:
        variable.assign(variable + 0.1 * rng.normal(size=variable.shape).astype(np.float32))
    return backbone


KEPT = [KeptLayer(0, (1, 2, 3), tuple(range(0, 32, 2))), KeptLayer(2, (0,), (1, 5, 31))]


def test_a_cut_backbone_computes_what_the_whole_one_does_with_the_other_units_at_0(backbone):
    cut = cut_layers(backbone, KEPT)
    settings = {"num_layers": 2, "layer_heads": (3, 1), "layer_intermediate_dims": (16, 3), "head_dim": 4}
    assert {name: getattr(cut.model, name) for name in settings} == settings
    layers = backbone.model.transformer_layers
    for kept in KEPT:
        output = parts_of(layers[kept.number]).attention_parts.output.kernel
        output.assign(np.where(np.isin(np.arange(4), kept.heads)[:, None, None], output, 0))
        output = parts_of(layers[kept.number]).outer.kernel
        output.assign(np.where(np.isin(np.arange(32), kept.columns)[:, None], output, 0))
    whole = cut_layers(backbone, [KeptLayer(n, (0, 1, 2, 3), tuple(range(32))) for n in (0, 2)])
    np.testing.assert_allclose(hidden(cut.model), hidden(whole.model), rtol=0, atol=1e-5)


def test_keeping_everything_changes_no_bit(backbone):
    whole = cut_layers(backbone, [KeptLayer(n, (0, 1, 2, 3), tuple(range(32))) for n in range(3)])
    np.testing.assert_array_equal(hidden(whole.model), hidden(backbone.model))


def test_a_cut_backbone_is_saved_loaded_and_cut_again(backbone, tmp_path):
    cut = cut_layers(backbone, KEPT)
    save_backbone(cut, tmp_path)
    loaded = load_backbone(tmp_path)
    np.testing.assert_array_equal(hidden(loaded.model), hidden(cut.model))
    again = cut_layers(loaded, [dataclasses.replace(KEPT[0], number=0, heads=(2,), columns=(0, 15))])
    assert again.model.layer_heads == (1,) and again.model.count_params() < cut.model.count_params()


def test_heads_of_an_mpnet_take_their_columns_of_the_table_along(vocabulary):
    backbone = toy.make_mpnet(vocabulary, num_layers=3, num_heads=4)
    table = backbone.model.relative_bias.table.numpy()
    cut = cut_layers(backbone, [KeptLayer(0, (1, 3), (0, 1)), KeptLayer(2, (0, 3), (2, 3))])
    assert cut.model.relative_heads == ((1, 2), (0, 2))
    np.testing.assert_array_equal(cut.model.relative_bias.table, table[:, [0, 1, 3]])
    again = cut_layers(cut, [KeptLayer(1, (1,), (0,))])
    assert again.model.relative_heads == ((0,),)
    np.testing.assert_array_equal(again.model.relative_bias.table, table[:, [3]])


def test_a_backbone_with_fewer_pieces_computes_the_same_for_them(backbone):
    ids = [0, 1, 2, 3, 4, 5, 9, 11, 14, 7, 8]
    cut = cut_vocabulary(backbone, ids)
    tokens = np.array([[2, 5, 9, 11, 14, 3], [2, 7, 8, 3, 0, 0]])
    places = np.array([[ids.index(piece) for piece in row] for row in tokens])
    features = {"token_ids": places, "segment_ids": np.zeros_like(places), "padding_mask": (tokens > 0).astype(int)}
    np.testing.assert_array_equal(cut.model(features)["sequence_output"], hidden(backbone.model))


def test_settings_of_a_plain_backbone_do_not_mention_slim_ones(vocabulary, tmp_path):
    save_backbone(plain(vocabulary), tmp_path)
    assert "layer_heads" not in json.loads((tmp_path / "backbone.json").read_text())


def test_lists_of_another_length_than_the_layers_are_bad_input(backbone, tmp_path):
    from app.run.directory import sha256_of_file

    save_backbone(cut_layers(backbone, KEPT), tmp_path)
    path, sums = tmp_path / "backbone.json", tmp_path / "SHA256SUMS"
    before = sha256_of_file(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_heads": [3]}))
    sums.write_text(sums.read_text().replace(before, sha256_of_file(path)))
    named = r"layer_heads and layer_intermediate_dims must have 2 numbers each|relative_heads must name a column"
    with pytest.raises(InputError, match=named):
        load_backbone(tmp_path)

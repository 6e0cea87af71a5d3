import numpy as np
import pytest
import toy

from app.compression.importance import Costs, LayerImportance, LayerUnits, shrink, whole_shape
from app.compression.unit_times import find_costs, halve, measure_int8_ms
from app.config import RunError

LAYERS = [LayerUnits(0, tuple(range(4)), tuple(range(32))), LayerUnits(2, (1,), tuple(range(9)))]


def test_half_of_the_heads_and_of_the_columns_are_left_out_and_one_at_least_stays():
    fewer_heads, fewer_columns = halve(LAYERS)
    assert [(len(layer.heads), len(layer.columns)) for layer in fewer_heads] == [(2, 32), (1, 9)]
    assert [(len(layer.heads), len(layer.columns)) for layer in fewer_columns] == [(4, 16), (1, 4)]
    assert [layer.number for layer in fewer_heads] == [0, 2]


def test_costs_are_what_fewer_units_take_less():
    def measure(networks):
        return [
            3.0 + sum(0.25 + 0.5 * len(layer.heads) + 0.01 * len(layer.columns) for layer in network)
            for network in networks
        ]

    costs = find_costs(LAYERS, measure)
    np.testing.assert_allclose([costs.head, costs.column, costs.layer], [0.5, 0.01, 0.25])
    assert costs.unit == "time"
    alone = find_costs(LAYERS[:1], measure)
    np.testing.assert_allclose([alone.head, alone.column, alone.layer], [0.5, 0.01, 0.0])  # none can be left out


def test_a_measurement_that_says_nothing_is_an_error_that_names_the_way_out():
    with pytest.raises(RunError, match=r"costs=int8 cannot be measured.*instead of 3\.00.*costs=operations"):
        find_costs(LAYERS, lambda networks: [3.0, 3.1, 2.0, 1.0])
    with pytest.raises(RunError, match="with 0 heads fewer"):
        find_costs([LayerUnits(0, (0,), tuple(range(8)))], lambda networks: [3.0, 2.0, 1.0])


def test_a_layer_with_little_left_goes_when_layers_cost_something_by_themselves():
    weak = LayerImportance(np.array([1.0, 1.0]), np.full(16, 0.1), 1.0)
    strong = LayerImportance(np.full(2, 9.0), np.full(16, 2.0), 1.0)
    whole = whole_shape([weak, strong])
    for layer, left in ((0.0, [0, 1]), (20.0, [1])):
        costs = Costs(head=8.0, column=1.0, layer=layer)
        kept = shrink(whole, [weak, strong], costs, budget=costs.total(whole) - 1)
        assert [each.number for each in kept] == left


def test_heads_that_cost_more_go_earlier():
    found = [LayerImportance(np.full(4, 10.0), np.full(64, 1.0), 1.0)]
    kept = {}
    for cost in (8.0, 12.0):  # as much as 8 or 12 columns, and as important as ten
        costs = Costs(head=cost, column=1.0)
        whole = whole_shape(found)
        (kept[cost],) = shrink(whole, found, costs, budget=costs.total(whole) - 20)
    assert len(kept[8.0].heads) == 4 and len(kept[12.0].heads) < 4
    assert len(kept[12.0].columns) > len(kept[8.0].columns)


def test_files_of_networks_are_timed_and_a_larger_one_takes_longer(vocabulary):
    small = toy.make_tagger(vocabulary, num_layers=1)
    large = toy.make_tagger(vocabulary, num_layers=6)
    times = measure_int8_ms([small, large], length=64, boundary_ids=(2, 3))
    assert 0 < times[0] < times[1]

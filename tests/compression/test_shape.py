import numpy as np

from app.compression.importance import Costs, LayerImportance, LayerUnits, drop_layers, shrink, whole_shape

COSTS = Costs(head=100.0, column=1.0)


def importances(layers: int = 2, heads: int = 4, columns: int = 32, seed: int = 0) -> list[LayerImportance]:
    rng = np.random.default_rng(seed)
    return [LayerImportance(100 * rng.random(heads), rng.random(columns), rng.random()) for _ in range(layers)]


def test_what_is_left_is_within_the_budget_and_one_unit_more_would_not_be():
    found = importances()
    whole = whole_shape(found)
    budget = 0.5 * COSTS.total(whole)
    kept = shrink(whole, found, COSTS, budget=budget)
    assert budget - COSTS.head < COSTS.total(kept) <= budget


def test_the_least_important_head_and_columns_go_first():
    found = [LayerImportance(np.array([5.0, 1.0, 9.0, 7.0]), np.arange(16.0) + 100, 1.0)]
    (kept,) = shrink(whole_shape(found), found, COSTS, budget=COSTS.total(whole_shape(found)) - 1)
    assert kept.heads == (0, 2, 3) and len(kept.columns) == 16
    cheap = [LayerImportance(np.full(4, 1e6), np.arange(16.0)[::-1], 1.0)]
    (kept,) = shrink(whole_shape(cheap), cheap, COSTS, budget=COSTS.total(whole_shape(cheap)) - 1)
    assert kept.heads == (0, 1, 2, 3) and kept.columns == tuple(range(8))


def test_columns_are_left_in_blocks_of_eight():
    found = importances(columns=37)
    kept = shrink(whole_shape(found), found, COSTS, budget=0.7 * COSTS.total(whole_shape(found)))
    assert all(len(layer.columns) % 8 == 0 or len(layer.columns) == 37 for layer in kept)


def test_a_layer_down_to_its_last_units_goes_whole_and_the_last_layer_stays():
    weak = LayerImportance(np.full(4, 1e-9), np.full(32, 1e-9), 0.0)
    strong = LayerImportance(np.full(4, 10.0), np.full(32, 10.0), 1.0)
    whole = whole_shape([weak, strong])
    assert [layer.number for layer in shrink(whole, [weak, strong], COSTS, budget=COSTS.total(whole) / 2)] == [1]
    (last,) = shrink(whole, [weak, strong], COSTS, budget=0.0)
    assert (last.number, len(last.heads), len(last.columns)) == (1, 1, 8)


def test_whole_layers_go_by_the_importance_of_the_layer():
    found = [LayerImportance(np.ones(2), np.ones(8), value) for value in (3.0, 1.0, 2.0)]
    assert [layer.number for layer in drop_layers(whole_shape(found), found, 2)] == [0]


def test_costs_are_the_matrix_products_of_a_layer():
    width, size, length, heads, columns = 48, 8, 10, 6, 64
    costs = Costs.of(width=width, head_dim=size, length=length)
    layer = LayerUnits(0, tuple(range(heads)), tuple(range(columns)))
    products = 4 * width * heads * size + 2 * width * columns  # projections, feed-forward
    attention = 2 * length * heads * size  # scores and weighted sums of one piece
    assert costs.total([layer]) == 2 * (products + attention)

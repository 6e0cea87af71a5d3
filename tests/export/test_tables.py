"""Embedding tables as TFLite holds them, run by LiteRT: how near their rows are to those of the float table."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from app.config import InputError
from app.export.graph import CODES, LOOKUPS

ROWS, WIDTH = 3000, 64


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.05, (ROWS, WIDTH)).astype(np.float32)


def look_up(table: np.ndarray, kind: str, **settings: int) -> tuple[np.ndarray, int]:
    """All rows as a converted graph gives them, and its size in bytes."""
    lookup = LOOKUPS[kind](table, **settings)
    graph = tf.function(lookup, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    content = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()]).convert()
    runtime = Interpreter(model_content=content)
    place = runtime.get_input_details()[0]["index"]
    runtime.resize_tensor_input(place, (2, len(table) // 2))
    runtime.allocate_tensors()
    runtime.set_tensor(place, np.arange(len(table), dtype=np.int32).reshape(2, -1))
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"]).reshape(len(table), -1), len(content)


def distance(found: np.ndarray, table: np.ndarray) -> float:
    """What is lost, as a part of the table's energy."""
    return float(np.square(found - table).sum() / np.square(table).sum())


@pytest.mark.parametrize(
    ("kind", "settings", "most", "bytes_per_number"),
    [
        ("float", {}, 1e-12, 4.0),
        ("int8", {}, 1e-4, 1.07),
        ("int4", {"block": 32}, 0.02, 0.6),
        ("product", {"product_width": 2}, 0.03, 0.5),
        ("product", {"product_width": 4}, 0.2, 0.25),
    ],
)
def test_a_table_gives_its_rows_back_within_what_its_size_allows(table, kind, settings, most, bytes_per_number):
    found, size = look_up(table, kind, **settings)
    assert found.shape == table.shape and distance(found, table) < most
    shared = CODES * WIDTH if kind == "product" else 0  # the vectors, which do not grow with the rows
    assert size < table.size * bytes_per_number + shared + 6000


def test_product_quantization_gives_back_what_256_vectors_can_say(table):
    for distinct, times in ((100, 30), (28, 22), (CODES, 10)):
        few = np.tile(table[:distinct], (times, 1))
        found, _ = look_up(few, "product", product_width=8)
        assert distance(found, few) < 1e-4  # what int8 loses of the vectors


def test_vectors_that_stand_for_no_row_take_no_resolution_from_the_others(table):
    """Of rows drawn at random many are alike, clusters stay empty, and their centres may lie anywhere."""
    few = np.tile(table[:280, :32], (10, 1))
    found, _ = look_up(few, "product", product_width=4)
    assert distance(found, few) < 0.005


@pytest.mark.parametrize(("rows", "width"), [(ROWS, 5), (2 * CODES, 4)])
def test_a_table_that_product_quantization_does_not_fit_is_kept_in_int8(table, rows, width):
    found, _ = look_up(table[:rows], "product", product_width=width)
    assert np.array_equal(found, look_up(table[:rows], "int8")[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_shared_vectors_are_not_made_of_rows_that_are_not_numbers(table, value):
    broken = table.copy()
    broken[[6, 1234], 3] = value
    with pytest.raises(InputError, match=r"of 2 of its 3,000 word pieces .* first those of line 7 of model/v"):
        LOOKUPS["product"](broken, product_width=4)
    found, _ = look_up(broken, "int8")
    others = np.delete(np.arange(ROWS), [6, 1234])
    assert distance(found[others], table[others]) < 1e-4  # which keeps them apart


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_huge_row_is_told_by_what_the_others_lose(table, size):
    """Nothing fails and nothing that is not a number comes out: the score decides whether the file is kept."""
    broken = table.copy()
    broken[6] = size
    found, _ = look_up(broken, "product", product_width=4)
    others = np.delete(np.arange(ROWS), 6)
    assert np.isfinite(found).all() and distance(found[others], table[others]) > 0.5

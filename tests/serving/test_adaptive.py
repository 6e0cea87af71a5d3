"""A busy server lowers the bar for leaving the network early, and raises it again."""

import pytest

from app.serving.adaptive import PATIENCE, LoadAdapter
from app.serving.metrics import Metrics
from app.tasks.exit_table import ExitRow, choose_row, describe_table, make_fact, read_table

ROWS = [ExitRow(0.0, 0.9, 1.0, 6.0), ExitRow(0.1, 0.8995, 0.8, 4.8), ExitRow(0.3, 0.89, 0.5, 3.0),
        ExitRow(2.0, 0.7, 0.33, 2.0)]  # fmt: skip
FACTS = make_fact((2, 4), "entity_f1", ROWS)


def test_slow_requests_lower_the_bar_row_by_row_and_calm_raises_it_again():
    adapter = LoadAdapter(FACTS, target_ms=100, max_f1_loss=0.2)
    assert adapter.active and adapter.level == 0 and adapter.threshold == 0.1
    found = []
    for _ in range(4):
        adapter.note(0.2)
        found.append(adapter.threshold)
    assert found == [0.3, 2.0, 2.0, 2.0]
    for _ in range(10 * PATIENCE):
        adapter.note(0.08)  # within the target, but not calm
    assert adapter.threshold == 2.0
    for _ in range(PATIENCE):
        adapter.note(0.01)
    assert adapter.threshold == 0.3
    for _ in range(PATIENCE):
        adapter.note(0.01)
    assert adapter.threshold == 0.1 and adapter.level == 0


def test_without_a_target_or_exits_nothing_is_chosen():
    assert not LoadAdapter(FACTS, target_ms=0, max_f1_loss=0.2).active
    assert not LoadAdapter({}, target_ms=100, max_f1_loss=0.2).active
    assert LoadAdapter(FACTS, target_ms=100, max_f1_loss=0).threshold == 0.0


@pytest.mark.parametrize(("loss", "threshold"), [(0, None), (0.01, None), (0.05, 0.1), (1.0, 0.3), (100, 2.0)])
def test_the_fastest_row_within_the_loss_is_chosen(loss, threshold):
    found = choose_row(ROWS, max_loss=loss)
    assert (found and found.threshold) == threshold


def test_a_table_of_other_exits_does_not_count_and_a_person_can_read_it():
    assert read_table(FACTS, (2, 4)) == ROWS and read_table(FACTS, (2,)) == [] == read_table({}, (2, 4))
    shown = describe_table(ROWS, headline="entity F1", chosen=0.1).splitlines()
    assert [line.endswith("*") for line in shown] == [False, False, True, False, False]


def test_answers_are_counted_by_layer():
    metrics = Metrics(lambda: 0)
    metrics.count_layers([2, 2, 6])
    text = metrics.text().decode()
    assert 'app_answers_by_layer_total{layer="2"} 2.0' in text and 'app_answers_by_layer_total{layer="6"} 1.0' in text

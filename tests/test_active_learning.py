"""What benchmarks/active_learning.py makes of its trainings."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

path = Path(__file__).parent.parent / "benchmarks" / "active_learning.py"
specification = importlib.util.spec_from_file_location("active_learning", path)
simulation = importlib.util.module_from_spec(specification)
sys.modules["active_learning"] = simulation
specification.loader.exec_module(simulation)


def rounds(*points: tuple[int, float]) -> list[dict]:
    return [{"labels": labels, "texts": labels, "score": score} for labels, score in points]


def test_labels_needed_lie_on_the_line_between_two_rounds():
    curve = rounds((100, 0.5), (200, 0.7), (400, 0.9))
    assert simulation.labels_needed(curve, 0.8) == pytest.approx(300)
    assert simulation.labels_needed(curve, 0.4) == 100 and simulation.labels_needed(curve, 0.9) == 400
    assert simulation.labels_needed(curve, 0.91) is None and simulation.labels_needed([], 0.1) is None


def test_texts_are_taken_until_their_labels_are_enough():
    assert list(simulation.take([2, 0, 1], [5, 3, 4], 5)) == [2, 0]
    assert list(simulation.take([2, 0, 1], [5, 3, 4], 0)) == []
    assert list(simulation.take([2, 0, 1], [5, 3, 4], 99)) == [2, 0, 1]


def test_the_summary_compares_seed_by_seed_and_says_what_is_missing(tmp_path):
    options = argparse.Namespace(corpus="conll2003", target=0.9, fractions=[0.1, 0.2])
    asked = SimpleNamespace(
        options=options, corpus=simulation.CORPORA["conll2003"], total=1000, full=lambda: rounds((1000, 1.0))
    )
    arms = {
        "random": {0: rounds((100, 0.5), (200, 1.0)), 1: rounds((100, 0.8), (200, 0.9))},
        "margin": {0: rounds((100, 0.5), (120, 0.9)), 1: rounds((100, 0.8))},
    }
    summary = simulation.summarize(asked, arms)
    assert summary["goal"] == 0.9 and summary["labels_needed"]["random"] == {0: pytest.approx(180), 1: 200}
    assert summary["labels_needed"]["margin"] == {0: 120, 1: None}
    assert summary["ratios_to_random"] == {"margin": [pytest.approx(120 / 180)]}
    assert [point["mean"] for point in summary["curves"]["margin"]] == [pytest.approx(0.65), 0.9]
    table = simulation.write_table(summary)
    assert "| random | 190 | 19.0% |  |" in table
    assert "| margin | 120 (1 of 2 seeds not there yet) | 12.0% | 0.67 (0.67) |" in table
    simulation.draw(summary, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

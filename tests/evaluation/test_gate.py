"""Which exports are kept, by hand-made counts of right, predicted and gold entities of each sentence."""

import json
import re

import numpy as np
import pytest

from app.config import InputError
from app.evaluation.gate import Comparison, Gate, Refused, mention_refusal, read_refusals
from app.run.directory import RunDirectory
from app.tasks.tagging.task import TAGGING


def entities(sentences: int, *, wrong: range) -> np.ndarray:
    """Two entities in each sentence; one of them is wrong in some."""
    counts = np.full((sentences, 3), 2)
    counts[wrong, 0] -= 1
    return counts


FLOAT_LARGE, FLOAT_SMALL = entities(3000, wrong=range(300)), entities(158, wrong=range(50))
LARGE_LOSS = entities(3000, wrong=range(420))  # 2 points of 6,000 entities
SMALL_LOSS = entities(158, wrong=range(2, 54))  # four lost, two gained, of 316


def compare(counts: np.ndarray, float_counts: np.ndarray) -> Comparison:
    return Comparison.of(TAGGING, counts, float_counts, labelled=int(counts[:, 2].sum()))


@pytest.fixture
def gate(tmp_path) -> Gate:
    return Gate(RunDirectory(tmp_path), 0.5, {"corpus": "test.conll", "split": "test"})


def test_a_real_loss_on_a_large_corpus_is_refused_with_its_interval(gate):
    found = compare(LARGE_LOSS, FLOAT_LARGE)
    message = r"int8\.tflite refused: entity F1 0\.9300 on test is 2\.00 points below the float model's 0\.9500, "
    with pytest.raises(Refused, match=message + r"95 % interval 1\.\d\d to 2\.\d\d, export\.max_f1_loss allows 0\.5"):
        gate.decide("int8", "int8.tflite", found)


def test_a_loss_that_may_be_chance_on_a_small_corpus_is_kept_with_a_warning(gate, capsys):
    found = compare(SMALL_LOSS, FLOAT_SMALL)
    assert round(found.loss.value, 2) == 0.63 > gate.allowed
    gate.decide("int8", "int8.tflite", found)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: int8.tflite is kept, but the 316 entities of test are too few to tell: it may")
    assert "allows 0.5" in warning and read_refusals(gate.run_dir) == {}


def test_the_same_answers_lose_nothing_and_nothing_is_said(gate, capsys):
    found = compare(FLOAT_SMALL, FLOAT_SMALL)
    assert str(found) == "loses 0.00 points, 95 % interval 0.00 to 0.00"
    gate.decide("int8", "int8.tflite", found)
    assert capsys.readouterr().err == ""


def test_a_small_loss_that_a_large_corpus_proves_is_kept_within_the_budget_and_refused_without_one(tmp_path, capsys):
    found = compare(entities(3000, wrong=range(312)), FLOAT_LARGE)  # .2 points
    corpus = {"corpus": "test.conll", "split": "test"}
    Gate(RunDirectory(tmp_path), 0.5, corpus).decide("int8", "int8.tflite", found)
    assert capsys.readouterr().err == ""
    with pytest.raises(Refused, match="allows 0$"):
        Gate(RunDirectory(tmp_path), 0.0, corpus).decide("int8", "int8.tflite", found)


def test_what_is_better_is_kept_and_said_to_gain(tmp_path):
    found = compare(FLOAT_LARGE, LARGE_LOSS)
    assert re.fullmatch(r"gains 2\.00 points, 95 % interval 1\.\d\d to 2\.\d\d", str(found))
    Gate(RunDirectory(tmp_path), 0.0, {"corpus": "test.conll", "split": "test"}).decide("int8", "int8.tflite", found)


def test_a_loss_of_everything_is_allowed_by_a_budget_of_100(tmp_path):
    found = compare(np.array([[0, 0, 2]] * 40), np.array([[2, 2, 2]] * 40))
    assert found.loss.value == found.loss.low == 100
    Gate(RunDirectory(tmp_path), 100.0, {"corpus": "test.conll", "split": "test"}).decide("int8", "x.tflite", found)


def test_the_loss_is_recorded_with_its_interval():
    found = compare(SMALL_LOSS, FLOAT_SMALL)
    assert found.record() == compare(SMALL_LOSS, FLOAT_SMALL).record()
    low, high = found.record()["points_lost_95_percent_interval"]
    assert low < 0 < found.record()["points_lost"] < high
    assert found.metrics("export/int8/test")["export/int8/test/points_lost_high"] == pytest.approx(high, abs=1e-4)


def test_a_mode_that_misses_a_refused_format_says_so_until_it_is_kept(gate, capsys):
    with pytest.raises(Refused):
        gate.decide("int8", "int8.tflite", compare(LARGE_LOSS, FLOAT_LARGE))
    mention_refusal(gate.run_dir, "int4", there=False)  # nothing is known of it
    message = r"^int8 was refused by --mode=export at 20\d\d-.*: entity F1 0\.9300 .* 2\.00 points below .*max_f1_loss$"
    with pytest.raises(InputError, match=message):
        mention_refusal(gate.run_dir, "int8", there=False)
    assert capsys.readouterr().err == ""
    mention_refusal(gate.run_dir, "int8", there=True)
    assert "the export before it is used" in capsys.readouterr().err
    gate.passed("int8")
    mention_refusal(gate.run_dir, "int8", there=False)


def test_other_refusals_stay_when_one_format_is_refused_or_kept(gate):
    for name in ("int8", "int4"):
        with pytest.raises(Refused):
            gate.decide(name, f"{name}.tflite", compare(LARGE_LOSS, FLOAT_LARGE))
    gate.passed("int8")
    assert list(json.loads(gate.run_dir.refused_exports.read_text())) == ["int4"]


@pytest.mark.parametrize("content", ["", "[", "[]", '{"int8": {}}', '{"int8": 3}', "7"])
def test_a_damaged_file_of_refusals_explains_less_and_stops_nothing(gate, content):
    gate.run_dir.write_text(gate.run_dir.refused_exports, content)
    mention_refusal(gate.run_dir, "int8", there=False)
    with pytest.raises(Refused):
        gate.decide("int8", "int8.tflite", compare(LARGE_LOSS, FLOAT_LARGE))
    assert list(read_refusals(gate.run_dir)) == ["int8"]

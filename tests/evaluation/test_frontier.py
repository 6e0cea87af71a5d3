"""What a frontier is, how turns are taken, and what is said about a process that does not answer."""

import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from app.config import RunError
from app.evaluation.frontier import Contestant, find_frontier, frontier_page, text_table, within
from app.evaluation.timing import TimedProcess, load_batches, save_batches, time_in_rounds

SETTING = (64, 2)


def contestant(variant: str, size: int, f1: float, milliseconds: float, *, runtime: str = "LiteRT") -> Contestant:
    return Contestant("run", variant, runtime, size, f1, {SETTING: milliseconds}, 1000 / milliseconds, 4, variant)


def test_what_another_beats_in_size_f1_and_latency_is_not_on_the_frontier():
    found = [
        contestant("float32", 90, 0.906, 30.0),
        contestant("int8", 24, 0.905, 9.0),
        contestant("int4", 14, 0.903, 20.0),
        contestant("worse", 24, 0.904, 9.0),  # as small and as fast as int8, less right
        contestant("slower", 24, 0.905, 9.5),
    ]
    assert find_frontier(found, setting=SETTING) == {"run float32", "run int8", "run int4"}


def test_two_that_are_equal_are_both_on_the_frontier():
    assert len(find_frontier([contestant("a", 1, 0.5, 1.0), contestant("b", 1, 0.5, 1.0)], setting=SETTING)) == 2


def test_a_loss_of_exactly_the_points_allowed_is_within_them_and_other_runtimes_do_not_count():
    found = [
        contestant("exact", 1, 0.901, 1.0),
        contestant("below", 1, 0.9009, 1.0),
        contestant("ONNX int8", 1, 0.906, 1.0, runtime="ONNX Runtime"),
    ]
    assert [each.variant for each in within(found, float_f1=0.906, points=0.5)] == ["exact"]


def test_the_table_has_a_line_for_each_and_marks_the_frontier():
    found = [contestant("float32", 90_000_000, 0.906, 30.0), contestant("int8", 24_000_000, 0.905, 9.0)]
    lines = text_table(found, best={"run int8"}, title="title", notes=["note"]).splitlines()
    assert lines[0] == "title" and lines[-1] == "note"
    marked = [line for line in lines if line.startswith("*")]
    assert [line.split() for line in marked] == ["* run int8 LiteRT 24.00 90.50 9.00 111 4".split()]


def test_the_page_is_well_formed_marks_the_frontier_and_takes_names_for_text():
    found = [contestant("float32", 90_000_000, 0.906, 30.0), contestant("<i>\x00&\ud800", 24_000_000, 0.905, 9.0)]
    page = frontier_page(found, picture=b"png", best={found[1].name}, title="a & b", notes=["<note>"])
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    rows = [(row.get("class"), ["".join(cell.itertext()) for cell in row.iter("td")]) for row in root.iter("tr")]
    assert rows[1:] == [
        (None, ["run float32", "LiteRT", "90.00", "90.60", "30.00", "33"]),
        ("average", ["run <i>\ufffd&\ufffd", "LiteRT", "24.00", "90.50", "9.00", "111"]),
    ]
    assert root.find(".//h1").text == root.find(".//title").text == "a & b" and root.findtext(".//p[.='<note>']")
    assert root.find(".//img").get("src") == "data:image/png;base64,cG5n"


def test_everyone_has_one_turn_a_round_and_the_first_turn_goes_round():
    order: list[str] = []
    answers = {"a": iter([1.0, 5.0, 2.0]), "b": iter([3.0, 3.0, 9.0])}

    def turn(name: str) -> float:
        order.append(name)
        return next(answers[name])

    found = time_in_rounds({name: lambda name=name: turn(name) for name in answers}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": 2.0, "b": 3.0}


def test_batches_come_back_from_their_file_in_their_order(tmp_path):
    mask = np.ones((1, 2), np.int32)
    batches = [{"token_ids": np.full((1, 2), number, np.int32), "padding_mask": mask} for number in range(12)]
    save_batches(tmp_path / "batches.npz", batches)
    found = load_batches(tmp_path / "batches.npz")
    assert [batch["token_ids"][0, 0] for batch in found] == list(range(12))
    assert set(found[0]) == {"token_ids", "padding_mask"}


def test_a_process_that_ends_is_reported_with_its_last_words():
    with pytest.raises(RunError, match="peer ended: ValueError: no such model"):
        with TimedProcess([sys.executable, "-c", "raise ValueError('no such model')"], name="peer") as process:
            process.wait()


def test_a_process_that_ends_between_two_requests_is_reported_too():
    code = "import sys; print('{\"ready\": true}', flush=True); input(); sys.exit('out of memory')"
    with pytest.raises(RunError, match="peer ended: out of memory"):
        with TimedProcess([sys.executable, "-c", code], name="peer") as process:
            process.ask(model="int8")


def test_a_program_that_is_not_there_is_reported():
    with pytest.raises(RunError, match="could not be started"):
        TimedProcess(["/no/such/python"], name="peer")

"""A busy server lowers the bar for leaving the network early, and raises it again."""

import json
from dataclasses import replace

import pytest
import served
import toy

from app.config import ExportConfig, InputError, ModelConfig
from app.evaluation.exits import ALL_LEAVE
from app.evaluation.manifest import EXITS_FILE, read_exits
from app.export.metadata import write_companions
from app.export.tflite import TFLiteWriter
from app.run.directory import RunDirectory, sha256_of_file
from app.serving.adaptive import PATIENCE, REST_SECONDS, LoadAdapter, find_thresholds
from app.serving.metrics import Metrics
from app.tasks.exit_table import ExitRow, choose_row, describe_table, make_fact, read_table
from app.tasks.network import build_encoder

ROWS = [ExitRow(0.0, 0.9, 1.0, 6.0), ExitRow(0.1, 0.8995, 0.8, 4.8), ExitRow(0.3, 0.89, 0.5, 3.0),
        ExitRow(2.0, 0.7, 0.33, 2.0)]  # fmt: skip
FACTS = make_fact((2, 4), "entity_f1", ROWS)


def test_slow_requests_lower_the_bar_row_by_row_and_calm_raises_it_again():
    adapter = LoadAdapter(find_thresholds(FACTS, max_f1_loss=0.2, under_load=100), target_ms=100)
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


def test_a_peak_that_nothing_follows_is_over():
    now = [0.0]
    adapter = LoadAdapter([0.1, 0.3, 2.0], target_ms=100, clock=lambda: now[0])
    for level in (1, 2):
        now[0] += 1.5 * REST_SECONDS
        adapter.note(1.5 * REST_SECONDS)  # a batch that took longer than a rest: the server was busy all the while
        assert adapter.level == level
    now[0] += REST_SECONDS / 2
    assert adapter.threshold == 2.0
    now[0] += REST_SECONDS
    assert adapter.level == 0 and adapter.threshold == 0.1


def test_without_a_target_or_exits_nothing_is_chosen():
    assert not LoadAdapter(find_thresholds(FACTS, max_f1_loss=0.2, under_load=100), target_ms=0).active
    assert not LoadAdapter(find_thresholds({}, max_f1_loss=0.2, under_load=100), target_ms=100).active
    assert find_thresholds(FACTS, max_f1_loss=0, under_load=100) == [0.0, 0.1, 0.3, 2.0]


@pytest.mark.parametrize(("loss", "under_load", "found"), [
    (0.2, 1.0, [0.1, 0.3]), (0.0, 1.0, [0.0, 0.1, 0.3]), (0.2, 0.5, [0.1]), (5.0, 0.0, [0.3]), (0.0, 0.0, [0.0]),
])  # fmt: skip
def test_under_load_no_more_is_lost_than_is_allowed(loss, under_load, found):
    assert find_thresholds(FACTS, max_f1_loss=loss, under_load=under_load) == found


@pytest.mark.parametrize(("loss", "threshold"), [(0, None), (0.01, None), (0.05, 0.1), (1.0, 0.3), (100, 2.0)])
def test_the_fastest_row_within_the_loss_is_chosen(loss, threshold):
    found = choose_row(ROWS, max_loss=loss)
    assert (found and found.threshold) == threshold


def test_a_table_of_other_exits_does_not_count_and_a_person_can_read_it():
    assert read_table(FACTS, (2, 4)) == ROWS and read_table(FACTS, (2,)) == [] == read_table({}, (2, 4))
    shown = describe_table(ROWS, headline="entity F1", chosen=0.1).splitlines()
    assert [line.endswith("*") for line in shown] == [False, False, True, False, False]


DAMAGED = {
    "no object": ([1, 2], r"must be an object with layers, received \[1, 2\]"),
    "no layers": ({"table": []}, r"must be an object with layers"),
    "no table": ({"layers": [2, 4]}, r"table must be a list of rows, received None"),
    "a short row": ({"layers": [2, 4], "table": [[0.0, 0.9, 1.0]]}, r"a row of table must be 4 finite numbers"),
    "no number": ({"layers": [2, 4], "table": [[0.0, 0.9, 1.0, None]]}, r"must be 4 finite numbers"),
    "NaN": ({"layers": [2, 4], "table": [[0.0, float("nan"), 1.0, 4.0]]}, r"must be 4 finite numbers"),
    "no row of words": ({**FACTS["exits"], "by_unit": [3]}, r"a row of by_unit must be .* received 3"),
    "no first row": ({"layers": [2, 4], "table": [[0.1, 0.9, 0.7, 2.1]]}, r"must rise from 0, received \[0.1\]"),
    "falling": ({"layers": [2, 4], "table": [[each, 0.9, 0.7, 2.1] for each in (0, 0.3, 0.1)]}, r"must rise from 0"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_table_is_told_in_one_sentence(fault, tmp_path):
    found, said = DAMAGED[fault]
    with pytest.raises(InputError, match=f"damaged: .*{said}"):
        read_table({"exits": found}, (2, 4))
    path = tmp_path / EXITS_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"exits\.json .*(object|--mode=export writes .*" + said + ")"):
        read_exits(tmp_path)
    path.write_text(json.dumps(FACTS["exits"]))
    assert read_table({"exits": read_exits(tmp_path)}, (2, 4)) == ROWS


def test_answers_are_counted_by_layer():
    metrics = Metrics(lambda: 0)
    metrics.count_layers([2, 2, 6])
    text = metrics.text().decode()
    assert 'app_answers_by_layer_total{layer="2"} 2.0' in text and 'app_answers_by_layer_total{layer="6"} 1.0' in text


@pytest.fixture(scope="module")
def light_run(vocabulary, tmp_path_factory):
    """A run with a TFLite file, and beside it one that every text leaves at layer 1."""
    model = toy.make_tagger(vocabulary, model=ModelConfig(exit_layers=(1,)), num_layers=2)
    rows = [ExitRow(0.0, 0.9, 1.0, 2.0), ExitRow(ALL_LEAVE, 0.895, 0.5, 1.0)]
    model = replace(model, facts={**model.facts, **make_fact((1,), "entity_f1", rows)})
    encoder = build_encoder(model, served.CONFIG.data)
    folder = served.make_run(tmp_path_factory.mktemp("light") / "run", model, encoder, light=True)
    run = RunDirectory(folder)
    writer = TFLiteWriter(model, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [], threshold=ALL_LEAVE)
    path = run.tflite / "float32_early.tflite"
    run.write_bytes(path, writer.write("float32_early"))
    entry = {"sha256": sha256_of_file(path), "exit_threshold": ALL_LEAVE}
    write_companions(model, run, path.name, entry, max_length=toy.LENGTH, vectors=[])
    return folder


def test_a_file_with_exits_answers_while_requests_take_too_long(light_run):
    texts = ["Ada met Bob .", "the old house . It was in Lima .", " "]
    model = served.make_server(light_run, runtime="tflite", target_latency_ms=100).models["ner"]
    left = []
    model.observe_layers = left.extend
    model.load()
    engine = model.stable.engine

    def layers():
        return [row["layer"] for row in engine.answer(texts).rows(0, 3)]

    assert layers() == [2, 2, 0]
    engine.note(0.2)
    assert layers() == [1, 1, 0]
    for _ in range(PATIENCE):
        engine.note(0.01)
    assert layers() == [2, 2, 0]
    assert left == [2, 2, 0, 1, 1, 0, 2, 2, 0]
    model.close()


def test_a_target_that_changes_nothing_is_said_so_and_why(light_run):
    for file, target, said in (
        ("float32", 100, []),
        ("float32_early", 0, []),
        ("float32_early", 100, ["warning: ner, version 1: serve.target_latency_ms=100 changes nothing, there is no "
                                "float32_early_early.tflite that texts leave early"]),
    ):  # fmt: skip
        server = served.make_server(light_run, runtime="tflite", tflite_file=file, target_latency_ms=target)
        server.load()
        server.close()
        assert server.told == said


def test_a_file_with_exits_that_lost_too_much_is_not_used_under_load(light_run):
    for allowed, said in (
        (0.3, ["warning: ner, version 1: serve.target_latency_ms=100 changes nothing, float32_early.tflite leaves so "
               "early that it lost 0.50 points in validation, serve.max_f1_loss allows 0.3: export it with a lower "
               "predict.max_f1_loss"]),
        (0.5, []),
    ):  # fmt: skip
        server = served.make_server(light_run, runtime="tflite", target_latency_ms=100, max_f1_loss=allowed)
        server.load()
        assert server.told == said
        assert (server.models["ner"].stable.engine.adapter is None) == bool(said)
        server.close()


def test_a_file_with_exits_can_be_the_one_that_is_served(light_run):
    with served.serving(light_run, runtime="tflite", tflite_file="float32_early") as url:
        status, body = served.ask(url, "/entities", {"texts": ["Ada met Bob ."]})
        assert status == 200 and body["answers"][0]["layer"] == 1
        assert 'app_answers_by_layer_total{layer="1"} 1.0' in served.fetch(url, "/metrics")[2].decode()
    with served.serving(light_run, runtime="tflite") as url:
        assert "layer" not in served.ask(url, "/entities", {"texts": ["Ada met Bob ."]})[1]["answers"][0]

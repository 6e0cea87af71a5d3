"""`--mode=benchmark` with `benchmark.objective=frontier`: the exports of runs side by side."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from app.config import InputError
from app.config.loading import load_config
from app.evaluation import frontier_rounds as frontier
from app.evaluation.frontier_peer import start_peer, write_network
from app.evaluation.frontier_rounds import make_batches, name_apart, open_runs, sample_documents
from app.evaluation.gate import Comparison, Gate, Refused
from app.evaluation.runtimes import build_keras_forward
from app.evaluation.timing import save_batches
from app.modes import export
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model
from app.tasks.corpora import open_split
from app.tasks.tagging.task import TAGGING

QUICK = (
    "benchmark.objective=frontier", "benchmark.frontier.rounds=2", "benchmark.frontier.lengths=8,16",
    "benchmark.frontier.threads=1", "benchmark.frontier.batch_sizes=1,4", "benchmark.frontier.words=200",
)  # fmt: skip


def request_of(path, *settings: str) -> Request:
    run_dir = RunDirectory(path)
    return Request(load_config(None, list(settings), defaults=str(run_dir.config_yaml)), run_dir)


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> Path:
    path = trained_run.copy(tmp_path_factory.mktemp("frontier") / "one")
    export.run(request_of(path, "export.formats=float32,int8", "export.max_f1_loss=100"))
    return path


@pytest.fixture(scope="module")
def measured(exported, tmp_path_factory):
    """A frontier of two runs that have the same exports."""
    other = Path(shutil.copytree(exported, tmp_path_factory.mktemp("frontier") / "one"))
    metrics = frontier.measure_frontier(request_of(exported, *QUICK, f"benchmark.frontier.other_runs={other}"))
    report = json.loads((exported / "reports" / "frontier.json").read_text())
    names = {f"{folder.parent.name}/one": name for folder, name in ((exported, "one"), (other, "two"))}
    return metrics, {f"{names[each['run']]} {each['variant']}": each for each in report["contestants"]}


@pytest.mark.slow
def test_every_export_of_every_run_and_keras_are_measured_in_every_setting(measured):
    _, found = measured
    exports = {f"{run} {variant}" for run in ("one", "two") for variant in ("float32", "int8")}
    assert set(found) == exports | {"one Keras"}
    for each in found.values():
        settings = [(each["pieces"], each["threads"]) for each in each["latency_ms"]]
        assert settings == [(8, 1), (16, 1)]
        assert all(latency["milliseconds"] > 0 for latency in each["latency_ms"])
        assert each["words_per_second"] > 0 and each["batch_size"] in (1, 4)


@pytest.mark.slow
def test_sizes_are_those_of_the_files_and_f1_is_what_the_export_was_scored(exported, measured):
    _, found = measured
    files = json.loads((exported / "export" / "tflite" / "model.json").read_text())["files"]
    for name in ("float32", "int8"):
        assert found[f"one {name}"]["bytes"] == (exported / "export" / "tflite" / f"{name}.tflite").stat().st_size
        assert found[f"one {name}"]["entity_f1"] == files[f"{name}.tflite"]["entity_f1"]
        assert found[f"two {name}"]["entity_f1"] == found[f"one {name}"]["entity_f1"]
    assert found["one Keras"]["entity_f1"] == files["int8.tflite"]["entity_f1_of_the_float_model"]
    assert found["one Keras"]["bytes"] > (exported / "model" / "backbone.weights.h5").stat().st_size


@pytest.mark.slow
def test_table_picture_and_page_are_there_and_name_everyone(exported, measured):
    metrics, found = measured
    table = (exported / "reports" / "frontier.txt").read_text()
    page = (exported / "reports" / "frontier.html").read_text()
    for each in found.values():
        name = f"{each['run']} {each['variant']}"
        assert name in table and name in page
    assert "test.conll" in table
    assert (exported / "reports" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "http" not in page  # opens without a network
    smallest = min(each["bytes"] for each in found.values() if each["runtime"] == "LiteRT")
    assert metrics["benchmark/frontier/smallest_within_1.0/bytes"] >= smallest
    written = json.loads((exported / "metrics.json").read_text())
    assert {name: written[name] for name in metrics} == metrics


@pytest.mark.slow
def test_scores_are_remembered_by_the_checksums_of_model_and_corpus(exported, measured):
    scores = json.loads((exported / "reports" / "scores.json").read_text())
    assert len(scores) == 3  # float32, int8, Keras: the second run has the same files


def test_a_sample_is_whole_documents_from_all_over_the_corpus(exported):
    config = request_of(exported).config
    sentences = list(open_split(config, "test").examples())
    sample = sample_documents(TAGGING, sentences, 150)
    chosen = {sentence.document for sentence in sample}
    assert sample == [sentence for sentence in sentences if sentence.document in chosen]
    assert max(chosen) > 0.7 * sentences[-1].document
    assert 75 < sum(len(sentence.words) for sentence in sample) < 300
    assert sample_documents(TAGGING, sentences, 0) == sentences


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("benchmark.frontier.threads=", "benchmark.frontier.threads is empty"),
        ("benchmark.frontier.lengths=65", "benchmark.frontier.lengths must be at most 64"),
        ("benchmark.frontier.peer_python=/no/python", "benchmark.frontier.peer_python must be a Python interpreter"),
        ("benchmark.frontier.other_runs=nowhere", "name one with benchmark.frontier.other_runs"),
    ],
)
def test_a_setting_that_cannot_be_measured_is_refused(exported, setting, message):
    with pytest.raises(InputError, match=message):
        frontier.measure_frontier(request_of(exported, *QUICK, setting))


def test_a_run_without_exports_and_the_same_run_again_are_refused(exported, trained_run, tmp_path):
    bare = trained_run.copy(tmp_path / "bare")
    with pytest.raises(InputError, match="make it with --mode=export"):
        frontier.measure_frontier(request_of(bare, *QUICK))
    again = exported.parent / ".." / exported.parent.name / exported.name
    with pytest.raises(InputError, match="must be other runs, received .*one a second time"):
        frontier.measure_frontier(request_of(exported, *QUICK, f"benchmark.frontier.other_runs={again}"))


def test_a_format_that_was_refused_is_named_where_there_are_no_exports(trained_run, tmp_path):
    bare = trained_run.copy(tmp_path / "bare")
    gate = Gate(RunDirectory(bare), 0.5, {"corpus": "test.conll", "split": "test"})
    found = Comparison.of(TAGGING, np.array([[0, 1, 1]] * 50), np.ones((50, 3), int), labelled=50)
    with pytest.raises(Refused):
        gate.decide("int8", "int8.tflite", found)
    with pytest.raises(InputError, match="int8 was refused by --mode=export at .* 100.00 points below"):
        frontier.measure_frontier(request_of(bare, *QUICK))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/one", "/runs/two"], ["one", "two"]),
        (["/monday/run", "/tuesday/run", "/tuesday/other"], ["monday/run", "tuesday/run", "other"]),
        (["/a/x/run", "/b/x/run"], ["a/x/run", "b/x/run"]),
        (["/run", "/x/run"], ["/run", "x/run"]),
        (["/run"], ["run"]),
    ],
)
def test_runs_whose_folders_have_the_same_name_are_told_apart(paths, names):
    assert name_apart([Path(path) for path in paths]) == names


def test_a_python_without_the_packages_is_refused(exported):
    with pytest.raises(InputError, match="it lacks .*onnxruntime"):
        frontier.measure_frontier(request_of(exported, *QUICK, f"benchmark.frontier.peer_python={sys.executable}"))


def test_onnx_runtime_computes_the_same_network(exported, tmp_path):
    """Needs PEER_PYTHON, see benchmarks/README.md."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        pytest.skip("set PEER_PYTHON to a Python with onnxruntime, torch and transformers")
    request = request_of(exported)
    run = open_runs(request.run_dir, (), request.config.data)[0]
    sentences = list(open_split(request.config, "test").examples())
    batches = make_batches(run, sentences, 3)[:4]
    save_batches(tmp_path / "batches.npz", batches)
    keras = build_keras_forward(load_model(request.run_dir.model))
    with start_peer(python, write_network(run.tagger, request.run_dir)) as peer:
        assert min(peer.wait()["bytes"].values()) > 0
        forward = peer.forward("float32", threads=1, folder=tmp_path)
        for batch in batches:
            real = batch["padding_mask"] > 0
            np.testing.assert_allclose(forward(batch)[real], keras(batch)[real], atol=1e-4)
        answer = peer.ask(model="int8", batches=str(tmp_path / "batches.npz"), threads=1, calls=1, warm_up=0)
        assert answer["seconds"] > 0

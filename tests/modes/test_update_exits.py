"""A run with exits learns from corrections: what goes live has exits too, whose thresholds are its own."""

import json
import shutil
from types import SimpleNamespace

import pytest
import toy
from served import make_server
from taught import SETTINGS, corrections

from app.config.loading import load_config
from app.evaluation.manifest import read_exits
from app.feedback.store import FILE_NAME, Store
from app.feedback.updating import update
from app.feedback.versions import read_labels, roll_back, set_label
from app.modes import finetune
from app.run.directory import Request, RunDirectory
from app.run.request import load_run_config
from app.serving.adaptive import PATIENCE
from app.tasks.bundle import load_model
from app.tasks.exit_table import read_table

pytestmark = pytest.mark.slow

# With nothing to do, texts go through the whole network.
EXITS = ["model.exit_layers=1", "backbone.num_layers=2", "training.epochs=2", "predict.max_f1_loss=0"]
# Whatever it learns is to go live.
PASSES = {"update.epochs": 1, "update.require_better": "false", "update.max_f1_loss": 100, "export.max_f1_loss": 100}
TEXTS = ["Ada met Bob .", "the old house . It was in Lima ."]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vocabulary):
    """A run with exits and an update of it that is on trial."""
    folder = tmp_path_factory.mktemp("updated_exits")
    toy.write_corpora(folder)
    own = [flag.removeprefix("--set=") for flag in toy.run_settings(folder, vocabulary)]
    first, second = RunDirectory(folder / "ner"), RunDirectory(folder / "ner-2")
    finetune.run(Request(load_config(None, [*own, *EXITS]), first))
    with Store.open(f"sqlite:///{first.path / FILE_NAME}") as store:
        store.add(corrections(20))
    settings = {key: value for key, value in SETTINGS.items() if key != "data.valid_path"} | PASSES
    settings["init_from"] = first.path
    config = load_run_config("update", second, None, {key: str(value) for key, value in settings.items()})
    return SimpleNamespace(first=first, second=second, config=config, found=update(Request(config, second)))


def table_of(run: RunDirectory) -> list:
    model = load_model(run.model)
    assert model.config.exit_layers == (1,) == tuple(each.layer for each in model.exits)
    return read_table(model.facts, (1,))


def test_the_update_keeps_the_exits_and_chooses_their_thresholds_anew(runs):
    before, after = table_of(runs.first), table_of(runs.second)
    assert before and after and before != after
    kernels = [load_model(run.model).own_variables()["exit_1/kernel"].numpy() for run in (runs.first, runs.second)]
    assert (kernels[0] != kernels[1]).any()
    assert runs.found["update/passed"] == 1 and read_labels(runs.first.path).canary == 2
    for number, table in ((1, before), (2, after)):
        exits = read_exits(runs.first.saved_model / str(number))
        assert read_table({"exits": exits}, (1,)) == table
        vectors = runs.first.saved_model / str(number) / "assets.extra" / "test_vectors.jsonl"
        assert {json.loads(line)["layer"] for line in vectors.read_text().splitlines()} == {2}


def check_load(model, run: RunDirectory, number: int) -> None:
    """The version that is stable answers by the whole network, and early by its own thresholds while it is slow."""
    engine, thresholds = model.stable.engine, [row.threshold for row in table_of(run)]
    assert model.stable.number == number

    def layers() -> list[int]:
        return [row["layer"] for row in engine.answer(TEXTS).rows(0, len(TEXTS))]

    assert layers() == [2, 2]
    for threshold in (*thresholds[1:], thresholds[-1]):
        engine.note(0.2)
        assert engine.adapter.threshold == threshold
    assert layers() == [1, 1]
    for _ in range(PATIENCE * len(thresholds)):
        engine.note(0.01)
    assert layers() == [2, 2]


def test_the_server_leaves_early_under_load_by_the_thresholds_of_whichever_version_is_live(runs, tmp_path):
    run = RunDirectory(shutil.copytree(runs.first.path, tmp_path / "ner"))
    server = make_server(run.path, runtime="saved_model", target_latency_ms=100)
    model = server.models["ner"]
    model.config = runs.config
    server.load()
    try:
        check_load(model, runs.first, 1)
        set_label(run.path, "stable", 2)
        server.refresh()
        check_load(model, runs.second, 2)
        roll_back(run.path)
        server.refresh()
        check_load(model, runs.first, 1)
        assert server.told == ["ner: version 1 is loaded (saved_model)"]
    finally:
        server.close()


def test_files_with_exits_come_with_the_version_and_serve_it(runs, tmp_path):
    """The update is put on trial once more, beside a run that is served by files."""
    first = RunDirectory(shutil.copytree(runs.first.path, tmp_path / "ner"))
    second = RunDirectory(shutil.copytree(runs.second.path, tmp_path / "ner-2"))
    second.config_yaml.write_text(second.config_yaml.read_text().replace(str(runs.first.path), str(first.path)))
    for name in ("labels.json", "models.config"):
        (first.path / "export" / name).unlink()
    shutil.rmtree(first.saved_model / "2")
    names = ("float32", "float32_early")
    first.write_json(first.tflite / "model.json", {"labels": [], "files": {f"{name}.tflite": {} for name in names}})
    record = json.loads(second.update_json.read_text())
    second.write_json(second.update_json, {name: value for name, value in record.items() if name != "version"})
    config = load_config(None, ["predict.max_f1_loss=100"], defaults=str(second.config_yaml))
    update(Request(config, second))
    assert read_labels(first.path).canary == 2
    set_label(first.path, "stable", 2)
    server = make_server(first.path, runtime="tflite", target_latency_ms=100, max_f1_loss=100)
    server.load()
    try:
        engine = server.models["ner"].stable.engine
        entry = json.loads((first.tflite / "2" / "model.json").read_text())["files"]["float32_early.tflite"]
        for level, threshold in enumerate((0.0, entry["exit_threshold"])):
            assert engine.adapter.threshold == threshold
            rows = engine.answer(TEXTS).rows(0, len(TEXTS))
            assert [row["layer"] for row in rows] == [2 - level] * len(TEXTS)
            engine.note(0.2)
    finally:
        server.close()

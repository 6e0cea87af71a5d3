"""A run directory that was written before there were tasks, nested settings or calibration."""

import json
import shutil
from pathlib import Path

import pytest

from app.config.loading import load_config
from app.modes import evaluate, export, predict
from app.run.directory import Request, RunDirectory

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_before_tasks"


@pytest.fixture
def old_run(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def request(run: RunDirectory, *, mode: str, **more) -> Request:
    config = load_config(None, ["export.formats=int8,saved_model"], mode=mode, defaults=str(run.config_yaml))
    return Request(config=config, run_dir=run, **more)


def test_it_answers_as_it_did(old_run, tmp_path):
    predict.run(request(old_run, mode="predict", input=str(FIXTURE / "texts.txt"), output=str(tmp_path / "o")))
    assert (tmp_path / "o").read_text() == (FIXTURE / "predict.jsonl").read_text()


def test_it_is_scored_as_it_was(old_run):
    known = json.loads((FIXTURE / "metrics.json").read_text())
    found = evaluate.run(request(old_run, mode="evaluate"))
    assert {name: found[name] for name in found if not name.endswith("per_second")} == {
        name: known[name] for name in found if not name.endswith("per_second")
    }


@pytest.mark.slow
def test_it_is_exported(old_run):
    export.run(request(old_run, mode="export"))
    assert (old_run.tflite / "int8.tflite").is_file() and (old_run.saved_model / "1" / "saved_model.pb").is_file()

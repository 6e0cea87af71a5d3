"""What evaluate says and writes of a classifier, on a run of random weights."""

import json

import pytest
import toy

from app.config.loading import load_config
from app.modes import evaluate
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import save_model
from app.text.shapes import NUM_SHAPES


@pytest.fixture
def run_dir(tmp_path, vocabulary) -> RunDirectory:
    toy.write_texts(tmp_path)
    made = RunDirectory(tmp_path / "run")
    made.write_config(load_config(None, toy.text_settings(tmp_path, vocabulary)))
    made.write_environment(seed=1, command=["none"])
    save_model(toy.make_classifier(vocabulary), made.model, shape_count=NUM_SHAPES, card="")
    return made


def test_what_is_odd_about_a_corpus_is_said_and_another_minimum_score_leaves_the_runs_report_alone(
    run_dir, tmp_path, capsys
):
    rows = [("Ada saw .", "person"), ("we went", "person"), ("Ada  saw .", "neither")]
    path = toy.write_table(tmp_path / "own.csv", [{"text": text, "label": label} for text, label in rows])
    config = load_config(None, [f"data.test_path={path}"], defaults=str(run_dir.config_yaml))
    evaluate.run(Request(config, run_dir))
    said = capsys.readouterr().err
    assert said.count(f"warning: {path} has no text of label 'place'") == 1
    assert said.count("text(s) with different labels") == 1
    run_dir.write_text(run_dir.report_txt, "the run's own")
    config = load_config(None, ["predict.min_score=0.9"], defaults=str(run_dir.config_yaml))
    found = evaluate.run(Request(config, run_dir))
    (apart,) = (run_dir.path / "evaluations").glob("test.csv-*.min_score-0.9")
    assert json.loads((apart / "metrics.json").read_text())["test/coverage"] == found["test/coverage"] < 1
    assert run_dir.report_txt.read_text() == "the run's own"

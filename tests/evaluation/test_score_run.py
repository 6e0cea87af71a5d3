"""A trained run is scored and complete whatever its settings of answering ask for; later modes say what cannot be."""

import dataclasses
import json

import pytest
import toy

from app import checks
from app.config import InputError, PredictConfig
from app.config.loading import load_config
from app.evaluation.scoring import score_run
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model, save_model
from app.tasks.classification.min_score import check_settings, find_min_score
from app.tasks.corpora import check_other_splits
from app.text.shapes import NUM_SHAPES

POINTS = [[0.9, 1.0], [0.7, 0.75], [0.6, 0.8], [0.5, 0.6]]  # minimum score, precision


@pytest.fixture
def scored(tmp_path, vocabulary, monkeypatch):
    """Scores a classifier of random weights that nothing has calibrated yet: (run, what is in metrics.json)."""

    def run(*settings: str) -> tuple[RunDirectory, dict]:
        corpora, run_dir = tmp_path / "corpora", RunDirectory(tmp_path / "run")
        corpora.mkdir()
        toy.write_texts(corpora)
        toy.write_table(corpora / "outside.csv", [{"text": "the old house", "label": "out_of_scope"}] * 3)
        monkeypatch.chdir(corpora)
        config = load_config(None, toy.text_settings(corpora, vocabulary, *settings))
        run_dir.write_config(config)
        run_dir.write_environment(seed=1, command=["none"])
        save_model(toy.make_classifier(vocabulary), run_dir.model, shape_count=NUM_SHAPES, card="")
        score_run(config, run_dir)
        return run_dir, json.loads((run_dir.path / "metrics.json").read_text())

    return run


def test_a_precision_is_found_on_the_validation_split_of_the_same_training(scored, capsys):
    run_dir, metrics = scored("predict.target_precision=0.35")
    points = load_model(run_dir.model).facts["coverage"]
    expected = find_min_score({"coverage": points}, PredictConfig(target_precision=0.35))
    assert "warning" not in capsys.readouterr().err
    assert metrics["valid/answered_accuracy"] >= 0.35
    assert 0 < metrics["valid/coverage"] < 1 and expected > 0  # else the split as a whole was good enough


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("predict.target_precision=0.5", "data.valid_path=outside.csv"), "no minimum score makes so many"),
        (("predict.target_precision=0.5", "data.valid_path="), "without a validation split"),
    ],
)
def test_a_precision_that_cannot_be_had_costs_no_training(scored, capsys, settings, says):
    run_dir, metrics = scored(*settings)
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "without a minimum score" in line]
    assert says in warning
    assert metrics["test/coverage"] == 1.0 and (run_dir.path / "report.html").is_file()
    assert "scored" in run_dir.read_state()
    with pytest.raises(InputError, match=says):  # and later modes say so at once
        checks.check_model(load_config(None, [], defaults=str(run_dir.config_yaml)), run_dir)
    changed = load_config(None, ["predict.target_precision=0"], defaults=str(run_dir.config_yaml))
    assert checks.check_model(changed, run_dir).task == "classification"
    for mode in ("evaluate", "predict"):
        request = Request(load_config(None, [], defaults=str(run_dir.config_yaml)), run_dir, input="-")
        with pytest.raises(InputError, match=says):
            checks.check(mode, request)


def test_before_training_it_is_said_that_a_precision_needs_a_validation_split(tmp_path, vocabulary, capsys):
    toy.write_texts(tmp_path)
    asked = load_config(None, toy.text_settings(tmp_path, vocabulary, "predict.target_precision=0.9"))
    for config, facts, count in (
        (asked, {}, 0),
        (dataclasses.replace(asked, data=dataclasses.replace(asked.data, valid_path="")), {}, 1),
        (dataclasses.replace(asked, data=dataclasses.replace(asked.data, valid_path="")), {"coverage": POINTS}, 0),
    ):
        check_other_splits(config, toy.TEXT_LABELS, facts=facts)
        assert capsys.readouterr().err.count("target_precision=0.9 is found on a validation split") == count


def test_the_lowest_minimum_score_that_reaches_a_precision_is_taken():
    facts = {"coverage": POINTS}
    assert find_min_score(facts, PredictConfig(target_precision=0.8)) == 0.6
    assert find_min_score(facts, PredictConfig(target_precision=0.6)) == 0.0
    assert find_min_score(facts, PredictConfig(min_score=0.3)) == 0.3
    with pytest.raises(InputError, match=r"the most is 1; lower it, or set predict.target_precision=0"):
        find_min_score({"coverage": [[0.9, 1.0]]}, PredictConfig(target_precision=1.01))
    check_settings({"multi_label": True}, PredictConfig(target_precision=0.9))

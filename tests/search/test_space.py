from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from app.config import InputError, TuneConfig, flatten, trained_settings
from app.config.loading import load_config, to_yaml
from app.config.rules import require_search
from app.config.tune import USUAL_SPACES, trial_mode
from app.run.directory import RunDirectory
from app.run.request import load_run_config
from app.search.space import build_distribution, build_trial_config, read_params, suggest

SPACE = (
    "{training.learning_rate: {low: 1e-5, high: 1e-3, log: true}, training.epochs: {low: 1, high: 9, step: 2}, "
    "model.head: [crf, softmax], training.freeze_embeddings: [true, false], "
    "compression.steps: [[cluster], [prune_structured, cluster]], "
    "training.layer_learning_rate_decay: {low: 0, high: 1}}"
)


def load(*settings: str):
    return load_config(None, list(settings))


def test_a_space_is_typed_by_its_settings():
    with pytest.raises(InputError, match=r"layer_learning_rate_decay must be above 0 and at most 1, received '0'"):
        load(f"tune.space={SPACE}")
    space = load(f"tune.space={SPACE.replace('low: 0,', 'low: 0.5,')}").tune.space
    assert space["training.learning_rate"] == {"low": 1e-5, "high": 1e-3, "log": True}
    assert space["training.freeze_embeddings"] == [True, False]
    drawn = {key: build_distribution(values) for key, values in space.items()}
    assert drawn["training.learning_rate"] == FloatDistribution(1e-5, 1e-3, log=True)
    assert drawn["training.epochs"] == IntDistribution(1, 9, step=2)
    assert drawn["model.head"] == CategoricalDistribution(["crf", "softmax"])
    assert drawn["compression.steps"] == CategoricalDistribution(['["cluster"]', '["prune_structured", "cluster"]'])


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("training.epochs: {low: 1, high: 10, step: 2}", "from 1 in steps of 2 the last value is 9, so set high: 9"),
        ("model.head_dropout: {low: 0.7, high: 0.9, step: 0.07}", "from 0.7 in steps of 0.07 the last value is 0.84"),
        ("model.head_dropout: {low: 0, high: 0.9, step: 1e-30}", "a step that makes at most 1,000,000,000 values"),
        ("training.epochs: {low: 1, high: 9, step: 9}", "needs for step a whole number above 0 and at most high - low"),
    ],
)
def test_a_step_that_does_not_lead_from_low_to_high_is_refused_with_one_that_does(written, says):
    with pytest.raises(InputError, match=f"^tune.space: {written.partition(':')[0]} .*{says}.* received {{low: "):
        load(f"tune.space={{{written}}}")


@pytest.mark.filterwarnings("error")  # Optuna's
@pytest.mark.parametrize(("low", "high", "step"), [("0.7", "1.0", "0.05"), ("0.1", "0.4", "0.1")])
def test_decimal_steps_are_counted_as_they_are_written(low, high, step):
    key = "training.layer_learning_rate_decay"
    space = load(f"tune.space={{{key}: {{low: {low}, high: {high}, step: {step}}}}}").tune.space
    assert build_distribution(space[key]) == FloatDistribution(float(low), float(high), step=float(step))


def test_a_space_survives_yaml_sections_and_a_whole_config(tmp_path):
    config = load(f"tune.space={SPACE.replace('low: 0,', 'low: 0.5,')}")
    (tmp_path / "a.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(str(tmp_path / "a.yaml")) == config
    nested = load("tune.space={training: {batch_size: [2, 4]}}")
    assert nested.tune.space == {"training.batch_size": [2, 4]}
    assert load_config({"tune": {"space": {"training.batch_size": [2, 4]}}}) == nested


@pytest.mark.parametrize("mode", ["finetune", "compress"])
def test_what_is_searched_by_default_changes_what_a_trial_trains(mode):
    assert trained_settings(mode) >= USUAL_SPACES[mode].keys()
    assert trial_mode(TuneConfig()) == "finetune"
    config = load_run_config("tune", RunDirectory("runs/tune"), None, [])
    assert config.tune.space == USUAL_SPACES["finetune"] and config.training.epochs < 12
    own = load_run_config("tune", RunDirectory("runs/tune"), None, ["tune.space={training.batch_size: [2, 4]}"])
    assert own.tune.space == {"training.batch_size": [2, 4]}


def test_a_trial_keeps_what_was_suggested_before_it_was_killed():
    study = optuna.create_study()
    space = load(f"tune.space={SPACE.replace('low: 0,', 'low: 0.5,')}").tune.space
    trial = study.ask()
    values = suggest(trial, space)
    again = optuna.trial.Trial(study, trial._trial_id)
    assert suggest(again, space) == values
    assert values["compression.steps"] in (["cluster"], ["prune_structured", "cluster"])
    assert read_params(trial.params, space) == values


def test_a_trial_trains_without_the_test_corpus_and_without_secrets():
    url = "postgresql://me:s3cret@host/name"
    config = load(f"feedback.url={url}", f"tune.storage={url}", "tune.space={training.epochs: [2, 4]}", "tune.trials=9")
    trial = build_trial_config(config, {"training.batch_size": 2, "compression.steps": ["cluster"]}, seed=5)
    assert trial.data.test_path == "" != config.data.test_path
    assert trial.tune == TuneConfig() and "s3cret" not in to_yaml(trial)
    changed = {key for key, value in flatten(trial).items() if value != flatten(config)[key]}
    assert changed == {
        "data.test_path", "evaluation.split", "feedback.url", "tune.storage", "tune.space", "tune.trials",
        "training.batch_size", "seed", "compression.steps",
    }  # fmt: skip
    assert trial.compression.steps == ("cluster",)


def test_a_compression_is_scored_by_its_file_and_sees_no_test_corpus():
    config = load("tune.objectives=score,size", "compression.trim_vocabulary.other_path=data/sample/test.conll")
    trial = build_trial_config(config, {})
    assert trial.evaluation.split == "valid" and trial.export.formats == ("int8",)
    assert trial.compression.trim_vocabulary.other_path == trial.data.test_path == ""


def test_settings_that_do_not_go_together_are_told():
    with pytest.raises(InputError, match=r"the overlap must be smaller .* received data.overlap_tokens=300"):
        build_trial_config(load(), {"data.overlap_tokens": 300})


def test_the_sample_config_is_what_the_mode_does_by_itself():
    run_dir = RunDirectory("runs/tune")
    project = Path(__file__).parents[2]
    assert load_run_config("tune", run_dir, str(project / "configs" / "tune_sample.yaml"), []) == load_run_config(
        "tune", run_dir, None, []
    )
    real = load_run_config("tune", run_dir, str(project / "configs" / "tune_conll2003.yaml"), [])
    require_search(real, run_dir=run_dir.path)

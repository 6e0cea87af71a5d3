"""A study that another program has written to is refused in a sentence, and may be thrown away."""

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from app.config import InputError
from app.config.loading import load_config
from app.search.space import build_distribution, suggest
from app.search.stored import DamagedStudyError, check_trials
from app.search.study import open_studies

RATE, HEAD = "training.learning_rate", "model.head"
SPACE = {RATE: {"low": 1e-5, "high": 1e-3, "log": True}, HEAD: ["crf", "softmax"]}
DISTRIBUTIONS = {key: build_distribution(values) for key, values in SPACE.items()}
CONFIG = load_config(None, [f"tune.space={{{RATE}: {{low: 1e-5, high: 1e-3, log: true}}, {HEAD}: [crf, softmax]}}"])
OWNER = {"token": "x", "machine": "m", "host": "h", "pid": 1, "started": "5", "beat": 1.5}


def check(trial, *, required=(), number: int = 0) -> None:
    trial.number = number
    check_trials([trial], distributions=DISTRIBUTIONS, objectives=1, required=required, where="the search 'a' in x.db")


def make(*, params=None, distributions=None, attributes=None, **settings):
    params = {RATE: 1e-4, HEAD: "crf"} if params is None else params
    own = {key: (distributions or DISTRIBUTIONS)[key] for key in params}
    settings = {"value": 0.5} | settings
    return create_trial(params=params, distributions=own, user_attrs=attributes or {}, **settings)


def test_what_a_search_leaves_is_taken():
    about = {"owner": OWNER, "seconds": 2, "epochs": 3, "reason": "", "values": {"score": 0.5}}
    check(make(attributes=about, intermediate_values={1: 0.5, 2: float("nan")}))
    check(make(attributes={"owner": None, "reason": None, "trial": -1, "seed": 5}), required=("trial", "seed"))
    check(make(state=TrialState.RUNNING, value=None, params={}))
    check(make(state=TrialState.FAIL, value=None, params={RATE: 1e-5}))


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ({"epochs": "many"}, "epochs='many', it must be a whole number"),
        ({"epochs": True}, "epochs=True, it must be a whole number"),
        ({"seconds": -1}, "seconds=-1, it must be a number, at least 0"),
        ({"seconds": float("nan")}, "seconds=nan, it must be a number"),
        ({"reason": [1]}, r"reason=\[1\], it must be a text"),
        ({"values": {"score": "x"}}, "values={'score': 'x'}, it must be a mapping of names to numbers"),
        ({"owner": {**OWNER, "pid": "1"}}, "owner={.*}, it must be a mapping of token, machine, "),
        ({"owner": "me"}, "owner='me', it must be a mapping of token, machine, "),
        ({"trial": 1}, "no seed, it must be a whole number"),
        ({"trial": 1.5, "seed": 1}, "trial=1.5, it must be a whole number"),
    ],
)
def test_an_attribute_that_no_search_writes_is_named_with_what_it_must_be(attribute, says):
    required = ("trial", "seed") if "trial" in attribute else ()
    with pytest.raises(DamagedStudyError, match=f"^trial 0 of the search 'a' in x.db holds {says}.*start over"):
        check(make(attributes=attribute), required=required)


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (make(params={RATE: 1e-4}), "no model.head, it must be one of crf, softmax"),
        (make(params={RATE: 1e-4, HEAD: "crf", "x": 2}, distributions={**DISTRIBUTIONS, "x": IntDistribution(1, 2)}),
         "x=2, it must be left out, as tune.space does not have it"),
        (make(params={RATE: 0.5, HEAD: "crf"}, distributions={**DISTRIBUTIONS, RATE: FloatDistribution(0, 1)}),
         "training.learning_rate=0.5 of a number from 0.0 to 1.0, it must be a number from 1e-05 to 0.001"),
        (make(params={HEAD: "x"}, distributions={HEAD: CategoricalDistribution(["x"])}),
         "model.head='x' of one of x, it must be one of crf, softmax"),
        (make(value=None, values=[1.0, 2.0]), r"values \[1.0, 2.0\], it must be 1 finite number, as it is"),
        (make(intermediate_values={"x": 0.5}), "the score 0.5 after epoch 'x', it must be"),
        (make(intermediate_values={1: "x"}), "the score 'x' after epoch 1, it must be"),
    ],
)  # fmt: skip
def test_settings_and_scores_that_no_search_makes_are_named(trial, says):
    with pytest.raises(DamagedStudyError, match=says):
        check(trial)


def test_a_trial_that_is_gone_is_missed():
    with pytest.raises(DamagedStudyError, match="the search 'a' in x.db has 1 trials, but no trial 0"):
        check(make(), number=1)


def open_both(file: Path, **options):
    return open_studies(CONFIG, file=file, name="a", **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The database of a search of one trial."""
    file = tmp_path_factory.mktemp("stored") / "study.db"
    with open_both(file) as (study, _):
        claim = study.claim(lambda _: {})
        suggest(claim.trial, CONFIG.tune.space)
        study.finish(claim, TrialState.COMPLETE, values=[0.5], about={"epochs": 1})
    return file


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE trial_user_attributes SET value_json = '{'", "the search 'a' in .*study.db cannot be read .JSONDecod"),
        ("UPDATE trial_params SET distribution_json = '[]'", "the search 'a' in .*study.db cannot be read"),
        ("UPDATE trial_values SET value_type = 'INF_POS'", "the search 'a' in .*study.db cannot be read .AssertionErr"),
        ("UPDATE study_user_attributes SET value_json = '{'", "the search 'a' in .*JSONDecodeError"),
        ("UPDATE study_user_attributes SET value_json = '[1]'", "holds a study 'a' that --mode=tune has not made"),
        ("UPDATE study_directions SET direction = 'MINIMIZE'", "holds a study 'a' that --mode=tune has not made"),
    ],
)
def test_a_damaged_database_is_refused_in_a_sentence_and_can_be_started_over(finished, tmp_path, damage, says):
    file = tmp_path / "study.db"
    file.write_bytes(finished.read_bytes())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(InputError, match=says):
        with open_both(file) as (study, _):
            study.trials()
    with open_both(file, anew=True) as (study, _):
        assert study.trials() == []


def test_a_database_that_is_too_damaged_to_delete_a_search_from_is_told(finished, tmp_path):
    file = tmp_path / "study.db"
    file.write_bytes(finished.read_bytes())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE trials SET state = 'DONE'")
    for anew, says in ((False, "start over with --overwrite"), (True, "another tune.study")):
        with pytest.raises(InputError, match=f"the search 'a' in .* cannot be read .LookupError: 'DONE'.*{says}"):
            with open_both(file, anew=anew) as (study, _):
                study.trials()


def test_settings_that_another_program_asks_for_are_tried_and_impossible_ones_are_told(tmp_path):
    file = tmp_path / "study.db"
    with open_both(file) as (study, _):
        theirs = optuna.load_study(study_name="a", storage=f"sqlite:///{file}")
        for asked in ({RATE: 5e-4}, {RATE: 0.5}, {HEAD: [1]}, {"training.epochs": 3}):
            theirs.enqueue_trial(asked)
        claims = [study.claim(lambda _: None) for _ in range(4)]
        assert [(claim.number, claim.resumed) for claim in claims] == [(0, False), (1, False), (2, False), (3, False)]
        assert suggest(claims[0].trial, CONFIG.tune.space)[RATE] == 5e-4
        for claim, says in zip(claims[1:], ("0.5.*1e-05 to 0.001", "crf, softmax", "only training"), strict=True):
            with pytest.raises(InputError, match=f"another program asks for .*{says}"):
                suggest(claim.trial, CONFIG.tune.space)

"""Trials that processes share: each number once, none lost, whoever dies."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from app.config import InputError, with_values
from app.config.loading import load_config
from app.config.rules import require_search
from app.run.directory import Request, RunDirectory
from app.search import study as study_module
from app.search.choosing import most_epochs
from app.search.job import ForkServer
from app.search.search import check_folders, open_directory
from app.search.space import suggest
from app.search.study import LostTrialError, SharedStudy, open_studies
from app.search.trial import run_trial

PROJECT = Path(__file__).parents[2]
SETTINGS = ["tune.space={training.learning_rate: {low: 1e-5, high: 1e-3, log: true}}", "tune.trials=5"]

# A process that claims trials until there are as many as asked for and says their numbers; or dies with one in hand.
CLAIM = """
import json, os, sys
from pathlib import Path
from optuna.trial import TrialState
from app.config.loading import load_config
from app.search.study import open_studies
url, settings, dies = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "dies"
config = load_config(None, [*settings, f"tune.storage={url}"])
with open_studies(config, file=Path("none"), name="a") as (study, _):
    while claim := study.claim(lambda trials: {} if len(trials) < config.tune.trials else None):
        rate = claim.trial.suggest_float("training.learning_rate", 1e-5, 1e-3, log=True)
        print(json.dumps([claim.number, rate]), flush=True)
        if dies:
            os.kill(os.getpid(), 9)
        study.finish(claim, TrialState.COMPLETE, values=[rate], about={"epochs": 1})
"""


def start(url: str, settings: list[str], *, dies: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLAIM, url, json.dumps(settings), "dies" if dies else ""]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def numbers(process: subprocess.Popen[str]) -> list[list]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -9), errors
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def config(url):
    return load_config(None, [*SETTINGS, f"tune.storage={url}"])


def new(trials) -> dict:
    return {}


def test_trials_of_a_killed_process_are_gone_on_with_and_two_processes_share_the_rest(url):
    ((killed, rate),) = numbers(start(url, SETTINGS, dies=True))
    processes = [start(url, SETTINGS) for _ in range(2)]
    found = [each for process in processes for each in numbers(process)]
    assert sorted(number for number, _ in found) == list(range(5))
    assert [killed, rate] in found  # the same settings under the same number
    with open_studies(load_config(None, [*SETTINGS, f"tune.storage={url}"]), file=Path("no"), name="a") as (study, _):
        trials = study.trials()
    assert [trial.number for trial in trials] == list(range(5))
    assert all(trial.state == TrialState.COMPLETE and trial.values == [trial.params[key]] for trial in trials
               for key in trial.params)  # fmt: skip


def test_a_trial_that_is_released_is_the_next_one_and_one_that_is_held_is_not(config):
    with open_studies(config, file=Path("no"), name="a") as (study, seeds):
        first, second = study.claim(new), study.claim(new)
        assert (first.number, second.number, first.resumed) == (0, 1, False)
        study.release(first)
        again = study.claim(new)
        assert (again.number, again.resumed) == (0, True) and study.claim(lambda _: None) is None
        assert seeds.claim(lambda _: None) is None


def test_a_trial_is_finished_once_and_by_whoever_has_it(config):
    with open_studies(config, file=Path("no"), name="a") as (study, _):
        claim = study.claim(new)
        study.beat(claim)
        study.release(claim)
        other = study.claim(new)
        for act in (study.beat, study.release, lambda lost: study.finish(lost, TrialState.FAIL, about={})):
            with pytest.raises(LostTrialError, match="trial 0 was taken over"):
                act(claim)
        suggest(other.trial, config.tune.space)
        study.finish(other, TrialState.COMPLETE, values=[0.5], about={"epochs": 3})
        with pytest.raises(LostTrialError):
            study.finish(other, TrialState.COMPLETE, values=[0.7], about={})
        (trial,) = study.trials()
        assert (trial.values, trial.user_attrs["epochs"]) == ([0.5], 3)


def test_a_process_of_another_machine_is_given_time(config, monkeypatch):
    with open_studies(config, file=Path("no"), name="a") as (study, _):
        claim = study.claim(new)
        monkeypatch.setattr(study_module, "machine", lambda: "another")
        here: SharedStudy = study
        assert here.claim(lambda _: None) is None  # its beat was seen a first time
        monkeypatch.setattr(study_module, "GRACE_SECONDS", 0.0)
        taken = here.claim(lambda _: None)
        assert taken.number == claim.number and taken.resumed


def test_an_interruption_counts_though_another_process_has_the_trial_by_now(tmp_path):
    config = load_config(None, SETTINGS)
    with open_studies(config, file=tmp_path / "study.db", name="a") as (study, _):
        claim = study.claim(new)

        class SlowToStop(ForkServer):
            def load(self):
                pass

            def start(self, *_, **__):
                study.release(claim)
                assert study.claim(new).number == claim.number
                raise KeyboardInterrupt

        server, log = SlowToStop("finetune", tmp_path / "server.txt"), tmp_path / "log.txt"
        with pytest.raises(KeyboardInterrupt):
            run_trial(
                server, study, claim, config, folder=tmp_path / "0", log=log, label="", on_epoch=lambda *_: False
            )


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_what_a_trial_tries_depends_on_its_number_and_not_on_the_process(tmp_path, sampler):
    def first_values(folder: Path, *, seed: int) -> list[float]:
        config = with_values(load_config(None, SETTINGS), {"seed": seed, "tune.sampler": sampler})
        with open_studies(config, file=folder / "study.db", name="a") as (study, _):
            claims = [study.claim(new) for _ in range(2)]
            return [claim.trial.suggest_float("training.learning_rate", 1e-5, 1e-3, log=True) for claim in claims]

    one, same, other = (first_values(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one == same != other and one[0] != one[1]


def test_a_search_of_other_settings_does_not_join_in(config, url):
    with open_studies(config, file=Path("no"), name="a"):
        pass
    longer = with_values(config, {"tune.trials": 50, "tune.sampler": "random"})
    with open_studies(longer, file=Path("no"), name="a"):
        pass
    changed = with_values(config, {"training.epochs": 99})
    with pytest.raises(InputError, match=r"other settings: training.epochs was 12, now 99; .* another tune.study"):
        with open_studies(changed, file=Path("no"), name="a"):
            pass
    with open_studies(with_values(changed, {"tune.study": "b"}), file=Path("no"), name="a"):
        pass


def test_a_search_that_starts_over_forgets_its_trials_unless_somebody_works_on_one(config, monkeypatch):
    with open_studies(config, file=Path("no"), name="a") as (study, _):
        claim = study.claim(new)
        with pytest.raises(InputError, match=r"--overwrite would delete the search 'a', at which .* process \d+ on"):
            with open_studies(config, file=Path("no"), name="a", anew=True):
                pass
        other = with_values(config, {"tune.space": {"model.head": ["crf", "softmax"]}})
        suggest(claim.trial, config.tune.space)  # which the other search has not
        with pytest.raises(InputError, match="--overwrite would delete the search 'a'"):
            with open_studies(other, file=Path("no"), name="a", anew=True):
                pass
        study.finish(claim, TrialState.FAIL, about={"reason": "x"})
    with open_studies(with_values(config, {"training.epochs": 99}), file=Path("no"), name="a", anew=True) as (study, _):
        assert study.trials() == []


@pytest.mark.parametrize("storage", ["", "sqlite:///elsewhere.db"])
def test_nothing_is_deleted_while_a_process_of_the_search_holds_no_folder(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a process that has claimed a trial and loads TensorFlow
    config = load_config(None, [*SETTINGS, f"tune.storage={storage}"])
    request = Request(config, run_dir := RunDirectory(tmp_path / "run"))
    open_directory(request)
    with open_studies(config, file=run_dir.study, name="run") as (study, _):
        claim = study.claim(new)
        with pytest.raises(InputError, match="--overwrite would delete the search 'run', at which another process"):
            open_directory(replace(request, overwrite=True))
        assert run_dir.is_run() and len(study.trials()) == 1
        study.finish(claim, TrialState.FAIL, about={"reason": "x"})
    open_directory(replace(request, overwrite=True))
    assert run_dir.study.exists() is False


def test_trainings_with_seeds_alone_are_gone_on_with_and_not_replaced_by_those_of_other_settings(tmp_path, capsys):
    config = load_config(None, ["tune.trials=0"])
    request = Request(config, run_dir := RunDirectory(tmp_path / "run"))
    open_directory(request)
    (run_dir.seeds / "unchanged-seed1").mkdir(parents=True)
    assert capsys.readouterr().err == ""
    open_directory(request)
    assert capsys.readouterr().err == f"going on with the search in {run_dir}\n"
    with pytest.raises(InputError, match="holds a run with another configuration: training.epochs was .*, now 99"):
        open_directory(replace(request, config=with_values(config, {"training.epochs": 99})))
    assert (run_dir.seeds / "unchanged-seed1").exists()


def test_a_search_whose_own_database_is_damaged_can_start_over(tmp_path):
    request = Request(load_config(None, SETTINGS), run_dir := RunDirectory(tmp_path / "run"))
    open_directory(request)
    run_dir.study.write_text("no database")
    open_directory(replace(request, overwrite=True))
    assert not run_dir.study.exists()


def test_no_file_of_a_search_has_the_password_of_its_database(tmp_path, monkeypatch):
    flag = "tune.storage=postgresql://me:s3cret@host/name"
    monkeypatch.setattr(sys, "argv", ["app.main", f"--set={flag}"])
    request = Request(load_config(None, [*SETTINGS, flag]), RunDirectory(tmp_path / "run"))
    for _ in range(2):  # it goes on, too
        open_directory(request)
    written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert "s3cret" not in written and "postgresql://***@host/name" in written
    assert request.run_dir.read_config().tune.trials == 5


def test_a_password_is_not_shown_where_the_database_cannot_be_reached():
    config = load_config(None, [*SETTINGS, "tune.storage=postgresql://me:s3cret@127.0.0.1:1/name"])
    with pytest.raises(InputError) as raised:
        with open_studies(config, file=Path("no"), name="a"):
            pass
    assert "tune.storage: postgresql://me:***@127.0.0.1:1/name cannot be used" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_postgresql_without_its_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as Python marks what cannot be imported
    with pytest.raises(InputError, match=r"psycopg is not installed: pip install 'psycopg\[binary\]'"):
        with open_studies(load_config(None, [*SETTINGS, "tune.storage=postgresql://h/n"]), file=Path("no"), name="a"):
            pass


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "study.db").write_text("no database at all, but long enough to be looked at " * 40)
    with pytest.raises(InputError, match=r"study.db cannot be used: .*not a database"):
        with open_studies(load_config(None, SETTINGS), file=tmp_path / "study.db", name="a"):
            pass


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"], ["maximize"]])
def test_a_study_that_is_not_ours_is_left_alone(tmp_path, directions):
    file = tmp_path / "study.db"
    theirs = optuna.create_study(study_name="a", storage=f"sqlite:///{file}", directions=directions)
    theirs.ask()  # a trial under way, which nobody is to take over
    with pytest.raises(InputError, match=r"study.db holds a study 'a' that --mode=tune has not made; .*tune.study"):
        with open_studies(load_config(None, SETTINGS), file=file, name="a"):
            pass
    assert [trial.user_attrs for trial in theirs.trials] == [{}]


def test_a_database_of_another_optuna_is_named(tmp_path):
    file, config = tmp_path / "study.db", load_config(None, SETTINGS)
    with open_studies(config, file=file, name="a"):
        pass
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    with pytest.raises(InputError, match=r"tune.storage: .*study.db was made by another version of Optuna"):
        with open_studies(config, file=file, name="a"):
            pass


@pytest.mark.parametrize("storage", ["sqlite:///:memory:", "sqlite:///?mode=memory", "sqlite:///file:x?uri=true"])
def test_a_database_without_a_file_keeps_no_search(storage, tmp_path):
    with pytest.raises(InputError, match=r"tune.storage must be sqlite:///FILE or"):
        require_search(load_config(None, [*SETTINGS, f"tune.storage={storage}"]), run_dir=tmp_path)


def test_trials_of_a_study_that_is_lost_are_not_mixed_with_new_ones(tmp_path):
    run_dir = RunDirectory(tmp_path / "run")
    with open_studies(load_config(None, SETTINGS), file=tmp_path / "study.db", name="a") as (study, _):
        study.claim(new)
        for number in (0, 1):
            check_folders(run_dir, study)
            (run_dir.trials / str(number)).mkdir(parents=True)
        with pytest.raises(InputError, match=r"trials holds trials of another search, such as 1: .*--overwrite"):
            check_folders(run_dir, study)


@pytest.mark.parametrize(("epochs", "most"), [("[2, 9, 4]", 9), ("{low: 1, high: 7}", 7)])
def test_epochs_can_be_searched_themselves(epochs, most):
    config = load_config(None, [f"tune.space={{training.epochs: {epochs}}}", "training.epochs=3"])
    assert most_epochs(config) == most and most_epochs(load_config(None, ["training.epochs=3"])) == 3

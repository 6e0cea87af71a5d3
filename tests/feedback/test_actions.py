"""What is done with a run and its store in one command."""

import json
from pathlib import Path

import pytest

from app.config import Config, InputError, with_values
from app.config.update import UpdateConfig
from app.feedback.actions import act, check_agreement
from app.feedback.store import Correction, Store
from app.feedback.versions import keep_stable, read_labels, set_label
from app.run.directory import Request, RunDirectory


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A run with three versions, as far as labels are concerned: 2 is live, 3 is on trial."""
    run_dir = RunDirectory(tmp_path / "ner")
    for version in (1, 2, 3):
        folder = run_dir.saved_model / str(version)
        (folder / "assets.extra").mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        about = {"task": "tagging", "model": "ner", "title": "", "labels": [], "sample_text": ""}
        (folder / "assets.extra" / "about.json").write_text(json.dumps(about))
        set_label(run_dir.path, "canary" if version == 3 else "stable", version)
    return run_dir


@pytest.fixture
def store(run):
    with Store.open(f"sqlite:///{run.path}/feedback.sqlite") as opened:
        yield opened


def judge(store: Store, *, version: int, accepted: int, fixed: int) -> None:
    verdicts = ["accepted"] * accepted + ["fixed"] * fixed
    store.add(
        Correction(f"text {number}", "tagging", {"entities": []}, model="ner", version=version, verdict=verdict)
        for number, verdict in enumerate(verdicts)
    )


def do(run: RunDirectory, **settings) -> dict[str, float]:
    return act(Request(with_values(Config(), {f"update.{name}": value for name, value in settings.items()}), run))


def served(run: RunDirectory) -> str:
    return (run.path / "export" / "models.config").read_text()


@pytest.mark.parametrize(
    ("asked", "stable", "canary"), [("stable", 3, 0), ("1", 1, 3), ("3", 3, 0)]
)
def test_a_version_goes_live(run, asked, stable, canary):
    assert do(run, promote=asked) == {"update/stable": stable}
    labels = read_labels(run.path)
    assert (labels.stable, labels.canary) == (stable, canary)
    assert f'key: "stable" value: {stable}' in served(run) and ('"canary"' in served(run)) == bool(canary)


def test_the_newest_version_is_tried(run):
    set_label(run.path, "canary", 0)
    assert do(run, promote="canary") == {"update/canary": 3}
    assert read_labels(run.path).canary == 3


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("7", "has no such version, its versions are 1, 2, 3"),
        ("2", "is live already"),
        ("new", "must be stable, canary"),
    ],
)
def test_what_cannot_go_live_is_told(run, asked, part):
    with pytest.raises(InputError, match=part):
        do(run, promote=asked)
    assert read_labels(run.path).stable == 2


def test_a_roll_back_takes_the_version_before_until_there_is_none(run):
    assert do(run, roll_back=True) == {"update/stable": 1} and 'key: "stable" value: 1' in served(run)
    with pytest.raises(InputError, match="no version before 1"):
        do(run, roll_back=True)


def test_one_thing_is_done_at_a_time(run):
    with pytest.raises(InputError, match="update.promote and update.roll_back are set: each does one thing"):
        do(run, promote="stable", roll_back=True)


def check(run: RunDirectory, store: Store, **settings) -> tuple[list[str], list[str]]:
    told: list[str] = []
    config = UpdateConfig(rollback_answers=20, **settings)
    return check_agreement(run, store, config, model="ner", tell=told.append), told


def test_a_version_that_people_agree_with_too_seldom_is_taken_back(run, store):
    judge(store, version=2, accepted=4, fixed=16)
    judge(store, version=3, accepted=18, fixed=2)
    (done,), told = check(run, store)
    assert "version 1 of" in done and "is live again, 2 is not any more" in done and len(told) == 3
    labels = read_labels(run.path)
    assert (labels.stable, labels.canary) == (1, 3)
    assert labels.history[-1].why.startswith("rolled back: people accepted")
    assert 'key: "stable" value: 1' in served(run)
    assert check(run, store)[0] == []  # what was said of version 2 is not held against version 1


@pytest.mark.parametrize(("label", "then", "expected"), [("stable", 0, (2, 0)), ("canary", 1, (2, 1))])
def test_what_another_server_takes_back_meanwhile_is_not_taken_back_again(run, store, label, then, expected):
    set_label(run.path, label, 3)
    judge(store, version=3, accepted=3, fixed=17)
    other = []

    def tell(sentence: str) -> None:
        if sentence.startswith(f"version 3 ({label})") and not other:
            other.extend(check(run, store)[0])
            set_label(run.path, "canary", then)

    check_agreement(run, store, UpdateConfig(rollback_answers=20), model="ner", tell=tell)
    labels = read_labels(run.path)
    assert len(other) == 1 and (labels.stable, labels.canary) == expected


def test_a_canary_that_people_agree_with_too_seldom_is_not_on_trial_any_more(run, store):
    judge(store, version=3, accepted=3, fixed=17)
    (done,), _ = check(run, store)
    assert "version 3 of" in done and (read_labels(run.path).stable, read_labels(run.path).canary) == (2, 0)


@pytest.mark.parametrize(
    ("accepted", "fixed", "settings"),
    [(2, 17, {}), (12, 8, {}), (9, 11, {}), (0, 20, {"rollback_agreement": 0.0})],
)
def test_nothing_is_taken_back_on_few_answers_or_enough_agreement(run, store, accepted, fixed, settings):
    judge(store, version=2, accepted=accepted, fixed=fixed)
    done, told = check(run, store, **settings)
    assert done == [] and len(told) == 2 and read_labels(run.path).stable == 2


def test_a_first_version_stays_since_there_is_nothing_to_go_back_to(tmp_path):
    run_dir = RunDirectory(tmp_path / "one")
    folder = run_dir.saved_model / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    keep_stable(run_dir.path)
    with Store.open(f"sqlite:///{run_dir.path}/feedback.sqlite") as store:
        judge(store, version=1, accepted=0, fixed=20)
        done, told = check(run_dir, store)
    assert done == [] and told[-1] == "there is no version before 1 to go back to"

def test_a_version_stays_if_people_agreed_no_more_often_with_the_one_before(run, store):
    judge(store, version=1, accepted=0, fixed=20)
    judge(store, version=2, accepted=2, fixed=18)
    done, told = check(run, store)
    assert done == [] and told[-1] == "people agreed no more often with the version before it, so it stays"
    assert read_labels(run.path).stable == 2


def test_an_export_overwrites_nothing(run, store, tmp_path):
    for there in (run.path / "config.yaml", Path(store.database._engine.url.database)):
        there.touch()
        before = there.read_bytes()
        with pytest.raises(InputError, match="is there already: name a new file"):
            do(run, export_path=str(there))
        assert there.read_bytes() == before


def test_the_check_is_one_command(run, store):
    judge(store, version=2, accepted=0, fixed=20)
    assert do(run, check=True, rollback_answers=20) == {"update/rolled_back": 1}
    assert read_labels(run.path).stable == 1


def test_everything_said_is_exported_as_jsonl_and_the_last_word_in_other_forms(run, store, tmp_path):
    both = [Correction("Ada", "tagging", {"entities": []}), Correction("Ada", "tagging", {"entities": [
        {"start": 0, "end": 3, "label": "PER"}]})]  # fmt: skip
    store.add(both)
    assert do(run, export_path=str(tmp_path / "all.jsonl")) == {"update/exported": 2, "update/left_out": 0}
    assert do(run, export_path=str(tmp_path / "last.conll")) == {"update/exported": 1, "update/left_out": 0}
    assert "Ada B-PER" in Path(tmp_path / "last.conll").read_text().replace("\t", " ")


def test_what_somebody_said_is_deleted_by_author_or_text(run, store):
    texts = {"Ada": "ann", "Bob": "ann", "Cleo": "bob", "Dan": "bob"}
    store.add(Correction(text, "tagging", {"entities": []}, author=author) for text, author in texts.items())
    assert do(run, delete_author="ann") == {"update/deleted": 2}
    assert do(run, delete_text="Dan") == {"update/deleted": 1}
    assert [each.text for each in store.read()] == ["Cleo"]


def test_the_store_is_named_by_its_file(run, store, tmp_path, capfd):
    judge(store, version=1, accepted=1, fixed=0)
    do(run, export_path=str(tmp_path / "f.jsonl"))
    assert f"1 correction of {run.path}/feedback.sqlite is in {tmp_path}/f.jsonl, as jsonl" in capfd.readouterr().err

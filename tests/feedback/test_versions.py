"""Labels on the versions of an exported model."""

import json
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from app.config import InputError, UpdateConfig
from app.feedback.actions import check_agreement
from app.feedback.store import Correction, Store
from app.feedback.versions import (
    Labels,
    find_versions,
    keep_stable,
    labels_path,
    read_labels,
    roll_back,
    set_label,
    should_roll_back,
    wilson_upper,
    write_models_config,
)
from app.run.directory import RunDirectory


def export(run_dir: Path, version: int | str) -> None:
    folder = run_dir / "export" / "saved_model" / str(version)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")


@pytest.fixture
def run_dir(tmp_path) -> Path:
    for version in (1, 2, 3, 10):
        export(tmp_path, version)
    (tmp_path / "export" / "saved_model" / "11").mkdir()  # still being written
    export(tmp_path, ".tmp-12")
    return tmp_path


def moves(labels: Labels) -> list[tuple[str, int, int]]:
    return [(each.label, each.before, each.after) for each in labels.history]


def test_without_a_file_the_newest_complete_version_is_stable(run_dir, tmp_path):
    assert find_versions(run_dir) == [1, 2, 3, 10]
    assert read_labels(run_dir) == Labels(stable=10)
    assert read_labels(tmp_path / "none") == Labels()
    export(run_dir, 12)
    assert read_labels(run_dir).stable == 12


def test_labels_are_kept_with_their_history(run_dir):
    set_label(run_dir, "canary", 3, "a try")
    set_label(run_dir, "stable", 3, "better")
    labels = read_labels(run_dir)
    assert (labels.stable, labels.canary, labels.of(3), labels.of(10)) == (3, 0, ["stable"], [])
    assert moves(labels) == [("canary", 0, 3), ("canary", 3, 0), ("stable", 10, 3)]
    content = json.loads(labels_path(run_dir).read_text())
    assert (content["stable"], content["canary"]) == (3, None)
    assert content["history"][-1][1:] == ["stable", 10, 3, "better"]
    assert [path.name for path in labels_path(run_dir).parent.iterdir() if path.name.startswith(".")] == []


def test_a_canary_can_be_taken_away_and_stable_cannot(run_dir):
    set_label(run_dir, "canary", 2)
    assert set_label(run_dir, "canary", None).canary == 0
    with pytest.raises(InputError, match="no version 0 for the label 'stable'; its versions are 1, 2, 3, 10"):
        set_label(run_dir, "stable", 0)
    with pytest.raises(InputError, match="no version 11 "):
        set_label(run_dir, "canary", 11)
    with pytest.raises(InputError, match="stable or canary, received 'beta'"):
        set_label(run_dir, "beta", 1)
    with pytest.raises(InputError, match="has no exported model"):
        set_label(run_dir / "none", "stable", 1)


def test_a_new_version_on_trial_does_not_go_live(run_dir):
    assert keep_stable(run_dir).stable == 10
    export(run_dir, 12)
    assert read_labels(run_dir).stable == 10
    set_label(run_dir, "canary", 12)
    assert keep_stable(run_dir) == read_labels(run_dir)
    assert (read_labels(run_dir).stable, read_labels(run_dir).canary) == (10, 12)


def test_rolling_back_goes_to_what_was_stable_before_and_then_further(run_dir):
    keep_stable(run_dir)
    set_label(run_dir, "stable", 2)
    set_label(run_dir, "stable", 3)
    assert roll_back(run_dir, "worse") == 2
    assert read_labels(run_dir).history[-1][1:] == ("stable", 3, 2, "rolled back: worse")
    assert roll_back(run_dir, "rolled back by Ada") == 10
    assert read_labels(run_dir).history[-1].why == "rolled back by Ada"
    assert roll_back(run_dir) == 3  # nothing was stable before 10: the next lower number
    assert read_labels(run_dir).stable == 3


def test_rolling_back_passes_over_deleted_versions_and_ends(run_dir):
    import shutil

    keep_stable(run_dir)
    set_label(run_dir, "stable", 2)
    set_label(run_dir, "stable", 3)
    shutil.rmtree(run_dir / "export" / "saved_model" / "2")
    assert roll_back(run_dir) == 10
    set_label(run_dir, "stable", 1)
    for version in (3, 10):
        shutil.rmtree(run_dir / "export" / "saved_model" / str(version))
    with pytest.raises(InputError, match="has no version before 1 to roll back to"):
        roll_back(run_dir)


def test_a_run_without_labels_rolls_back_to_the_version_before(run_dir):
    assert [roll_back(run_dir), roll_back(run_dir), roll_back(run_dir)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ("[]", "it is no object"),
        ('{"stable": "3"}', '"3" is no version'),
        ('{"stable": -1}', "-1 is no version"),
        ('{"stable": 1, "history": [1]}', "history must be a list of"),
        ('{"stable": 1, "history": [["now", "stable"]]}', "history must be a list of"),
        ('{"stable": 1, "history": [["now", "stable", 1, "2", ""]]}', '"2" is no version'),
        ('{"stable": 1, "history": null}', "its values are of another form"),
        ('{"stable": 1, "history": {"a": 1}}', "history must be a list of"),
        ("{", "wrong at character 2"),
        ('{"stable": ' + "9" * 5000 + "}", "it has a number of too many digits"),
        ("[" * 100_000, "it is nested too deeply"),
        (b"\xff\xff", "byte 0 is not UTF-8"),
    ],
)
def test_a_damaged_file_is_explained_without_words_of_python(run_dir, content, why):
    labels_path(run_dir).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r'labels.json must be as \{"stable": 3') as raised:
        read_labels(run_dir)
    assert f"({why}" in str(raised.value)


def test_changes_at_the_same_time_are_all_kept(run_dir):
    def change(version: int) -> None:
        for _ in range(10):
            set_label(run_dir, "canary", version)
            set_label(run_dir, "canary", 0)

    threads = [threading.Thread(target=change, args=(version,)) for version in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = read_labels(run_dir).history
    assert len(history) >= 20
    assert all(one.before != one.after for one in history)
    assert all(one.after == other.before for one, other in pairwise(history))


def test_tensorflow_serving_reads_the_models_config(run_dir):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    set_label(run_dir, "stable", 3)
    set_label(run_dir, "canary", 10)
    name, folder = 'n"e\\r\u00e9', "/models/with \"quotes\" and \\ and \n"
    path = write_models_config(run_dir, name=name, base_path=folder)
    assert path == run_dir / "export" / "models.config"
    read = text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
    (model,) = read.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (name, folder, "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [3, 10]
    assert dict(model.version_labels) == {"stable": 3, "canary": 10}


def test_the_models_config_of_a_run_without_labels_has_its_newest_version(run_dir, tmp_path):
    text = write_models_config(run_dir, path=tmp_path / "own.config").read_text()
    assert 'name: "ner"' in text and "specific { versions: 10 }" in text
    assert f'base_path: "{run_dir}/export/saved_model"' in text
    about = run_dir / "export" / "saved_model" / "10" / "assets.extra" / "about.json"
    about.parent.mkdir()
    about.write_text('{"task": "classification", "model": "classify", "title": "", "labels": [], "sample_text": ""}')
    assert 'name: "classify"' in write_models_config(run_dir).read_text()
    with pytest.raises(InputError, match="has no version to serve"):
        write_models_config(tmp_path / "none", name="ner")


def test_the_wilson_interval_is_the_published_one():
    # Both ends of the two-sided 95 % interval have 97.5 % on their inner side; Newcombe (1998), table I.
    for hits, trials, upper in [(81, 263, 0.3662), (15, 148, 0.1605), (0, 20, 0.1611), (1, 29, 0.1718)]:
        assert wilson_upper(hits, trials, 0.975) == pytest.approx(upper, abs=5e-5)
    assert wilson_upper(7, 10, 0.5) == 0.7


@pytest.mark.parametrize(
    ("accepted", "judged", "expected"),
    [(0, 19, False), (0, 20, True), (14, 20, False), (12, 20, True), (70, 100, True), (76, 100, False)],
)
def test_a_version_goes_only_if_agreement_is_low_beyond_chance(accepted, judged, expected):
    must, why = should_roll_back(accepted, judged, bound=0.8, answers=20)
    assert must is expected, why


def test_the_plain_rate_decides_if_asked_for():
    assert should_roll_back(15, 20, bound=0.8, answers=20, confidence=0.5)[0]
    assert not should_roll_back(16, 20, bound=0.8, answers=20, confidence=0.5)[0]
    assert not should_roll_back(0, 20, bound=0, answers=20)[0]
    assert not should_roll_back(0, 0, bound=1, answers=0)[0]


def test_a_version_that_people_refuse_is_rolled_back_once_and_gets_another_chance(run_dir):
    def judge(version: int, verdict: str) -> None:
        answers = [Correction("a", "classification", {"label": "x"}, model="m", version=version, verdict=verdict)]
        store.add(answers * 10)

    def watch():
        config = UpdateConfig(rollback_agreement=0.8, rollback_answers=10)
        return check_agreement(RunDirectory(run_dir), store, config, model="m")

    with Store.open(f"sqlite:///{run_dir}/f.sqlite") as store:
        set_label(run_dir, "stable", 3)
        judge(3, "accepted")
        assert watch() == []
        judge(10, "accepted")  # of another version
        assert watch() == []
        judge(3, "fixed")
        set_label(run_dir, "stable", 3, "as it is")  # changes nothing
        assert watch() == [f"version 10 of {run_dir} is live again, 3 is not any more"]
        assert "people accepted 0 of 10 answers" in read_labels(run_dir).history[-1].why
        assert read_labels(run_dir).stable == 10
        assert watch() == []  # what was said before it became stable again
        set_label(run_dir, "stable", 3)
        assert watch() == []
        judge(3, "fixed")
        assert watch() == [f"version 10 of {run_dir} is live again, 3 is not any more"]

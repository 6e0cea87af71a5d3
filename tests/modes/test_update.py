"""`--mode=update` from the command line to the version that is live."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import toy
from taught import HELD_OUT, SETTINGS, command, corrections

from app.config import InputError, ServeConfig
from app.feedback.learning import is_held_out
from app.feedback.store import FILE_NAME, Correction, Store
from app.feedback.versions import read_labels
from app.run.directory import RunDirectory
from app.serving.runs import plan_versions
from app.tasks.bundle import load_model


def learn(folder: Path, *more: str, run: str = "ner-2") -> list[str]:
    return [*command(folder / run, init_from=folder / "ner"), *(f"--set={k}={v}" for k, v in SETTINGS.items()), *more]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def add(folder: Path, found: list[Correction]) -> None:
    with Store.open(f"sqlite:///{folder / 'ner' / FILE_NAME}") as store:
        store.add(found)


@pytest.fixture(scope="module")
def call(app_process):
    def run_app(*arguments: str, cwd: Path) -> tuple[int, str, str]:
        process = app_process(*arguments, cwd=cwd)
        output, messages = process.communicate(timeout=500)
        return process.returncode, output, messages

    return run_app


@pytest.fixture(scope="module")
def updated(trained_run, tmp_path_factory, call) -> tuple[Path, str, str]:
    """A run and an update of it that has passed: (their folder, what was printed, what was said)."""
    folder = tmp_path_factory.mktemp("updated")
    trained_run.copy(folder / "ner")
    add(folder, corrections(60))
    served = RunDirectory(folder / "ner")  # it has a TFLite file, so the update is to have one too
    served.write_json(served.tflite / "model.json", {"labels": [], "files": {"float32.tflite": {}}})
    status, output, messages = call(*learn(folder), cwd=folder)
    assert status == 0, messages
    return folder, output, messages


def test_an_update_that_is_better_goes_on_trial_beside_what_is_live(updated):
    folder, output, messages = updated
    metrics, record = read(folder / "ner-2" / "metrics.json"), read(folder / "ner-2" / "update.json")
    assert metrics["update/passed"] == 1 and record["verdict"]["passed"] and record["version"] == 2
    assert metrics["update/held_out/points_gained_low"] > 0
    assert metrics["update/held_out/entity_f1"] > metrics["update/held_out/entity_f1_before"] + 0.1
    assert metrics["update/test/entity_f1"] == metrics["test/entity_f1"]
    assert metrics["update/test/entity_f1_before"] == read(folder / "ner" / "metrics.json")["test/entity_f1"]
    held_out = sum(is_held_out(each.text, HELD_OUT) for each in corrections(60))
    assert metrics["update/held_out/texts"] == held_out and metrics["update/corrections"] == 60 - held_out
    assert metrics["update/replayed"] >= 60 - held_out  # sentences, of which a text may have several
    labels = read_labels(folder / "ner")
    assert (labels.stable, labels.canary) == (1, 2)
    assert "version_labels { key: \"canary\" value: 2 }" in (folder / "ner" / "export" / "models.config").read_text()
    provenance = [read(folder / f"ner/export/saved_model/{version}/assets.extra/provenance.json") for version in (1, 2)]
    assert [each["run"] for each in provenance] == [".", "../ner-2"]
    assert provenance[1]["weights_sha256"] == metrics["weights_sha256"] != provenance[0]["weights_sha256"]
    assert "version 2 of" in messages and "Update of ner: passed" in output
    kept = read(folder / "ner/export/tflite/2/model.json")
    assert list(kept["files"]) == ["float32.tflite"] and (folder / "ner/export/tflite/2/float32.tflite").is_file()


def test_an_update_is_an_ordinary_run_with_a_report_of_what_changed(updated):
    folder, *_ = updated
    run = RunDirectory(folder / "ner-2")
    assert len(run.read_history()) == SETTINGS["update.epochs"] and not run.checkpoints.exists()
    report, page = run.report_txt.read_text(), run.report_html.read_text()
    assert report.startswith("Update of ner: passed\n") and "Entity level (exact spans" in report
    assert "better: corrections held out, sentence" in report and "after   old [City LOC]" in report
    assert "What changed" in page and "Learning curve" in page
    assert load_model(run.model).labels == load_model(folder / "ner" / "model").labels
    assert "Named-entity tagger, updated" in (run.model / "README.md").read_text()
    assert run.read_config().init_from == str(folder / "ner") and run.read_state()["mode"] == "update"
    texts = [each.text for each in corrections(60)]
    assert not any(text in run.update_json.read_text() for text in texts)  # what the store forgets is not kept here


def copy_of(updated: tuple[Path, str, str], folder: Path) -> Path:
    """A copy of both runs that knows where it is."""
    copy = Path(shutil.copytree(updated[0], folder / "copy"))
    config = copy / "ner-2" / "config.yaml"
    config.write_text(config.read_text().replace(str(updated[0]), str(copy)))
    return copy


def forget_version(folder: Path) -> None:
    """Puts the runs back to where the update had passed and was not a version yet."""
    record = folder / "ner-2" / "update.json"
    record.write_text(json.dumps({name: value for name, value in read(record).items() if name != "version"}))
    for name in ("saved_model/2", "tflite/1", "tflite/2"):
        shutil.rmtree(folder / "ner" / "export" / name, ignore_errors=True)
    for name in ("labels.json", "models.config"):
        (folder / "ner" / "export" / name).unlink()


def test_the_same_command_again_trains_nothing_and_exports_nothing(updated, tmp_path, call):
    folder = copy_of(updated, tmp_path)
    before = read(folder / "ner-2" / "metrics.json")
    add(folder, corrections(20, seed=6))  # too late for this run
    settings = [each.replace(str(updated[0]), str(folder)) for each in learn(updated[0])]
    status, _, messages = call(*settings, cwd=folder)
    assert status == 0, messages
    assert read(folder / "ner-2" / "metrics.json") == before and "is version 2 of" in messages
    assert sorted(path.name for path in (folder / "ner" / "export" / "saved_model").iterdir()) == ["1", "2"]


def test_promotion_and_roll_back_are_one_command_without_tensorflow(updated, tmp_path, call):
    folder = shutil.copytree(updated[0], tmp_path / "copy")
    status, _, messages = call(*command(folder / "ner-2", update__promote="stable"), cwd=folder)
    assert (status, "version 2 of" in messages, "TensorFlow" in messages) == (0, True, False), messages
    assert (read_labels(folder / "ner").stable, read_labels(folder / "ner").canary) == (2, 0)
    serving = RunDirectory(folder / "ner"), ServeConfig(tflite_file="float32")
    assert plan_versions(*serving).stable.runtime == "tflite"
    status, _, messages = call(*command(folder / "ner", update__promote="stable"), cwd=folder)
    assert status == 2 and "no version of" in messages and "is on trial (canary)" in messages
    status, _, messages = call(*command(folder / "ner", update__roll_back="true"), cwd=folder)
    assert status == 0 and read_labels(folder / "ner").stable == 1, messages
    assert plan_versions(*serving).stable.runtime == "saved_model"
    config = (folder / "ner" / "export" / "models.config").read_text()
    assert "versions: 1 }" in config and "versions: 2" not in config


def test_the_next_update_starts_from_the_update_that_is_live(updated, tmp_path, call):
    from app.feedback.preparing import prepare
    from app.run.request import load_run_config

    folder = shutil.copytree(updated[0], tmp_path / "copy")
    third = RunDirectory(folder / "ner-3")
    config = load_run_config("update", third, None, {"init_from": str(folder / "ner")})
    assert prepare(config, third, resumes=False).start.path == folder / "ner"
    assert call(*command(folder / "ner", update__promote="2"), cwd=folder)[0] == 0
    found = prepare(config, third, resumes=False)
    assert found.start.path == folder / "ner-2" and found.serving.path == folder / "ner"
    shutil.rmtree(folder / "ner-2")
    with pytest.raises(InputError, match="version 2 of .*ner, which is live, was made by .*ner-2, whose model is not"):
        prepare(config, third, resumes=False)


def test_an_update_that_is_not_better_is_refused_with_everything_written(updated, tmp_path, call):
    folder = tmp_path
    shutil.copytree(updated[0] / "ner", folder / "ner")
    (folder / "ner" / FILE_NAME).unlink()
    add(folder, corrections(12))
    status, output, messages = call(*learn(folder, "--set=update.epochs=1", run="ner-9"), cwd=folder)
    run = RunDirectory(folder / "ner-9")
    assert status == 1 and "held out are too few to tell" in messages.splitlines()[-1]
    assert "Update of ner: refused" in output and run.report_txt.read_text().startswith("Update of ner: refused")
    assert run.read_metrics()["update/passed"] == 0 and not read(run.update_json)["verdict"]["passed"]
    labels = read_labels(folder / "ner")
    assert (labels.stable, labels.canary) == (1, 2) and not (folder / "ner/export/saved_model/3").exists()


def test_files_go_into_the_store_and_out_and_an_author_can_have_everything_deleted(updated, tmp_path, call):
    folder = tmp_path
    shutil.copytree(updated[0] / "ner", folder / "ner")
    (folder / "more.csv").write_text(
        'text,entities\n"Ada saw Oslo","[{""start"": 0, ""end"": 3, ""label"": ""PER""}]"\n'
        '"Bob saw Oslo","[{""start"": 0, ""end"": 3, ""label"": ""DOG""}]"\n'
    )
    run = folder / "ner"
    status, _, messages = call(
        *command(run, update__import_path=folder / "more.csv", feedback__author="bob"), cwd=folder
    )
    assert status == 0 and "left out: " in messages and "DOG" in messages and "1 correction of" in messages, messages
    status, _, messages = call(*command(run, update__delete_author="ann"), cwd=folder)
    assert status == 0 and "60 corrections are deleted" in messages
    status, _, messages = call(*command(run, update__export_path=folder / "out.conll"), cwd=folder)
    assert status == 0, messages
    assert "Ada B-PER\nsaw O\nOslo O\n" in (folder / "out.conll").read_text().replace("\t", " ")
    status, _, messages = call(*command(run, update__delete_text="Ada saw Oslo"), cwd=folder)
    assert status == 0 and "1 correction is deleted" in messages
    status, _, messages = call(*learn(folder, run="ner-9"), cwd=folder)
    assert status == 2 and "no corrections for task=tagging to learn from, it is empty" in messages


@pytest.mark.slow
def test_a_killed_update_resumes_to_the_same_bits_whatever_was_corrected_meanwhile(
    updated, trained_run, tmp_path, app_process, call
):
    folder = tmp_path
    trained_run.copy(folder / "ner")
    shutil.copy(updated[0] / "ner" / FILE_NAME, folder / "ner" / FILE_NAME)
    killed = app_process(*learn(folder, "--set=update.export=false"), cwd=folder)
    limit = time.monotonic() + 300
    while not list(folder.glob("ner-2/checkpoints/ckpt-1.index")):
        assert killed.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folder / "ner-2" / "model").exists()
    add(folder, corrections(10, seed=8))
    status, _, messages = call(*learn(folder, "--set=update.export=false"), cwd=folder)
    assert status == 0 and "resuming" in messages, messages
    metrics = [read(each / "ner-2" / "metrics.json") for each in (folder, updated[0])]
    assert metrics[0]["weights_sha256"] == metrics[1]["weights_sha256"]
    assert metrics[0]["update/corrections"] == metrics[1]["update/corrections"]


@pytest.mark.slow
def test_an_update_that_is_killed_before_its_version_has_a_label_gives_it_one_when_it_is_started_again(
    updated, tmp_path, app_process, call
):
    folder = copy_of(updated, tmp_path)
    run, arguments = folder / "ner", [each.replace(str(updated[0]), str(folder)) for each in learn(updated[0])]
    forget_version(folder)
    killed = app_process(*arguments, cwd=folder)
    limit = time.monotonic() + 300
    while not (run / "export" / "saved_model" / "2").exists():
        assert killed.poll() is None and time.monotonic() < limit
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    labels = read_labels(run)
    assert (labels.stable, labels.canary, "version" in read(folder / "ner-2" / "update.json")) == (1, 0, False)
    assert plan_versions(RunDirectory(run), ServeConfig()).labels == {"stable": 1}
    status, _, messages = call(*arguments, cwd=folder)
    assert status == 0 and "version 2 of" in messages and "is on trial as canary, version 1 is live" in messages
    assert (read_labels(run).stable, read_labels(run).canary) == (1, 2)
    assert read(folder / "ner-2" / "update.json")["version"] == 2
    assert sorted(path.name for path in (run / "export" / "saved_model").iterdir()) == ["1", "2"]
    assert (run / "export" / "tflite" / "2" / "float32.tflite").is_file()
    assert "versions: 1 versions: 2 }" in (run / "export" / "models.config").read_text()


@pytest.mark.slow
def test_a_classifier_learns_from_corrections_too(tmp_path, vocabulary, call):
    toy.write_texts(tmp_path)
    settings = [f"--set={each}" for each in toy.text_settings(tmp_path, vocabulary)]
    status, _, messages = call("--mode=finetune", f"--run_dir={tmp_path / 'ner'}", *settings, cwd=tmp_path)
    assert status == 0, messages
    rows = toy.make_texts(80, seed=41)
    taught = [Correction(f"City City {row['text']}", "classification", {"label": "neither"}) for row in rows]
    add(tmp_path, [*taught, Correction("nothing", "classification", {"label": None})])
    settings = ["--set=update.epochs=8", "--set=update.max_f1_loss=5", "--set=update.held_out_fraction=0.4"]
    arguments = command(tmp_path / "ner-2", init_from=tmp_path / "ner")
    status, output, messages = call(*arguments, *settings, cwd=tmp_path)
    metrics = read(tmp_path / "ner-2" / "metrics.json")
    assert status == 0, messages
    assert metrics["update/held_out/macro_f1"] > metrics["update/held_out/macro_f1_before"]
    assert "Update of ner: passed" in output and read_labels(tmp_path / "ner").canary == 2
    assert np.isfinite(metrics["update/test/points_gained_low"])

"""Which runs and versions are served, and what happens when they change while the server runs."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from served import ask, make_server, serving

from app.config import InputError, ServeConfig
from app.evaluation.manifest import PROVENANCE_FILE, VECTORS_FILE
from app.export.version_files import keep_newest_version_files, keep_version_files
from app.run.directory import RunDirectory
from app.serving.listening import listening
from app.serving.runs import find_runs, name_runs, plan_versions

TEXT = "Ada Smith met Bob in Rome ."


@pytest.fixture
def run(served_run, tmp_path):
    return Path(shutil.copytree(served_run, tmp_path / "run"))


def write_labels(run, **labels):
    (run / "export" / "labels.json").write_text(json.dumps({**labels, "history": []}))


def add_version(run, number, *, source=1):
    """A version as an export leaves it: complete from the moment it has its name."""
    part = run / "export" / f"part{number}"
    shutil.copytree(run / "export" / "saved_model" / str(source), part)
    part.rename(run / "export" / "saved_model" / str(number))
    return run / "export" / "saved_model" / str(number)


def plan(run, **settings):
    found = plan_versions(RunDirectory(run), ServeConfig(tflite_file="float32", **settings))
    return {number: source.runtime for number, source in found.sources.items()}, dict(found.labels)


def test_the_newest_version_is_stable_and_the_file_is_of_it(run):
    assert plan(run) == ({1: "tflite"}, {"stable": 1})
    add_version(run, 3)
    assert plan(run) == ({3: "tflite"}, {"stable": 3})
    assert plan(run, runtime="saved_model") == ({3: "saved_model"}, {"stable": 3})


def test_labelled_versions_are_served_and_a_file_that_is_not_of_the_stable_one_is_left(run):
    add_version(run, 2)
    write_labels(run, stable=1, canary=2)
    assert plan(run) == ({1: "saved_model", 2: "saved_model"}, {"stable": 1, "canary": 2})
    with pytest.raises(InputError, match="has files of version 2, and version 1 is stable"):
        plan(run, runtime="tflite")
    write_labels(run, stable=2, canary=None)
    assert plan(run) == ({2: "tflite"}, {"stable": 2})


def test_a_version_is_looked_at_again_when_its_weights_have_come(run):
    def content():
        return plan_versions(RunDirectory(run), ServeConfig(runtime="saved_model")).stable.content

    weights = run / "export" / "saved_model" / "1" / "variables" / "variables.data-00000-of-00001"
    seen, whole = [content()], weights.read_bytes()
    for change in (weights.unlink, lambda: weights.write_bytes(whole[:9]), lambda: weights.write_bytes(whole)):
        change()
        seen.append(content())
    assert len(set(seen)) == 4


def change_head(run):
    """Another model of the same network: its head is what answers need beyond the TFLite file."""
    with open(run / "model" / "SHA256SUMS", "a") as file:
        file.write("0" * 64 + "  other\n")


def test_each_version_keeps_its_files_and_is_served_by_them_whichever_is_live(run):
    kept = RunDirectory(run)
    assert keep_version_files(kept, kept, 1)
    assert {path.name for path in (kept.tflite / "1").iterdir()} >= {"float32.tflite", "model.json", "model"}
    change_head(run)
    add_version(run, 2)
    write_labels(run, stable=1, canary=2)
    assert plan(run) == ({1: "tflite", 2: "saved_model"}, {"stable": 1, "canary": 2})  # its file is of the model before
    assert plan(run, runtime="tflite") == ({1: "tflite"}, {"stable": 1})
    write_labels(run, stable=2)
    assert plan(run) == ({2: "saved_model"}, {"stable": 2})
    write_labels(run, stable=1)
    with serving(run, runtime="tflite") as url:
        about = ask(url, "/about")[1]["models"][0]
        assert (about["stable"], about["runtime"]) == (1, "tflite")
        assert ask(url, "/entities", {"texts": ["Ada met Bob ."]})[1]["version"] == 1
    assert not keep_version_files(kept, kept, 2)  # what is there is of another model
    keep_newest_version_files(kept)
    assert not (kept.tflite / "2").exists()


def test_the_files_of_the_run_are_not_taken_for_those_of_an_update_of_it(run):
    add_version(run, 2)
    served = RunDirectory(run)
    update = RunDirectory(run.with_name("update"))
    served.write_json(served.saved_model / "2" / PROVENANCE_FILE, {"run": "../update"})
    write_labels(run, stable=2)
    assert plan(run) == ({2: "saved_model"}, {"stable": 2})
    with pytest.raises(InputError, match="has files of version"):
        plan(run, runtime="tflite")
    shutil.copytree(served.model, update.model)
    shutil.copytree(served.tflite, update.tflite)
    assert keep_version_files(update, served, 2)
    assert plan(run) == ({2: "tflite"}, {"stable": 2})
    keep_newest_version_files(served)
    assert plan(run) == ({2: "tflite"}, {"stable": 2})


def test_a_file_of_an_earlier_model_is_not_taken_for_the_new_one(run):
    with open(run / "model" / "SHA256SUMS", "a") as file:
        file.write("0" * 64 + "  other\n")
    assert plan(run) == ({1: "saved_model"}, {"stable": 1})
    with pytest.raises(InputError, match=r"float32\.tflite is of an earlier model than that in .*: run --mode=export"):
        plan(run, runtime="tflite")


def test_a_file_that_is_asked_for_by_name_must_be_there(served_run):
    said = r"serve\.tflite_file must be one of the exports in .* \(float32\), received 'int9'"
    with pytest.raises(InputError, match=said):
        make_server(served_run, tflite_file="int9").models["ner"].load()
    assert plan_versions(RunDirectory(served_run), ServeConfig()).stable.runtime == "saved_model"


def test_what_cannot_be_served_is_said(run, tmp_path):
    write_labels(run, stable=7)
    with pytest.raises(InputError, match="has no version 7, which is labelled stable"):
        plan(run)
    (run / "export" / "labels.json").write_text('{"stable": "one"}')
    with pytest.raises(InputError, match=r"labels\.json must be as"):
        plan(run)
    (run / "export" / "labels.json").unlink()
    with pytest.raises(InputError, match=r"serve\.tflite_file must be one of the exports .*float32.*received 'int8'"):
        plan_versions(RunDirectory(run), ServeConfig(runtime="tflite"))
    shutil.rmtree(run / "export" / "saved_model")
    assert plan(run) == ({1: "tflite"}, {"stable": 1})  # the file alone is enough
    shutil.rmtree(run / "export" / "tflite")
    with pytest.raises(InputError, match="holds no SavedModel: make one with --mode=export"):
        plan(run)


def test_two_models_of_one_name_must_be_named(run, served_classifier, tmp_path):
    config = ServeConfig(runs=(str(run), str(served_classifier.run)), tflite_file="float32")
    default = RunDirectory(tmp_path / "nothing")
    assert list(name_runs(find_runs(config, default), config)) == ["ner", "classify"]
    config = ServeConfig(runs=(str(run), str(run)), tflite_file="float32")
    with pytest.raises(InputError, match=r"are both called ner: give them .* such as serve\.runs=ner="):
        name_runs(find_runs(config, default), config)
    config = ServeConfig(runs=(f"first={run}", f"second={run}"), tflite_file="float32")
    assert list(name_runs(find_runs(config, default), config)) == ["first", "second"]
    with pytest.raises(InputError, match=r"serve\.runs"):
        find_runs(ServeConfig(runs=("x=nowhere",)), default)


def test_several_models_are_served_side_by_side(run, served_classifier):
    server = make_server(run, served_classifier.run, names=("ner", "intents"), runtime="tflite")
    with listening(server) as url:
        assert [each["name"] for each in ask(url, "/about")[1]["models"]] == ["ner", "intents"]
        assert ask(url, "/entities", {"texts": [TEXT]})[1]["model"] == "ner"
        assert ask(url, "/classify", {"texts": [TEXT]})[1]["model"] == "intents"
        assert ask(url, "/answers", {"texts": [TEXT], "model": "intents"})[0] == 200
        status, answer = ask(url, "/classify", {"texts": [TEXT], "model": "ner"})
        assert (status, answer["error"]) == (400, "the model ner is for tagging: ask /entities")
        assert ask(url, "/v1/models/intents:predict", {"instances": [TEXT]})[0] == 200


def test_a_new_version_is_taken_and_the_old_one_answers_until_then(run):
    write_labels(run, stable=1)
    server = make_server(run, runtime="saved_model")
    seen, ended = set(), threading.Event()
    with listening(server) as url:

        def keep_asking():
            while not ended.is_set():
                status, answer = ask(url, "/entities", {"texts": [TEXT]})
                seen.add((status, answer.get("version")))

        client = threading.Thread(target=keep_asking)
        client.start()
        rows = ask(url, "/entities", {"texts": [TEXT, "Rome"]})[1]["answers"]
        new = add_version(run, 2)
        (new / VECTORS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
        server.refresh()
        assert server.told == []  # a version without a label is nobody's business
        write_labels(run, stable=1, canary=2)
        server.refresh()
        for version, number in (("stable", 1), ("canary", 2), (1, 1), (2, 2)):
            assert ask(url, "/entities", {"texts": [TEXT], "version": version})[1]["version"] == number
        assert ask(url, "/about")[1]["models"][0]["canary"] == 2
        assert seen == {(200, 1)}
        write_labels(run, stable=2)
        server.refresh()
        time.sleep(0.2)
        ended.set()
        client.join()
        assert seen == {(200, 1), (200, 2)}
        assert [each["version"] for each in ask(url, "/v1/models/ner")[1]["model_version_status"]] == ["2"]
        assert ask(url, "/v1/models/ner/versions/1")[0] == 404
    assert server.told == ["ner: version 2 is loaded (saved_model)"]


def test_a_version_that_is_no_good_is_not_taken_and_that_is_said_once(run):
    server = make_server(run, runtime="saved_model")

    def says(reason):
        """What is said of the newest version, once."""
        server.told.clear()
        for _ in range(3):
            server.refresh()
        (said,) = server.told
        assert reason in said and said.endswith("what is loaded keeps answering"), said
        assert ask(url, "/entities", {"texts": [TEXT]})[1]["version"] == 1

    with listening(server) as url:
        (add_version(run, 2) / "saved_model.pb").write_bytes(b"\0" * 99)
        says("version 2 is not taken: ")
        (add_version(run, 3) / "assets.extra" / "about.json").write_text("{}")
        says("about.json is not what --mode=export writes")
        row = {"text": TEXT, "entities": [{"start": 0, "end": 1, "label": "X", "text": "A", "score": 1.0}]}
        (add_version(run, 4) / VECTORS_FILE).write_text(json.dumps(row) + "\n")
        says("version 4 is not taken: it gives 0 of the 1 answers in its test vectors")
        (run / "export" / "labels.json").write_text("{")
        says("labels.json must be as")


def test_a_server_whose_model_is_damaged_ends_with_the_reason(run):
    (run / "export" / "saved_model" / "1" / "saved_model.pb").write_bytes(b"\0" * 99)
    with (
        pytest.raises(InputError, match="is no SavedModel that can be read"),
        listening(make_server(run, runtime="saved_model")),
    ):
        pass


LIGHT = """
import sys
sys.path.insert(0, sys.argv[2])
from served_light import serve_once
print(serve_once(sys.argv[1]))
found = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "sklearn", "matplotlib"})
assert found == [], found
"""


def test_a_tflite_file_is_served_without_tensorflow(served_run):
    command = [sys.executable, "-c", LIGHT, str(served_run), str(Path(__file__).parent)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["answers"][0]["text"] == TEXT

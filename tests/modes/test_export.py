"""`--mode=export`: files that their own runtime has scored, and what happens to those that are not good."""

import json
import resource
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from app.checks import check_export
from app.config import InputError, RunError
from app.config.loading import load_config
from app.encoder.sources import TAGGER_SETTINGS
from app.evaluation.runtimes import TFLiteModel, build_predictor, load_tflite
from app.export import exporters
from app.export.tflite import TFLiteWriter
from app.modes import evaluate, export
from app.run.directory import Request, RunDirectory, sha256_of_file
from app.tasks.bundle import load_model, save_facts
from app.tasks.corpora import open_split
from app.tasks.network import build_encoder

FORMATS = ("float32", "float16", "int8")


def request_of(path, *settings: str) -> Request:
    run_dir = RunDirectory(path)
    return Request(load_config(None, list(settings), defaults=str(run_dir.config_yaml)), run_dir)


def load(path):
    """The float model, its encoder, and the test corpus."""
    config = request_of(path).config
    tagger = load_model(RunDirectory(path).model)
    return SimpleNamespace(
        tagger=tagger,
        encoder=build_encoder(tagger, config.data),
        sentences=list(open_split(config, "test", labels=tagger.labels).examples()),
    )


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """A copy of the finished run with one file of each format."""
    path = trained_run.copy(tmp_path_factory.mktemp("exported") / "run")
    export.run(request_of(path, f"export.formats={','.join(FORMATS)}", "export.max_f1_loss=100"))
    return path


def manifest_of(path) -> dict:
    return json.loads((path / "export" / "tflite" / "model.json").read_text())


def test_each_format_is_listed_with_its_checksum_size_and_score_and_has_only_built_in_operators(exported):
    folder, files = exported / "export" / "tflite", manifest_of(exported)["files"]
    assert set(files) == {f"{name}.tflite" for name in FORMATS} == {path.name for path in folder.glob("*.tflite")}
    for name, entry in files.items():
        assert entry["sha256"] == sha256_of_file(folder / name) and entry["bytes"] == (folder / name).stat().st_size
        assert "FULLY_CONNECTED" in entry["operators"]
        assert not any(operator.startswith("custom:") for operator in entry["operators"])
        assert 0 <= entry["entity_f1"] <= 1
        low, high = entry["points_lost_95_percent_interval"]
        assert low <= entry["points_lost"] <= high
        lost = 100 * (entry["entity_f1_of_the_float_model"] - entry["entity_f1"])
        assert entry["points_lost"] == pytest.approx(lost, abs=1e-3)
    sizes = [files[f"{name}.tflite"]["bytes"] for name in FORMATS]
    assert sizes == sorted(sizes, reverse=True)


def test_companions_name_labels_and_pieces_in_the_order_of_their_ids(exported):
    folder, tagger = exported / "export" / "tflite", load_model(RunDirectory(exported).model)
    assert (folder / "labels.txt").read_text().split() == manifest_of(exported)["labels"] == list(tagger.labels)
    assert (folder / "vocab.txt").read_text().splitlines() == list(tagger.backbone.vocabulary)
    for name, digest in manifest_of(exported)["companions"].items():
        assert sha256_of_file(folder / name) == digest


def test_float32_tags_every_word_as_keras_does_and_its_logits_agree(exported):
    model = load(exported)
    forward = load_tflite(exported / "export" / "tflite", "float32", labels=model.tagger.labels).forward
    rows, words = list(model.encoder.scoring_rows(model.sentences)), sum(len(s.words) for s in model.sentences)
    keras, lite = (
        build_predictor(model.tagger, model.encoder, batch_size=5, forward=each) for each in (None, forward)
    )
    one, other = (predictor.compute_emissions(rows, units=words) for predictor in (keras, lite))
    np.testing.assert_allclose(one, other, atol=1e-4)
    said = [[found.tags for found in each.answer(model.sentences)] for each in (keras, lite)]
    assert said[0] == said[1]


def test_the_decoder_inside_the_file_answers_the_test_vectors(exported):
    folder, labels = exported / "export" / "tflite", manifest_of(exported)["labels"]
    lite = TFLiteModel(folder / "float32.tflite")
    vectors = [json.loads(line) for line in (folder / "test_vectors.jsonl").read_text().splitlines()]
    assert len(vectors) > 5 and any(vector["entities"] for vector in vectors)
    for vector in vectors:
        rows = {name: np.array([vector[name]], np.int32) for name in ("token_ids", "shape_ids", "padding_mask")}
        starts = np.array([vector["word_starts"]], np.int32)
        tags = lite.run({**rows, "word_starts": starts})["tags"]
        assert [labels[i] for i in tags[starts > 0]] == vector["tags"]
        assert (tags[starts == 0] == -1).all()
        for entity in vector["entities"]:
            words = vector["words"][entity["first_word"] : entity["last_word"] + 1]
            assert " ".join(words) == entity["text"] and vector["tags"][entity["first_word"]] == f"B-{entity['label']}"


def test_evaluate_scores_an_export_by_its_runtime_beside_the_scores_of_the_run(exported):
    before = (exported / "metrics.json").read_bytes(), (exported / "report.txt").read_bytes()
    settings = ("predictor=tflite", "evaluation.tflite_file=int8", "evaluation.split=test")
    found = evaluate.run(request_of(exported, *settings))
    assert found["test/entity_f1"] == pytest.approx(manifest_of(exported)["files"]["int8.tflite"]["entity_f1"])
    assert before == ((exported / "metrics.json").read_bytes(), (exported / "report.txt").read_bytes())
    assert list((exported / "evaluations").glob("*tflite-int8/metrics.json"))


@pytest.mark.slow
def test_a_file_that_loses_too_much_is_refused_and_the_older_one_and_the_other_formats_stay(
    exported, tmp_path, monkeypatch, capsys
):
    path = shutil.copytree(exported, tmp_path / "run")
    before = sha256_of_file(path / "export" / "tflite" / "int8.tflite")

    def spoilt(writer: TFLiteWriter) -> bytes:
        tagger = load_model(RunDirectory(path).model)
        for variable in tagger.network.trainable_variables:
            variable.assign(-variable)
        other = TFLiteWriter(
            tagger, writer._config, boundary_ids=writer._boundary_ids, representative=writer._representative
        )
        return other.float32()

    refusals = path / "export" / "refused.json"
    refusals.write_text(json.dumps({"float16": {}}))
    monkeypatch.setitem(exporters.WRITERS, "int8", spoilt)
    with pytest.raises(RunError, match=r"int8\.tflite refused: entity F1 .* points below .* export\.max_f1_loss"):
        export.run(request_of(path, "export.formats=int8,float16"))
    assert sha256_of_file(path / "export" / "tflite" / "int8.tflite") == before
    assert manifest_of(path)["files"]["float16.tflite"]["entity_f1"] > 0.5
    assert not list(path.rglob(".tmp-*"))
    assert list(json.loads(refusals.read_text())) == ["int8"]  # float16 was kept this time
    evaluate.run(request_of(path, "predictor=tflite", "evaluation.tflite_file=int8"))
    assert "int8 was refused" in capsys.readouterr().err
    (path / "export" / "tflite" / "int8.tflite").unlink()
    with pytest.raises(InputError, match=r"int8 was refused by --mode=export at 2.*points below .*max_f1_loss"):
        evaluate.run(request_of(path, "predictor=tflite", "evaluation.tflite_file=int8"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "int8.tflite").write_bytes(b"x" * 100), "is not the file that model.json"),
        (lambda folder: (folder / "int8.tflite").unlink(), "int8.tflite does not exist"),
        (lambda folder: (folder / "model.json").unlink(), "model.json does not exist"),
        (lambda folder: (folder / "model.json").write_text("{}"), "is not what --mode=export writes"),
    ],
)
def test_a_damaged_export_is_named(exported, tmp_path, damage, message):
    path = shutil.copytree(exported, tmp_path / "run")
    damage(path / "export" / "tflite")
    with pytest.raises(InputError, match=message):
        evaluate.run(request_of(path, "predictor=tflite", "evaluation.tflite_file=int8"))


def test_an_export_of_another_label_set_is_not_scored(exported):
    with pytest.raises(InputError, match=r"gives 5 labels .* the model of the run has O, B-X"):
        load_tflite(exported / "export" / "tflite", "int8", labels=["O", "B-X"])


def test_a_format_that_was_not_exported_is_named_with_those_that_were(exported):
    with pytest.raises(InputError, match=r"must be one of the exports in .*float32.*received 'full_int8'"):
        evaluate.run(request_of(exported, "predictor=tflite", "evaluation.tflite_file=full_int8"))


def test_a_network_that_cannot_be_cut_into_blocks_has_no_int4(trained_run, tmp_path):
    path = trained_run.copy(tmp_path / "run")
    with pytest.raises(InputError, match=r"export\.block_size must divide all widths .* received 32 and 16"):
        export.run(request_of(path, "export.formats=int4"))


def test_an_export_without_a_corpus_to_score_on_is_refused(trained_run, tmp_path):
    path = trained_run.copy(tmp_path / "run")
    with pytest.raises(InputError, match=r"data\.test_path is empty"):
        export.run(request_of(path, "data.test_path="))
    assert not (path / "export").exists()


@pytest.mark.parametrize(("exits", "measured"), [([], []), ([1], []), ([1], [2]), ([1], [1])])
def test_files_with_exits_are_for_models_whose_exits_were_measured(trained_run, tmp_path, exits, measured):
    path = trained_run.copy(tmp_path / "run")
    table = {"layers": measured, "headline": "entity_f1", "table": [[0.0, 0.9, 1.0, 2.0]]}
    settings = json.loads((path / "model" / TAGGER_SETTINGS).read_text())
    settings["model"]["exit_layers"] = exits
    (path / "model" / TAGGER_SETTINGS).write_text(json.dumps(settings))
    save_facts(SimpleNamespace(facts={"exits": table} if measured else {}), path / "model")
    asked = request_of(path, "export.formats=int8_early,float32")
    if exits == measured != []:
        return check_export(asked)
    with pytest.raises(InputError, match=r"export\.formats must not name int8_early: the model has no exits"):
        check_export(asked)


def test_full_integer_files_are_read_from_training_rows_and_scored_like_all_others(trained_run, tmp_path):
    path = trained_run.copy(tmp_path / "run")
    found = export.run(request_of(path, "export.formats=full_int8", "export.max_f1_loss=100"))
    assert found["export/full_int8/test/entity_f1"] == manifest_of(path)["files"]["full_int8.tflite"]["entity_f1"]


def listed_files_are_whole(path) -> set[str]:
    """Names in model.json; each has the checksum that stands there, and no temporary file is left under a real name."""
    files = manifest_of(path)["files"]
    for name, entry in files.items():
        assert entry["sha256"] == sha256_of_file(path / "export" / "tflite" / name)
    return set(files)


def test_a_kill_between_a_file_and_its_entry_leaves_no_entry_that_is_wrong(exported, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    path = Path(shutil.copytree(exported, tmp_path / "run"))
    again = request_of(path, "export.formats=int8", "export.max_f1_loss=100", "export.int8_table=float")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(exporters, "write_companions", kill)
        export.run(again)
    assert listed_files_are_whole(path) == {"float32.tflite", "float16.tflite"}
    export.run(again)
    assert listed_files_are_whole(path) == {f"{name}.tflite" for name in FORMATS}


@pytest.mark.slow
def test_a_killed_export_leaves_whole_files_and_the_same_command_makes_the_rest(trained_run, tmp_path, app_process):
    path, folder = trained_run.copy(tmp_path / "run"), tmp_path / "run" / "export"
    command = ["--mode=export", f"--run_dir={path}", "--set=export.formats=float16,saved_model"]
    command.append("--set=export.max_f1_loss=100")
    killed = app_process(*command, cwd=tmp_path)
    limit = time.monotonic() + 200
    while not list(folder.glob("saved_model/.tmp-*")):
        assert killed.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    killed.kill()
    killed.communicate(timeout=60)
    assert listed_files_are_whole(path) == {"float16.tflite"}
    assert not [each for each in folder.glob("saved_model/*") if not each.name.startswith(".tmp-")]
    process = app_process(*command, cwd=tmp_path)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    assert listed_files_are_whole(path) == {"float16.tflite"}
    assert [each.name for each in folder.glob("saved_model/*")] == ["1"] and not list(folder.rglob(".tmp-*"))


def test_a_disk_that_is_full_when_a_file_is_written_leaves_the_one_before_it(exported, tmp_path, monkeypatch):
    path = Path(shutil.copytree(exported, tmp_path / "run"))
    before = sha256_of_file(path / "export" / "tflite" / "float32.tflite")
    convert, (_, hard) = TFLiteWriter.write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def convert_and_fill_the_disk(writer, name):
        content = convert(writer, name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
        return content

    monkeypatch.setattr(TFLiteWriter, "write", convert_and_fill_the_disk)
    try:
        with pytest.raises(OSError, match="File too large"):
            export.run(request_of(path, "export.formats=float32"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert sha256_of_file(path / "export" / "tflite" / "float32.tflite") == before
    assert listed_files_are_whole(path) == {f"{name}.tflite" for name in FORMATS}
    assert not list((path / "export").rglob(".tmp-*"))


def test_a_disk_that_is_full_while_a_file_is_converted_is_what_the_error_says(exported, tmp_path):
    path = Path(shutil.copytree(exported, tmp_path / "run"))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises((OSError, tf.errors.OpError), match="File too large"):
            export.run(request_of(path, "export.formats=float32"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert listed_files_are_whole(path) == {f"{name}.tflite" for name in FORMATS}

"""`--mode=export` of a SavedModel, `--mode=evaluate` of it, and `--mode=serve`, as a user runs them."""

import http.client
import json
import re
import signal
import subprocess
import time
import urllib.request

import pytest


@pytest.fixture(scope="module")
def exported_run(trained_run, tmp_path_factory, app_process):
    folder = tmp_path_factory.mktemp("served")
    run = trained_run.copy(folder / "run")
    process = app_process("--mode=export", f"--run_dir={run}", "--set=export.formats=saved_model", cwd=folder)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    assert re.search(r"saved_model +[\d.]+ MB  entity F1 \d\.\d{4}", messages)
    return run


def test_the_exported_model_scores_as_the_float_model(exported_run):
    metrics = json.loads((exported_run / "metrics.json").read_text())
    assert metrics["export/saved_model/test/entity_f1"] == metrics["export/float/test/entity_f1"] > 0.5
    assert metrics["export/saved_model/bytes"] > 100_000
    assert [path.name for path in (exported_run / "export" / "saved_model").iterdir()] == ["1"]


def test_evaluate_scores_the_saved_model_tag_for_tag_as_keras(exported_run, app_process, tmp_path):
    process = app_process("--mode=evaluate", f"--run_dir={exported_run}", "--set=predictor=saved_model", cwd=tmp_path)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    (scored,) = (exported_run / "evaluations").iterdir()
    predictions = (scored / "predictions" / "test.conll").read_text()
    assert predictions == (exported_run / "predictions" / "test.conll").read_text()


def test_serve_answers_until_it_is_told_to_end(exported_run, app_process, tmp_path):
    process = app_process(
        "--mode=serve", f"--run_dir={exported_run}", "--set=serve.port=0", cwd=tmp_path, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )  # fmt: skip
    assert process.stderr.readline() == "serve: loading TensorFlow ...\n"
    url = re.search(r"http://\S+/", process.stderr.readline())[0]
    body = json.dumps({"instances": ["the old Ada Smith met and saw Rome ."]}).encode()
    with urllib.request.urlopen(f"{url}v1/models/ner:predict", body, timeout=60) as response:
        (row,) = json.load(response)["predictions"]
    assert list(zip(row["label"], row["start"], row["end"], strict=True)) == [("PER", 8, 17), ("LOC", 30, 34)]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130


@pytest.fixture(scope="module")
def light_run(exported_run, app_process):
    """With a TFLite file as well."""
    settings = ("--set=export.formats=float32", "--set=export.max_f1_loss=100")
    process = app_process("--mode=export", f"--run_dir={exported_run}", *settings, cwd=exported_run)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    return exported_run


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_tflite_file_is_served_without_a_word_of_tensorflow_and_what_was_taken_is_answered(
    light_run, app_process, tmp_path, stop
):
    settings = ("serve.port=0", "serve.tflite_file=float32", f"serve.runs=people={light_run}", "serve.api_key=sesame")
    process = app_process(
        "--mode=serve", *(f"--set={setting}" for setting in settings), cwd=tmp_path, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    lines = []
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/ is ready", process.stderr.readline())):
        lines.append(process)
        assert process.poll() is None and len(lines) < 20
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    body = json.dumps({"texts": ["the old Ada Smith met and saw Rome ."] * 400}).encode()
    connection.request("POST", "/entities", body, {"X-Api-Key": "sesame"})
    time.sleep(0.1)
    process.send_signal(stop)
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200 and len(answer["answers"]) == 400 and answer["model"] == "people"
    found = [(each["label"], each["text"]) for each in answer["answers"][-1]["entities"]]
    assert found == [("PER", "Ada Smith"), ("LOC", "Rome")]
    assert process.wait(timeout=60) == (143 if stop == signal.SIGTERM else 130)
    said = process.stderr.read()
    assert "Traceback" not in said and "sesame" not in said
    assert json.loads(next(line for line in said.splitlines() if line.startswith("{")))["texts"] == 400


def test_a_key_is_not_shown(light_run, app_process, tmp_path):
    process = app_process(
        "--mode=serve", f"--run_dir={light_run}", "--set=serve.api_key=sesame", "--dry_run", cwd=tmp_path
    )
    shown, messages = process.communicate(timeout=100)
    assert process.returncode == 0, messages
    assert "api_key: '***'" in shown and "sesame" not in shown + messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("serve.runs=nowhere", "nowhere does not exist: make one with --mode=finetune, or name one with serve.runs"),
        ("serve.runtime=tflite", "serve.tflite_file must be one of the exports"),
        ("serve.log_texts=true,serve.access_log=false", "serve.log_texts=true adds texts"),
        ("serve.runtime=onnx", "auto, saved_model, tflite"),
        ("serve.threads=-1", "serve.threads"),
    ],
)
def test_a_mistake_in_the_settings_is_said(light_run, app_process, tmp_path, setting, message):
    settings = [f"--set={each}" for each in setting.split(",")]
    process = app_process("--mode=serve", f"--run_dir={light_run}", *settings, cwd=tmp_path)
    _, messages = process.communicate(timeout=100)
    assert process.returncode == 2 and message in messages, messages


def test_serve_without_an_export_says_what_to_do(trained_run, app_process, tmp_path):
    process = app_process("--mode=serve", f"--run_dir={trained_run.path}", cwd=tmp_path)
    _, messages = process.communicate(timeout=100)
    assert process.returncode == 2
    assert messages.endswith("holds no SavedModel: make one with --mode=export\n")

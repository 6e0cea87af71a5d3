import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.config import Config, DataConfig, InputError, ServeConfig, TrainingConfig
from app.config.loading import load_config
from app.run.directory import TEMPORARY_PREFIX, RunDirectory, atomic, sha256_of_arrays, sha256_of_file


@pytest.fixture
def run_dir(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "one")


def start(run_dir: RunDirectory, config: Config | None = None, *, overwrite: bool = False) -> bool:
    with run_dir.open_for_training(config or Config(), overwrite=overwrite) as resumed:
        return resumed


def names(path: Path) -> set[str]:
    return {name for name in os.listdir(path) if name != ".lock"}


def test_atomic_write_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    for text in ("old", "new"):
        with atomic(tmp_path / "deep" / "weights.weights.h5") as temporary:
            assert temporary.name.endswith(".weights.h5")
            temporary.write_text(text)
    assert names(tmp_path / "deep") == {"weights.weights.h5"}
    assert (tmp_path / "deep" / "weights.weights.h5").read_text() == "new"


def test_a_full_disk_keeps_the_old_file_and_removes_the_temporary_one(run_dir, monkeypatch):
    run_dir.write_json(run_dir.metrics_json, {"a": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run_dir.update_metrics({"a": 2})
    assert run_dir.read_metrics() == {"a": 1}
    assert names(run_dir.path) == {"metrics.json"}


def test_a_real_full_device_is_an_error_and_leaves_no_temporary_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "report.txt").write_text("old")
    with pytest.raises(OSError), atomic(tmp_path / "report.txt") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("x" * 100_000)
    assert names(tmp_path) == {"report.txt"}
    assert (tmp_path / "report.txt").read_text() == "old"


def test_a_kill_while_writing_keeps_the_old_file_and_the_next_start_cleans_up(run_dir):
    start(run_dir)
    run_dir.write_text(run_dir.report_txt, "old")
    code = (
        "import os, signal, sys\n"
        "from app.run.directory import RunDirectory\n"
        "from app.config import Config\n"
        "from app.run.directory import atomic\n"
        "run = RunDirectory(sys.argv[1])\n"
        "with run.open_for_training(Config()), atomic(run.report_txt) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert run_dir.report_txt.read_text() == "old"
    assert any(name.startswith(TEMPORARY_PREFIX) for name in names(run_dir.path))
    assert start(run_dir)  # the lock died with the process
    assert names(run_dir.path) == {"config.yaml", "report.txt"}


def test_a_fresh_directory_gets_its_config_before_anything_else(run_dir):
    assert run_dir.plan_training(Config()) == "new"
    assert not run_dir.path.exists()
    with run_dir.open_for_training(Config(seed=3)) as resumed:
        assert not resumed
        assert names(run_dir.path) == {"config.yaml"}
    assert load_config(str(run_dir.config_yaml)) == Config(seed=3)


def test_the_same_config_resumes_and_keeps_everything(run_dir):
    start(run_dir)
    run_dir.append_jsonl(run_dir.history_jsonl, {"step": 1})
    assert start(run_dir)
    assert run_dir.read_history() == [{"step": 1}]


def test_another_config_is_refused_with_the_settings_that_differ(run_dir):
    start(run_dir)
    run_dir.model.mkdir()
    with pytest.raises(InputError, match=r"seed was 0, now 5; start over with --overwrite, or .* --run_dir"):
        start(run_dir, Config(seed=5))
    assert load_config(str(run_dir.config_yaml)).seed == 0


MADE_BY_TRAINING = {
    "a checkpoint": "checkpoints/ckpt-1.index",
    "a checkpoint of a phase": "checkpoints/masked_lm/ckpt-3.index",
    "a model": "model/backbone.json",
    "a stage": "stages/1/model/backbone.json",
    "a preset": "export/keras_nlp/config.json",
}


def write(run_dir: RunDirectory, *names: str) -> None:
    for name in names:
        (run_dir.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir.path / name).write_text("x")


@pytest.mark.parametrize("made", MADE_BY_TRAINING)
def test_what_training_made_is_kept_from_another_config(run_dir, made):
    start(run_dir)
    write(run_dir, MADE_BY_TRAINING[made])
    with pytest.raises(InputError, match="seed was 0, now 5"):
        start(run_dir, Config(seed=5))
    assert (run_dir.path / MADE_BY_TRAINING[made]).is_file() and run_dir.read_config().seed == 0


def test_a_run_that_died_before_its_first_checkpoint_gives_way_to_another_config(run_dir):
    start(run_dir)
    left = ("history.jsonl", "vocabulary.txt", "compression.json", "checkpoints/ckpt-1_temp/part", "tensorboard/events")
    write(run_dir, *left, "notes.txt", "records/train-16/records.json", "cache/rows")
    assert run_dir.plan_training(Config(seed=5)) == "replace"
    assert not start(run_dir, Config(seed=5))
    # Records and cache take long to make, and know by themselves what they were made of.
    assert names(run_dir.path) == {"config.yaml", "notes.txt", "records", "cache"}
    assert run_dir.read_config().seed == 5


def test_the_same_config_goes_on_without_a_checkpoint_too(run_dir):
    start(run_dir)
    write(run_dir, "vocabulary.txt")
    assert start(run_dir)
    assert (run_dir.path / "vocabulary.txt").is_file()


def finish(run_dir: RunDirectory, config: Config, *, keep_checkpoints: bool, mode: str = "finetune") -> None:
    """As a run ends that trained to the end."""
    with run_dir.open_for_training(config, mode=mode):
        write(run_dir, "checkpoints/ckpt-1.index", "checkpoints/checkpoint", "checkpoints/best.npz", "model/SHA256SUMS")
        run_dir.update_metrics({"weights_sha256": "ab", "train/seconds": 3.0})
        run_dir.mark_trained(config, mode=mode)
        run_dir.complete(keep_checkpoints=keep_checkpoints)


def test_a_finished_run_is_known_by_its_marker_and_holds_no_checkpoints(run_dir):
    finish(run_dir, Config(), keep_checkpoints=False)
    assert run_dir.plan_training(Config(), mode="finetune") == "finished"
    assert not run_dir.checkpoints.exists() and not list(run_dir.path.glob(".tmp-*"))
    state = run_dir.read_state()
    assert state["mode"] == "finetune" and state["epochs"] == 12 and state["trained"] <= state["scored"]


def test_a_run_that_finished_meanwhile_is_not_trained_anew(run_dir):
    finish(run_dir, Config(), keep_checkpoints=False)
    with pytest.raises(InputError, match="was finished by another process"):
        start(run_dir)
    assert run_dir.plan_training(Config(), mode="finetune") == "finished"


def test_a_run_of_another_mode_is_refused(run_dir):
    finish(run_dir, Config(), keep_checkpoints=True)
    with pytest.raises(InputError, match=r"holds a run of --mode=finetune; start over with --overwrite"):
        run_dir.plan_training(Config(), mode="pretrain")


def test_a_model_that_was_deleted_is_trained_again(run_dir):
    finish(run_dir, Config(), keep_checkpoints=False)
    run_dir.model_sums.unlink()
    assert run_dir.plan_training(Config(), mode="finetune") == "resume"


def epochs(count: int) -> Config:
    return Config(training=TrainingConfig(epochs=count))


@pytest.mark.parametrize(("mode", "key"), [("finetune", "init_from"), ("distill", "init_from"),
                                           ("pretrain", "backbone.source")])  # fmt: skip
def test_more_epochs_without_checkpoints_say_what_to_do_and_lose_nothing(run_dir, mode, key):
    finish(run_dir, epochs(12), keep_checkpoints=False, mode=mode)
    message = rf"is finished and its checkpoints are dropped, .*training.epochs=15: .*--set {key}={run_dir}"
    with pytest.raises(InputError, match=message):
        with run_dir.open_for_training(epochs(15), mode=mode):
            pass
    assert run_dir.plan_training(epochs(12), mode=mode) == "finished"


def test_more_epochs_with_checkpoints_train_on_and_a_kill_changes_nothing(run_dir):
    finish(run_dir, epochs(12), keep_checkpoints=True)
    assert run_dir.plan_training(epochs(15), mode="finetune") == "resume"
    for _ in range(2):  # the second time after a kill
        with run_dir.open_for_training(epochs(15), mode="finetune") as resumed:
            assert resumed
    assert run_dir.read_config().training.epochs == 15 and run_dir.has_checkpoint()
    for other in (12, 14, 20):
        with pytest.raises(InputError, match=f"training.epochs was 15, now {other}"):
            run_dir.plan_training(epochs(other), mode="finetune")
    run_dir.mark_trained(epochs(15), mode="finetune")
    assert run_dir.plan_training(epochs(15), mode="finetune") == "finished"


def test_a_run_that_is_not_finished_gets_no_more_epochs(run_dir):
    start(run_dir, epochs(12))
    write(run_dir, "checkpoints/ckpt-1.index", "checkpoints/checkpoint")
    with pytest.raises(InputError, match="training.epochs was 12, now 15"):
        run_dir.plan_training(epochs(15), mode="finetune")


def as_earlier_version(run_dir: RunDirectory) -> None:
    run_dir.state_json.unlink()


def test_a_finished_run_of_an_earlier_version_goes_on_from_its_checkpoints_or_is_scored(run_dir):
    finish(run_dir, Config(), keep_checkpoints=True)
    as_earlier_version(run_dir)
    assert run_dir.plan_training(Config(), mode="finetune") == "resume"  # the last checkpoint, nothing is trained
    shutil.rmtree(run_dir.checkpoints)
    assert run_dir.plan_training(Config(), mode="finetune") == "finished"
    run_dir.metrics_json.unlink()
    assert run_dir.plan_training(Config(), mode="finetune") == "resume"


def test_checkpoints_behind_a_link_are_dropped_and_nothing_else_there(run_dir, tmp_path):
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    start(run_dir)
    run_dir.checkpoints.symlink_to(elsewhere)
    finish(run_dir, Config(), keep_checkpoints=False)
    assert names(elsewhere) == {"precious"} and run_dir.checkpoints.is_symlink()


def test_what_does_not_change_training_may_change_and_config_yaml_takes_it(run_dir):
    start(run_dir, Config(data=DataConfig(max_length=96)))
    write(run_dir, "checkpoints/ckpt-1.index", "predictions/test.conll")
    run_dir.update_metrics({"test/entity_f1": 0.5, "valid/entity_f1": 0.6, "train/seconds": 1.0})
    asked = Config(data=DataConfig(max_length=0, test_path="other.conll"), serve=ServeConfig(port=9000))
    assert start(run_dir, asked)
    kept = run_dir.read_config()
    assert (kept.serve.port, kept.data.test_path, kept.data.max_length) == (9000, "other.conll", 96)
    # Scores of a corpus that config.yaml no longer names.
    assert run_dir.read_metrics() == {"valid/entity_f1": 0.6, "train/seconds": 1.0}
    assert not run_dir.predictions("test", "conll").exists()


def test_numbers_of_a_training_stay_while_its_weights_are_the_same(run_dir):
    run_dir.write_training_metrics({"weights_sha256": "ab", "train/seconds": 3.0})
    assert run_dir.write_training_metrics({"weights_sha256": "ab", "train/seconds": 9.0})["train/seconds"] == 3.0
    assert run_dir.write_training_metrics({"weights_sha256": "cd", "train/seconds": 9.0})["train/seconds"] == 9.0


def test_overwrite_deletes_the_contents_of_the_run_and_nothing_else(run_dir, tmp_path):
    start(run_dir)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    run_dir.checkpoints.mkdir()
    (run_dir.path / "others").symlink_to(outside)
    run_dir.model.mkdir()
    (run_dir.model / "weights").write_text("old")
    (run_dir.path / "notes.txt").write_text("mine")
    assert not start(run_dir, Config(seed=5), overwrite=True)
    assert names(run_dir.path) == {"config.yaml", "notes.txt", "others"}
    assert (outside / "precious").read_text() == "kept"
    assert load_config(str(run_dir.config_yaml)).seed == 5


@pytest.mark.parametrize("setting", ["init_from", "backbone.source", "distill.teachers"])
def test_overwrite_never_deletes_the_run_that_the_new_one_starts_from(run_dir, setting):
    start(run_dir)
    run_dir.write_text(run_dir.model / "weights", "kept")
    config = load_config(None, [f"{setting}={run_dir.path}/"])
    with pytest.raises(InputError, match=f"--overwrite would delete .*{setting}"):
        run_dir.plan_training(config, mode="distill", overwrite=True)
    assert (run_dir.model / "weights").read_text() == "kept"


def test_overwrite_works_where_another_mode_would_start_from_the_run(run_dir):
    start(run_dir)
    config = load_config(None, [f"distill.teachers={run_dir.path}"])
    assert run_dir.plan_training(config, mode="finetune", overwrite=True) == "overwrite"



@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml", "model"])
def test_a_folder_with_other_files_is_never_touched(run_dir, name, overwrite):
    run_dir.path.mkdir(parents=True)
    (run_dir.path / name).write_text("title: mine")
    with pytest.raises(InputError, match="is left alone"):
        start(run_dir, overwrite=overwrite)
    assert names(run_dir.path) == {name}
    assert (run_dir.path / name).read_text() == "title: mine"


def test_a_file_in_place_of_the_run_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        start(RunDirectory(tmp_path / "file"))


def test_two_processes_cannot_write_one_run_directory(run_dir):
    code = (
        "import sys\n"
        "from app.run.directory import RunDirectory\n"
        "with RunDirectory(sys.argv[1]).locked():\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process is writing"):
        start(run_dir)
    assert not run_dir.config_yaml.exists()
    other.communicate("")
    assert not start(run_dir)


def test_a_run_directory_can_be_moved(run_dir, tmp_path):
    start(run_dir)
    run_dir.path.rename(tmp_path / "moved")
    moved = RunDirectory(tmp_path / "moved")
    moved.require_run()
    assert start(moved)


def test_what_is_not_a_run_says_so(run_dir):
    with pytest.raises(InputError, match="does not exist"):
        run_dir.require_run()
    run_dir.path.mkdir(parents=True)
    with pytest.raises(InputError, match="is not a run directory"):
        run_dir.require_run()


def test_metrics_merge_and_numbers_that_json_lacks_become_null(run_dir):
    run_dir.update_metrics({"test/f1": np.float32(0.5), "steps": np.int64(3), "weights_sha256": "ab"})
    run_dir.update_metrics({"test/f1": 0.75, "train/loss": float("nan")})
    expected = {"test/f1": 0.75, "steps": 3, "weights_sha256": "ab", "train/loss": None}
    assert run_dir.read_metrics() == json.loads(run_dir.metrics_json.read_text()) == expected


def test_history_survives_a_half_written_last_line(run_dir):
    run_dir.append_jsonl(run_dir.history_jsonl, {"step": 1, "word": "a\u2028b"})
    with run_dir.history_jsonl.open("a") as file:
        file.write('{"step": 2, "lo')
    assert run_dir.read_history() == [{"step": 1, "word": "a\u2028b"}]
    run_dir.append_jsonl(run_dir.history_jsonl, {"step": 2})
    assert [record["step"] for record in run_dir.read_history()] == [1, 2]


def test_environment_names_versions_hardware_seed_and_command(run_dir):
    run_dir.write_environment(seed=7, command=["python", "-m", "app.main", "--set", "a b"])
    environment = json.loads(run_dir.environment_json.read_text())
    assert environment["packages"]["tensorflow"].startswith("2.15.")
    assert environment["seed"] == 7 and environment["command"].endswith("--set 'a b'")
    assert environment["cores"] >= 1 and environment["memory_bytes"] > 2**28
    assert {"python", "platform", "cpu", "git_revision"} <= environment.keys()


def test_digest_of_arrays_sees_names_types_shapes_values_and_order(tmp_path):
    array = np.arange(6, dtype=np.float32)
    digests = {
        sha256_of_arrays(arrays)
        for arrays in (
            [("a", array)],
            [("b", array)],
            [("a", array.astype(np.float64))],
            [("a", array.reshape(2, 3))],
            [("a", array + 1)],
            [("a", array), ("b", array + 1)],
            [("b", array + 1), ("a", array)],
        )
    }
    assert len(digests) == 7
    assert sha256_of_arrays([("a", array.reshape(2, 3).T)]) == sha256_of_arrays(
        [("a", array.reshape(2, 3).T.copy())]
    )
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of_file(tmp_path / "empty").startswith("e3b0c44298fc1c149afb")


def test_rewinding_the_history_drops_later_rows_of_that_key_alone(tmp_path):
    run_dir = RunDirectory(tmp_path)
    run_dir.rewind_history("epoch", 3)  # there is none yet
    rows = [{"masked_lm/epoch": 1}, {"masked_lm/epoch": 2}, {"epoch": 1}, {"epoch": 2}]
    for row in rows:
        run_dir.append_jsonl(run_dir.history_jsonl, row)
    run_dir.rewind_history("epoch", 1)
    assert run_dir.read_history() == rows[:3]
    run_dir.rewind_history("masked_lm/epoch", 0)
    assert run_dir.read_history() == [{"epoch": 1}]

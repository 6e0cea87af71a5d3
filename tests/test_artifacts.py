import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.artifacts import TEMPORARY_PREFIX, RunDirectory, atomic, sha256_of_arrays, sha256_of_file
from app.config import Config, InputError
from app.config_loading import load_config


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
        "from app.artifacts import RunDirectory\n"
        "from app.config import Config\n"
        "from app.artifacts import atomic\n"
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
    with pytest.raises(InputError, match=r"seed was 0, now 5; start anew with --overwrite, or .* --run_dir"):
        start(run_dir, Config(seed=5))
    assert load_config(str(run_dir.config_yaml)).seed == 0


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
        "from app.artifacts import RunDirectory\n"
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

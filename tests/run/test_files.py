"""Files on weak, full or odd file systems: what is written through, followed, kept, and told."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Config, InputError
from app.run import files
from app.run.directory import RunDirectory, atomic
from app.run.files import discard, full_disk, grant_usual_access, open_special, reason_of

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def run_dir(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture(autouse=True)
def not_warned_yet(monkeypatch):
    monkeypatch.setattr(files, "_warned", set())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def start(run_dir: RunDirectory, *, overwrite: bool = False) -> None:
    with run_dir.open_for_training(Config(), overwrite=overwrite):
        pass


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to("elsewhere/file")
    for text in ("first, where nothing is yet", "second"):
        with atomic(tmp_path / "one") as waiting:
            assert waiting.parent == tmp_path / "elsewhere"  # the rename stays on one disk
            waiting.write_text(text)
        assert (tmp_path / "elsewhere" / "file").read_text() == text
    assert (tmp_path / "one").is_symlink() and (tmp_path / "two").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


def test_links_in_a_circle_are_an_error_and_stay(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"), atomic(tmp_path / "one") as waiting:
        waiting.write_text("lost")
    assert (tmp_path / "one").is_symlink() and (tmp_path / "two").is_symlink()


def test_a_device_or_pipe_is_written_through_and_stays(tmp_path):
    with atomic("/dev/null") as waiting:
        waiting.write_text("gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    target = open_special(str(tmp_path / "pipe"))
    with target:
        target.write("é\n")
    assert reader.communicate(timeout=20)[0] == "é\n"
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    written_through = ("/dev/null", "/dev/stdout", str(tmp_path / "pipe"), str(tmp_path / "new"), str(tmp_path))
    assert [files.is_written_through(path) for path in written_through] == [True, True, True, False, False]
    assert open_special(str(tmp_path / "new")) is None and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_name_adds_to_what_it_holds(name, tmp_path):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import os, sys\nfrom app.run.files import open_special\n"
        "os.write(1, b'header\\n')\n"
        "with open_special(sys.argv[1]) as target:\n    target.write('line\\n')\n"
        "os.write(1, b'footer\\n')\n"
    )
    with open(tmp_path / "out", "w") as out:
        command = [sys.executable, "-c", code, name]
        variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
        subprocess.run(command, stdout=out, cwd=tmp_path, env=variables, timeout=60, check=True)
    assert (tmp_path / "out").read_text() == "header\nline\nfooter\n"


def test_a_name_as_long_as_a_file_system_allows_can_be_written(tmp_path):
    name = "é" * 119 + "12345.weights.h5"
    assert len(name.encode()) > 250
    with atomic(tmp_path / name) as waiting:
        assert waiting.name.endswith(".weights.h5")
        waiting.write_text("content")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_and_folders_get_the_access_that_the_umask_allows_whatever_a_library_gave(umask, tmp_path):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "folder") as waiting:
            waiting.mkdir(0o700)
            os.close(os.open(waiting / "file", os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic(tmp_path / "file") as waiting:
            os.close(os.open(waiting, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("folder", "folder/file", "file")}
    assert modes == {"folder": 0o777 & ~umask, "folder/file": 0o666 & ~umask, "file": 0o666 & ~umask}


def test_access_that_goes_beyond_the_umask_is_not_taken_away(tmp_path):
    (tmp_path / "script").touch()
    os.chmod(tmp_path / "script", 0o775)
    grant_usual_access(tmp_path / "script")
    assert stat.S_IMODE(os.stat(tmp_path / "script").st_mode) == 0o775


def test_overwrite_empties_what_links_lead_to_and_keeps_the_links(run_dir, tmp_path):
    start(run_dir)
    other_disk = tmp_path / "other disk"
    for name in ("checkpoints", "saved_model"):
        (other_disk / name / "deep").mkdir(parents=True)
        (other_disk / name / "deep" / "old").touch()
    (other_disk / "metrics.json").write_text("{}")
    (run_dir.path / "export" / "tflite").mkdir(parents=True)
    links = {
        run_dir.checkpoints: other_disk / "checkpoints",
        run_dir.saved_model: other_disk / "saved_model",
        run_dir.metrics_json: other_disk / "metrics.json",
    }
    for link, target in links.items():
        link.symlink_to(target)
    start(run_dir, overwrite=True)
    assert all(link.is_symlink() for link in links)
    assert os.listdir(other_disk / "checkpoints") == os.listdir(other_disk / "saved_model") == []
    assert sorted(os.listdir(other_disk)) == ["checkpoints", "saved_model"]
    assert not run_dir.tflite.exists()
    run_dir.write_json(run_dir.metrics_json, {"a": 1})
    assert (other_disk / "metrics.json").read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("target", ["here", "here/run", "home"])
def test_overwrite_never_empties_a_folder_that_holds_more_than_the_run(target, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run_dir = RunDirectory(tmp_path / "here" / "run")
    start(run_dir)
    (tmp_path / target / "precious").touch()
    run_dir.checkpoints.symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="which holds more than this run: delete the link"):
        start(run_dir, overwrite=True)
    assert (tmp_path / target / "precious").exists() and run_dir.is_run()


def test_a_link_to_a_disk_that_is_not_mounted_is_named(run_dir, tmp_path):
    start(run_dir)
    run_dir.checkpoints.symlink_to(tmp_path / "unmounted" / "checkpoints")
    with pytest.raises(InputError, match=r"checkpoints is a link to .*unmounted/checkpoints, which is not there"):
        start(run_dir)


def test_leftovers_of_a_kill_are_removed_behind_links_too_and_nobody_elses(run_dir, tmp_path):
    start(run_dir)
    other = tmp_path / "other"
    other.mkdir()
    run_dir.checkpoints.symlink_to(other)
    (other / "circle").symlink_to(other)
    run_dir.report_txt.symlink_to(tmp_path / "report.txt")
    leftovers = [other / ".tmp-123-best.npz", tmp_path / ".tmp-123-report.txt", run_dir.path / ".tmp-x"]
    others = [other / ".tmp-mine", tmp_path / ".tmp-123-thesis.tex"]
    for path in (*leftovers, *others):
        path.touch()
    start(run_dir)
    assert [path.exists() for path in (*leftovers, *others)] == [False] * 3 + [True] * 2


def test_a_run_in_a_run_clears_up_for_itself(run_dir):
    """Another process may be writing it, such as a trial of a search."""
    start(run_dir)
    inner, outer = RunDirectory(run_dir.path / "trials" / "0"), run_dir.path / "trials" / ".tmp-x"
    start(inner)
    waiting = inner.path / "model" / ".tmp-x"
    waiting.parent.mkdir()
    for path in (waiting, outer):
        path.touch()
    start(run_dir)
    assert waiting.exists() and not outer.exists()
    start(inner)
    assert not waiting.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK])
def test_a_file_system_without_locks_is_one_warning(number, run_dir, monkeypatch, capsys):
    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    start(run_dir)
    start(run_dir)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and warning.startswith("warning: ") and os.strerror(number) in warning
    assert "nothing keeps a second process from writing the same folder" in warning


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_flush_folders_is_one_warning(number, run_dir, monkeypatch, capsys):
    open_, opened = os.open, []

    def refuse_folders(path, *arguments, **more):
        if Path(path).is_dir():
            opened.append(path)
            raise OSError(number, os.strerror(number))
        return open_(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse_folders)
    for text in ("a", "b"):
        run_dir.write_text(run_dir.report_txt, text)
    assert run_dir.report_txt.read_text() == "b" and len(opened) == 2
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "after a power failure" in warning


def test_a_file_that_cannot_be_flushed_is_a_warning(capsys):
    files.flush(Path("/dev/null"))  # has no fsync
    assert "does not say when a file is on the disk (Invalid argument)" in capsys.readouterr().err


def test_a_full_disk_is_named_and_the_old_file_stays(small_disk):
    run_dir = RunDirectory(small_disk / "run")
    run_dir.write_text(run_dir.report_txt, "old")
    with pytest.raises(OSError) as full:
        run_dir.write_text(run_dir.report_txt, "x" * 2**21)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(run_dir.report_txt))
    assert run_dir.report_txt.read_text() == "old" and os.listdir(run_dir.path) == ["report.txt"]
    (small_disk / "filler").write_bytes(b"x" * (2**20 - 3 * 4096))
    with pytest.raises(OSError) as full:
        run_dir.append_jsonl(run_dir.history_jsonl, {"long": "x" * 2**16})
    assert full.value.filename == str(run_dir.history_jsonl)


def test_a_full_disk_is_told_from_other_faults_however_a_library_words_it(tmp_path):
    assert full_disk(RuntimeError("can't write (errno = 28, error message = 'No space left on device')"))
    assert not full_disk(OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(OSError, match="No space left on device") as full, atomic(tmp_path / "file") as waiting:
        waiting.touch()
        raise ValueError('IoError(Os { code: 28, message: "No space left on device" })')
    assert full.value.filename == str(tmp_path / "file") and os.listdir(tmp_path) == []
    assert reason_of(full.value) == "the disk is full"
    cut = reason_of(ValueError("word " * 100 + "\nsecond line"))
    assert cut.endswith("word ...") and len(cut) < 210


def test_a_part_of_a_run_that_is_a_mount_point_is_emptied(small_disk):
    (small_disk / "old").touch()
    discard(small_disk)
    assert os.path.ismount(small_disk) and os.listdir(small_disk) == []


def test_the_first_line_of_a_librarys_words_has_no_name_of_a_node():
    error = RuntimeError("\n{{function_node __wrapped__Save/job:x}} /a/b; No space left on device [Op:Save]\nmore")
    assert files.first_line(error) == "/a/b; No space left on device [Op:Save]"

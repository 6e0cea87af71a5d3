"""What the program is started in: locale, optimization, closed streams, no home, no folder for temporary files."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.config import InputError
from app.run import environment, surroundings

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "data" / "sample"
PROBE = """
import os, sys, tempfile
from pathlib import Path
from app.run import surroundings
surroundings.prepare()
print(sys.flags.optimize, sys.getfilesystemencoding(), sys.argv[1:], Path.home(), flush=True)
"""
# Python's own words for the encoding of a locale that is not UTF-8, without any such locale installed.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*command: str | bytes, cwd: Path, without: tuple[str, ...] = (), **environment: str):
    variables = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    for name in ("APP_TRACEBACK", *without):
        variables.pop(name, None)
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, encoding="utf-8", timeout=60, stdin=subprocess.DEVNULL
    )


def run_probe(*options: str, folder: Path, arguments: tuple[str, ...] = (), **environment: str):
    (folder / "probe.py").write_text(PROBE, encoding="utf-8")
    return run(sys.executable, *options, "-m", "probe", *arguments, cwd=folder, **environment)


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory) -> dict[str, str]:
    """The environment of a locale in ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    compiler = shutil.which("localedef")
    command = [compiler or "", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
    if not compiler or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no locale in ISO-8859-1 can be made here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.fixture(params=["ascii", "latin_1", "C", "POSIX"])
def locale(request) -> dict[str, str]:
    if request.param in ("C", "POSIX"):
        return {"LC_ALL": request.param}
    return ASCII if request.param == "ascii" else request.getfixturevalue("latin_1")


def test_names_of_files_are_utf8_in_any_locale(locale, tmp_path):
    (tmp_path / "Zürich").mkdir()
    for split in ("train", "valid", "test"):
        shutil.copy(SAMPLE / f"{split}.conll", tmp_path / "Zürich")
    paths = "".join(f"  {split}_path: Zürich/{split}.conll\n" for split in ("train", "valid", "test"))
    (tmp_path / "run.yaml").write_text(f"data:\n{paths}", encoding="utf-8")
    flags = ("--mode=finetune", "--config=run.yaml", "--run_dir=Läufe/Müller", "--dry_run")
    done = run(sys.executable, "-m", "app.main", *flags, cwd=tmp_path, **locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train_path: Zürich/train.conll" in done.stdout and "run directory: Läufe/Müller (new)" in done.stdout


def test_a_name_that_is_not_utf8_is_taken_and_printed_as_it_is(locale, tmp_path):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    flags = (b"--mode=finetune", b"--run_dir=runs/\xe9", b"--dry_run")
    environment = {**os.environ, **locale}
    done = subprocess.run(
        [sys.executable, "-m", "app.main", *flags], cwd=tmp_path, env={**environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"") and b"\\udce9 (new)" in done.stdout


def test_output_in_an_encoding_that_lacks_a_letter_is_no_failure(tmp_path):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    flags = ("--mode=finetune", "--run_dir=Läufe", "--dry_run")
    done = run(sys.executable, "-m", "app.main", *flags, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "L\\xe4ufe" in done.stdout


@pytest.mark.parametrize(
    ("options", "variables"),
    [((), {"PYTHONOPTIMIZE": "2"}), (("-OO",), {}), (("-O",), {}), ((), {"PYTHONOPTIMIZE": "1"})],
)
def test_python_is_started_again_without_optimization_which_libraries_cannot_bear(options, variables, tmp_path):
    done = run_probe(*options, folder=tmp_path, arguments=("--a", "b c"), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 utf-8 ['--a', 'b c'] ")


def test_nothing_is_started_again_where_all_is_well(monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started again"))
    surroundings.restart_as_needed()


@pytest.mark.parametrize(
    ("closed", "names"),
    [
        (">&-", ["stdout"]), ("2>&-", ["stderr"]), ("<&-", ["stdin"]), (">&- 2>&-", ["stderr", "stdout"]),
        ("<&- >&- 2>&-", ["stderr", "stdin", "stdout"]),
    ],
)  # fmt: skip
def test_a_closed_stream_is_never_taken_by_a_file(closed, names, tmp_path):
    (tmp_path / "probe.py").write_text(
        PROBE + "file = open('written', 'w')\nprint('result'); print('message', file=sys.stderr)\n"
        "os.write(1, b'low'); os.write(2, b'low')\n"
        "sys.stdin.read()\nfile.write(f'{file.fileno() > 2} {sorted(surroundings.CLOSED)}')\n",
        encoding="utf-8",
    )
    done = run("bash", "-c", f"{sys.executable} -m probe {closed}", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "written").read_text() == f"True {names}"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_dry_run_with_closed_streams_ends_as_ever(closed, tmp_path):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    command = f"{sys.executable} -m app.main --mode=finetune --dry_run {closed}"
    assert run("bash", "-c", command, cwd=tmp_path).returncode == 0
    assert run("bash", "-c", command.replace("finetune", "finetun"), cwd=tmp_path).returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_a_full_standard_output_is_one_sentence(tmp_path):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    done = run("bash", "-c", f"{sys.executable} -m app.main --mode=finetune --dry_run >/dev/full", cwd=tmp_path)
    assert done.returncode == 1 and "the disk is full" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_a_user_id_without_a_name_and_home_gets_one(tmp_path):
    # The interpreter may lie where the other user may not look, so it imports first.
    become = "import tempfile\nfrom app.run import surroundings\nimport os; os.setgid(54321); os.setuid(54321)\n"
    done = run(sys.executable, "-c", become + PROBE, cwd=tmp_path, without=("HOME",))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().endswith("] /")


def test_without_a_temporary_folder_memory_is_used_or_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(surroundings, "_MEMORY_FOLDER", str(tmp_path / "neither"))
    with pytest.raises(InputError, match="no folder for temporary files can be written, TMPDIR is .*none: set TMPDIR"):
        surroundings.find_temporary_folder()
    monkeypatch.setattr(surroundings, "_MEMORY_FOLDER", str(tmp_path))
    surroundings.find_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path)


def test_the_revision_is_found_whatever_files_are_called(monkeypatch, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.quotePath=false"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "config", "core.quotePath", "false"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    monkeypatch.setattr(environment, "_PROJECT", tmp_path)
    clean = environment._git_revision()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))).touch()
    assert clean is not None and environment._git_revision() == f"{clean}+changes"


def test_the_revision_is_that_of_the_folder_that_holds_the_program():
    project = Path(__file__).resolve().parents[2]
    assert environment._PROJECT == project and (project / "setup.cfg").is_file()

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags
from absl.testing import flagsaver

from app import main as app_main
from app.config import Config, InputError, RunError
from app.config.loading import load_config
from app.run.directory import RunDirectory

PROJECT = Path(__file__).parent.parent


def run_app(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    variables.pop("APP_TRACEBACK", None) if "APP_TRACEBACK" not in environment else None
    return subprocess.run(
        [sys.executable, "-m", "app.main", *arguments],
        cwd=cwd, env=variables, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def with_sample(tmp_path) -> Path:
    """A folder that the sample corpus lies in, as in the project's own."""
    (tmp_path / "data").symlink_to(PROJECT / "data")
    return tmp_path


def make_run(path: Path, config: Config | None = None) -> None:
    with RunDirectory(path).open_for_training(config or Config()):
        pass


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_is_one_short_screen_with_modes_flags_and_examples(flag, tmp_path):
    done = run_app(flag, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) < 40 and max(map(len, lines)) <= 120
    for name in [
        *app_main.MODES,
        "--config",
        "--set",
        "--run_dir",
        "--dry_run",
        "--overwrite",
        "--input",
        "examples:",
    ]:
        assert name in done.stdout


def test_dry_run_prints_a_config_file_that_loads_and_touches_nothing(tmp_path, with_sample):
    done = run_app("--mode=finetune", "--dry_run", "--set", "seed=9", "--set=data.tfds_dir=a=b", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "run directory: runs/finetune (new)" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]
    (tmp_path / "again.yaml").write_text(done.stdout)
    config = load_config(str(tmp_path / "again.yaml"))
    assert (config.seed, config.data.tfds_dir) == (9, "a=b")


def test_dry_run_does_not_show_a_password(tmp_path, with_sample):
    url = "postgresql://me:s3cret@host/name"
    done = run_app("--mode=finetune", "--dry_run", f"--set=feedback.url={url}", cwd=tmp_path)
    assert done.returncode == 0 and "url: postgresql://me:***@host/name" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


def test_dry_run_prints_the_config_also_where_its_corpora_are_missing_and_says_so(tmp_path):
    done = run_app("--mode=finetune", "--dry_run", "--set", "seed=9", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.train_path: data/sample/train.conll is missing (")
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert load_config(str(tmp_path / "again.yaml")).seed == 9
    assert [path.name for path in tmp_path.iterdir()] == ["again.yaml"]


def test_help_dry_run_and_a_bad_flag_load_neither_tensorflow_nor_numpy(tmp_path, with_sample):
    code = (
        "import sys\nfrom app import main\n"
        "try:\n    main.absl_app.run(main.main, sys.argv, flags_parser=main.parse_flags)\n"
        "except SystemExit:\n    pass\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\nprint('light')"
    )
    for flag in ("--help", "--dry_run", "--nonsense"):
        command = [sys.executable, "-c", code, "--mode=finetune", flag]
        variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.endswith("light\n"), done.stderr


def test_help_answers_in_under_a_second(tmp_path):
    def seconds() -> float:
        begin = time.perf_counter()
        run_app("--help", cwd=tmp_path)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(3)) < 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--mode must be one of pretrain, finetune"]),
        (["--mode=finetun"], ["'finetun'", "did you mean finetune?"]),
        (["--mode=finetune", "--overwrit"], ["overwrit", "Did you mean: overwrite"]),
        (["--mode=finetune", "--dry_run=perhaps"], ["dry_run", "perhaps"]),
        (["--mode=finetune", "seed=3"], ["unexpected argument 'seed=3'"]),
        (["--mode=finetune", "--set", "seed"], ["--set takes section.key=value"]),
        (["--mode=finetune", "--set", "sed=3"], ["unknown key sed in --set; did you mean seed?"]),
        (["--mode=compress", "--set=compression.clusters=8"], ["clusters is now compression.cluster.values"]),
        (["--mode=finetune", "--config=none.yaml"], ["none.yaml", "No such file"]),
        (["--mode=finetune", "--input=a.txt"], ["--input belongs to --mode=predict"]),
        (["--mode=evaluate", "--overwrite"], ["--overwrite belongs to --mode=pretrain or finetune or distill"]),
        (["--mode=evaluate"], ["runs/finetune does not exist", "--mode=finetune", "--run_dir"]),
        (["--mode=predict"], ["--mode=predict needs --input=FILE"]),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_status_2(arguments, parts, tmp_path):
    done = run_app(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts), done.stderr


def test_a_traceback_is_shown_when_asked_for(tmp_path):
    done = run_app("--mode=none", cwd=tmp_path, APP_TRACEBACK="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith(
        "error: --mode must be one of"
    )


def test_dry_run_tells_resume_from_overwrite_and_refuses_another_config(tmp_path, with_sample):
    make_run(tmp_path / "runs" / "finetune")
    replaced = run_app("--mode=finetune", "--dry_run", "--set", "seed=1", cwd=tmp_path)
    assert replaced.returncode == 0 and "take the place of a run of another" in replaced.stdout
    (tmp_path / "runs" / "finetune" / "model").mkdir()
    assert "resume the run" in run_app("--mode=finetune", "--dry_run", cwd=tmp_path).stdout
    refused = run_app("--mode=finetune", "--dry_run", "--set", "seed=1", cwd=tmp_path)
    assert refused.returncode == 2 and "seed was 0, now 1" in refused.stderr
    other = run_app("--mode=finetune", "--dry_run", "--set", "seed=1", "--overwrite", cwd=tmp_path)
    assert other.returncode == 0 and "delete the run" in other.stdout


def test_evaluate_takes_the_config_of_its_run_directory_with_set_on_top(tmp_path):
    make_run(tmp_path / "moved", Config(seed=4))
    done = run_app(
        "--mode=evaluate", "--run_dir=moved", "--dry_run", "--set", "data.test_path=x.conll", cwd=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "moved/model does not exist: the run has not finished" in done.stderr
    assert "seed: 4" in done.stdout and "test_path: x.conll" in done.stdout


@pytest.fixture
def run_main(monkeypatch, capsys, with_sample):
    """Runs main() in this process with a mode that raises what it is given."""
    monkeypatch.chdir(with_sample)
    monkeypatch.delenv("APP_TRACEBACK", raising=False)

    def run(failure: BaseException) -> tuple[int, str]:
        class FailingMode:
            @staticmethod
            def run(request):
                raise failure

        monkeypatch.setattr(app_main, "import_mode", lambda name, **_: FailingMode)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["test"])
        with flagsaver.flagsaver(mode="finetune"):
            status = app_main.main(["app.main"])
        announced, _, message = capsys.readouterr().err.partition("\n")
        assert announced == "finetune: loading TensorFlow ..."
        return status, message

    return run


def test_a_search_that_is_interrupted_says_what_is_kept_and_how_it_goes_on(monkeypatch, capsys, with_sample):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.chdir(with_sample)
    monkeypatch.setattr(app_main, "import_mode", lambda *_, **__: SimpleNamespace(run=interrupt))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])
    for overwrite, again in ((False, "the same command goes on"), (True, "the same command without --overwrite goes")):
        with flagsaver.flagsaver(mode="tune", overwrite=overwrite):
            assert app_main.main(["app.main"]) == 130
        said = capsys.readouterr().err
        assert said.startswith("stopped: interrupted; finished trials are kept; ") and again in said
        assert said.endswith("the trial under way from its last checkpoint\n")


def test_the_settings_of_a_search_that_cannot_be_are_refused_before_they_are_printed(tmp_path, with_sample):
    space = "tune.space={seed: [1, 2]}"
    done = run_app("--mode=tune", "--dry_run", f"--set={space}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: tune.space: seed cannot be searched, it is the same in all trials")


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    ("failure", "status", "part"),
    [
        (InputError("line 3 of x is bad"), 2, "error: line 3 of x is bad\n"),
        (RunError("the loss is not a number at step 7"), 1, "error: the loss is not a number at step 7\n"),
        (KeyboardInterrupt(), 130, "the same command resumes the run\n"),
        (MemoryError(), 1, "error: out of memory; lower the batch size"),
        (ResourceExhaustedError("OOM when allocating tensor\nwith shape"), 1, "error: out of memory"),
        (ResourceExhaustedError("/x/ckpt; No space left on device"), 1, "error: the disk is full"),
        (OSError(errno.ENOSPC, "No space left on device", "model/w.h5"), 1, "error: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), 1, "Permission denied: '/runs'\n"),
        (
            ValueError("first line\nsecond line"),
            1,
            "error: ValueError: first line (APP_TRACEBACK=1 shows where)\n",
        ),
        (KeyError(), 1, "error: KeyError: "),
    ],
)
def test_every_failure_has_its_exit_status_and_one_line(run_main, failure, status, part):
    received, text = run_main(failure)
    assert received == status
    assert part in text and text.count("\n") == 1


def test_a_reader_that_goes_away_is_no_traceback(tmp_path, with_sample):
    command = f"{sys.executable} -m app.main --mode=finetune --dry_run"
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    code = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1].split(), stdout=subprocess.PIPE, stderr=2);"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "p.stdout.close(); sys.exit(p.wait())", command],
        cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_every_mode_module_exists_and_runs_on_a_request():
    for mode in app_main.MODES.values():
        source = (PROJECT / Path(*mode.module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        assert "def run(request: Request) -> dict[str, float]:" in source, mode.module

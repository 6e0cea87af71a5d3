"""Mistakes that cost no minute: what can be known without TensorFlow is told without it. See benchmarks/mistakes.py."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
specification = importlib.util.spec_from_file_location("mistakes", PROJECT / "benchmarks" / "mistakes.py")
table = importlib.util.module_from_spec(specification)
sys.modules["mistakes"] = table
specification.loader.exec_module(table)

# The program for each call, in a fork of one process that has imported what --help needs.
RUN_ALL = """
import json, os, sys
from app import checks, main
import app.tasks.tagging.jsonl, yaml  # these forks share; the light ones

for call in json.load(sys.stdin):
    number = os.fork()
    if number:
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        out, err, modules = (open(f"said.{name}", encoding="utf-8").read() for name in ("out", "err", "modules"))
        print(json.dumps({"status": status, "out": out, "err": err, "modules": modules.split()}), flush=True)
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"said.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(call["environment"])
    main.import_mode = lambda name, **_: sys.exit(f"app.modes.{name} was imported")
    sys.argv, status = ["app.main", *call["arguments"]], 1
    try:
        main.absl_app.run(main.main, sys.argv, flags_parser=main.parse_flags)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 99
    sys.stdout.flush()
    with open("said.modules", "w", encoding="utf-8") as file:
        file.write(" ".join(sorted({"tensorflow", "keras", "numpy", "apache_beam"} & set(sys.modules))))
    os._exit(status)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[table.Call, dict]]:
    """All calls of the table with what the program did."""
    folder = tmp_path_factory.mktemp("mistakes")
    with table.prepare(folder) as port:
        calls = [*table.mistakes(port), *table.good_calls()]
        asked = [{"arguments": call.arguments, "environment": call.environment} for call in calls]
        before = sorted(str(path) for path in folder.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL], input=json.dumps(asked), cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        after = sorted(str(path) for path in folder.rglob("*") if not path.name.startswith("said."))
    assert after == before, "a check wrote something"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({call.name for call in calls}) == len(calls) == len(found)
    return {call.name: (call, answer) for call, answer in zip(calls, found, strict=True)}


@pytest.mark.parametrize("name", [call.name for call in table.mistakes(1)])
def test_a_cheap_mistake_is_one_line_and_exit_status_2_and_tensorflow_is_not_imported(answers, name):
    call, answer = answers[name]
    assert answer["status"] == 2, answer
    assert answer["err"].startswith("error: ") and answer["err"].count("\n") == 1
    assert call.says in answer["err"]
    assert answer["modules"] == []


@pytest.mark.parametrize("name", [call.name for call in table.good_calls()])
def test_a_good_call_passes_the_checks_without_tensorflow(answers, name):
    _, answer = answers[name]
    assert (answer["status"], answer["err"]) == (0, "")
    assert answer["out"].startswith("# ") and answer["modules"] == []


def test_every_mode_has_a_check():
    from app import checks, main

    assert checks.CHECKS.keys() == main.MODES.keys()
    assert {flag.removeprefix("--mode=") for call in table.good_calls() for flag in call.arguments} >= set(main.MODES)


def test_a_folder_without_write_permission_is_told(tmp_path):
    from app.checks import _check_writable
    from app.config import InputError

    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be made: .* cannot be written"):
        _check_writable(tmp_path / "run", "--run_dir")

"""How the processes of one search share the cores of a machine."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from app.checks import check
from app.config import Config, DataConfig, InputError, TuneConfig
from app.run.directory import Request, RunDirectory
from app.search import helpers
from app.search.helpers import helped, share_cores


@pytest.mark.parametrize(
    ("cores", "processes", "expected"),
    [
        ({0, 1}, 1, [{0, 1}]),
        ({0, 1}, 2, [{0}, {1}]),
        ({2, 3, 4, 6, 7}, 2, [{2, 3}, {4, 6, 7}]),
        (set(range(8)), 3, [{0, 1}, {2, 3, 4}, {5, 6, 7}]),
    ],
)
def test_every_core_that_may_be_used_goes_to_one_process(monkeypatch, cores, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert share_cores(processes) == expected


def test_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    with pytest.raises(InputError, match=r"tune\.processes must be at most .*, 2; received 3"):
        share_cores(3)


def test_a_dry_run_tells_so_too(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    data = DataConfig(train_path=str(tmp_path / "a.conll"), valid_path=str(tmp_path / "a.conll"), test_path="")
    (tmp_path / "a.conll").write_text("Ada B-PER\nmet O\n")
    config = replace(Config(), data=data, tune=TuneConfig(processes=2))
    with pytest.raises(InputError, match=r"tune\.processes must be at most .*, 1; received 2"):
        check("tune", Request(config, RunDirectory(tmp_path / "run")))


def test_a_helper_that_is_killed_is_told_of_and_the_cores_are_given_back(tmp_path, monkeypatch, capsys):
    started, popen = [], subprocess.Popen

    def start(command, **options):
        started.append(popen([sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"], **options))
        return started[-1]

    monkeypatch.setattr(helpers.subprocess, "Popen", start)
    before = os.sched_getaffinity(0)
    share = frozenset([min(before)])
    with helped(Config(), RunDirectory(tmp_path), [share, share, share]):
        assert os.sched_getaffinity(0) == share
        started[0].kill()
        started[0].wait()
    assert os.sched_getaffinity(0) == before
    assert [each.returncode for each in started] == [-9, 3]
    assert capsys.readouterr().err == f"warning: process {started[0].pid} of the search was ended by signal 9\n"


def test_helpers_are_killed_if_they_take_too_long(tmp_path, monkeypatch, capsys):
    popen, sleep = subprocess.Popen, [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(helpers, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(helpers.subprocess, "Popen", lambda _, **options: popen(sleep, **options))
    with helped(Config(), RunDirectory(tmp_path), [frozenset(), frozenset()]):
        pass
    assert "was ended by signal 9" in capsys.readouterr().err


def test_a_search_goes_on_without_a_helper_that_cannot_be_started(tmp_path, monkeypatch, capsys):
    popen, started = subprocess.Popen, []

    def start(command, **options):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(popen([sys.executable, "-c", "import sys; sys.stdin.read()"], **options))
        return started[0]

    monkeypatch.setattr(helpers.subprocess, "Popen", start)
    reached = False
    with helped(Config(), RunDirectory(tmp_path), [frozenset()] * 3):
        reached = True
    assert reached and started[0].returncode == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: a process of the search cannot be started: ") and "temporarily unavailable" in said

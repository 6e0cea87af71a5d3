import os
import subprocess
import sys
import time
from pathlib import Path

from app.run import screen as heartbeat

PROJECT = Path(__file__).parents[2]


def test_a_long_block_says_now_and_then_that_it_is_at_work_and_a_short_one_nothing(monkeypatch, capfd):
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_LINES", 0.2)
    with heartbeat.heartbeat("scoring test"):
        time.sleep(0.5)
    with heartbeat.heartbeat("short"):
        pass
    with heartbeat.heartbeat("another worker", shown=False):
        time.sleep(0.3)
    assert capfd.readouterr().err == "scoring test: 0 s so far\n" * 2


def test_it_is_heard_while_libraries_are_kept_off_the_screen():
    code = (
        "import os, time\nfrom app.run import screen as heartbeat\nfrom app.run.screen import quiet\n"
        "heartbeat.SECONDS_BETWEEN_LINES = 0.2\n"
        "with heartbeat.heartbeat('converting'), quiet():\n    os.write(2, b'a library')\n    time.sleep(0.3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "converting: 0 s so far\n")

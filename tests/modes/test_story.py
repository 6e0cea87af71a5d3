"""From a wrong answer on the page to a better one: typed, corrected, saved, learnt, promoted, typed again."""

import re
import signal
import subprocess

import pytest
from browsing import CHROMIUM, marks, save, select, until, write
from taught import HELD_OUT, SETTINGS, command, corrections

from app.feedback.learning import is_held_out
from app.feedback.store import FILE_NAME, Store
from app.feedback.versions import read_labels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (set CHROMIUM to a browser)"),
]


def wait_for_url(server: subprocess.Popen) -> str:
    said = ""
    for line in server.stderr:
        said += line
        if found := re.search(r"(http://[\d.:]+)/ is ready", line):
            return found[1]
    raise AssertionError(f"the server ended before it was ready: {said}")


def test_a_correction_made_on_the_page_is_learnt_promoted_and_answered(trained_run, tmp_path, app_process, browser):
    ner = tmp_path / "ner"
    trained_run.copy(ner)

    def call(*arguments: str) -> str:
        process = app_process(*arguments, cwd=tmp_path)
        _, messages = process.communicate(timeout=500)
        assert process.returncode == 0, messages
        return messages

    call("--mode=export", f"--run_dir={ner}", "--set=export.formats=saved_model")
    server = app_process(
        "--mode=serve", f"--run_dir={ner}", "--set=serve.port=0", "--set=serve.reload_seconds=1", cwd=tmp_path
    )
    try:
        url = wait_for_url(server)
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.set_default_timeout(30_000)
        page.goto(url)
        page.wait_for_selector("#text")
        others = corrections(60)
        taught = others.pop(next(n for n, each in enumerate(others) if not is_held_out(each.text, HELD_OUT)))
        write(page, taught.text)
        assert marks(page)[0] != ("City", "LOC")  # the first words are "old City"; without a name it is none so far
        while marks(page)[0][0] in ("old", "City", "old City"):
            page.locator("#result mark").first.click()
            page.get_by_role("button", name="Delete").click()
        select(page, "City")
        page.locator("#toolbar").get_by_role("button", name="LOC").click()
        assert marks(page)[0] == ("City", "LOC")
        assert f"{FILE_NAME}, 1 correction so far" in save(page)
        with Store.open(f"sqlite:///{ner / FILE_NAME}") as store:  # what others corrected
            store.add(others)
        settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
        call(*command(tmp_path / "ner-2", init_from=ner), *settings)
        assert read_labels(ner).canary == 2
        call(*command(ner, update__promote="stable"))
        until(page, "async () => (await (await fetch('/about')).json()).models[0].stable === 2", timeout=60_000)
        page.reload()
        write(page, taught.text)
        assert marks(page)[0] == ("City", "LOC")
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)

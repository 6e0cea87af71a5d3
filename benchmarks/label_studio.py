"""A real Label Studio against `--mode=serve`: what it shows of the model, and what becomes of an annotation.

    python3.11 -m venv /tmp/ls && /tmp/ls/bin/pip install 'label-studio==1.23.*'
    python benchmarks/label_studio.py runs/finetune --label_studio=/tmp/ls/bin/label-studio --chromium=/usr/bin/chromium

The run needs an export and a model that tags. Starts both servers on free ports, the model's with a key. Makes a
project, connects the model, imports texts with letters beyond U+FFFF among them, lets Label Studio ask for predictions,
annotates, changes and deletes the annotation, and compares with the server's own answers and its store at each step.
With Chromium it also compares the words that Label Studio highlights. Ends with 0 if all is as it should be.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TEXTS = (
    "Angela Merkel visited Siemens in Munich on Monday.",
    "🎉🎉 Ban Ki-moon of the United Nations spoke in Geneva 🇨🇭 with Peter Smith.",
    "Nothing is named here.",
)
MAIL = "annotator@example.org"


class Client:
    """JSON over HTTP with a header that proves who asks."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url, self.headers = url, {"Content-Type": "application/json", **headers}

    def __call__(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method or 'request'} {path}: {error.code} {error.read().decode()[:2000]}") from error


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(command: list[str], *, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=PROJECT, env={**os.environ, **variables}, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_for(what: str, ask: Callable[[], Any], *, seconds: float = 300.0, process: Any = None, log: Any = None) -> Any:
    """What `ask` gives as soon as it is not empty."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found := ask():
                return found
        except (OSError, SystemExit):
            pass
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.5)
    raise SystemExit(f"{what}: did not happen\n{log.read_text(errors='replace')[-3000:] if log else ''}")


def check(name: str, found: Any, expected: Any) -> None:
    good = found == expected
    print(f"{'ok ' if good else 'BAD'} {name}" + ("" if good else f"\n    found    {found}\n    expected {expected}"))
    if not good:
        raise SystemExit(1)


def spans(results: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    values = [each["value"] for each in results]
    return sorted((each["start"], each["end"], each["labels"][0]) for each in values)


def set_up(studio: Client, model: Client, *, backend: str) -> tuple[int, list[int]]:
    """A project with the model connected and texts imported: its number and those of its tasks."""
    labels = model("/about")["labels"]
    types = sorted({label.partition("-")[2] for label in labels if label != "O"})
    options = "".join(f'<Label value="{each}"/>' for each in types)
    config = f'<View><Labels name="label" toName="text">{options}</Labels><Text name="text" value="$text"/></View>'
    project = studio("/api/projects/", {"title": "benchmark", "label_config": config, "show_collab_predictions": True})
    found = studio("/api/ml/", {"url": backend, "project": project["id"], "title": "model"})
    check("Label Studio is connected", found["readable_state"], "Connected")
    print(f"    its version is {found['model_version']}")
    studio(f"/api/projects/{project['id']}/import", [{"data": {"text": text}} for text in TEXTS])
    tasks = studio(f"/api/tasks?project={project['id']}")["tasks"]
    return project["id"], [task["id"] for task in sorted(tasks, key=lambda task: TEXTS.index(task["data"]["text"]))]


def compare_predictions(studio: Client, model: Client, *, project: int, tasks: list[int]) -> None:
    """Label Studio's predictions are the server's answers."""
    action = {"selectedItems": {"all": True, "excluded": []}, "filters": {"conjunction": "and", "items": []}}
    studio(f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", action)
    answers = model("/entities", {"texts": list(TEXTS)})["answers"]
    for number, (task, answer) in enumerate(zip(tasks, answers, strict=True), 1):
        predictions = studio(f"/api/tasks/{task}/")["predictions"]
        expected = sorted((each["start"], each["end"], each["label"]) for each in answer["entities"])
        check(f"predictions of text {number}: {expected}", [spans(each["result"]) for each in predictions], [expected])
    assert any(answer["entities"] for answer in answers), "the model finds nothing in any of the texts"


def annotate(studio: Client, model: Client, *, task: int) -> None:
    """An annotation reaches the store, its change too, and it leaves when it is deleted."""
    text = TEXTS[1]
    start = text.index("Geneva")
    value = {"start": start, "end": start + 6, "text": "Geneva", "labels": ["LOC"]}
    region = {"id": "b1", "from_name": "label", "to_name": "text", "type": "labels", "value": value}

    def stored() -> list[dict[str, Any]]:
        found = model("/feedback?limit=50")["corrections"]
        return [each for each in found if each["text"] == text]

    made = studio(f"/api/tasks/{task}/annotations/", {"result": [region], "lead_time": 1.0})
    found = wait_for("the annotation in the store", stored, seconds=20)
    entity = {"start": start, "end": start + 6, "label": "LOC"}
    check("the annotation is in the store", [each["answer"] for each in found], [{"entities": [entity]}])
    number = studio("/api/current-user/whoami")["id"]
    check("with who said it", found[0]["author"], f"label_studio:{number}")
    check("and the model's answer", bool(found[0]["prediction"]["entities"]) and found[0]["version"] > 0, True)
    start = text.index("United")
    more = {"start": start, "end": start + 14, "text": "United Nations", "labels": ["ORG"]}
    both = [region, {**region, "id": "b2", "value": more}]
    studio(f"/api/annotations/{made['id']}/", {"result": both}, method="PATCH")
    wait_for("the change in the store", lambda: len(stored()) == 2, seconds=20)
    check("the newest is its change", [each["label"] for each in stored()[0]["answer"]["entities"]], ["ORG", "LOC"])
    studio(f"/api/annotations/{made['id']}/", method="DELETE")
    wait_for("the deletion in the store", lambda: not stored(), seconds=20)
    print("ok  deleted there, it is deleted here")


def compare_highlights(
    studio: str, chromium: str, *, project: int, task: int, password: str, expected: list[str]
) -> None:
    """The words that Label Studio's editor highlights are those that the model found."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{studio}/user/login/", wait_until="domcontentloaded")
        page.fill("input[name=email]", MAIL)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url, timeout=120_000)
        page.goto(f"{studio}/projects/{project}/data?task={task}", wait_until="domcontentloaded")
        page.wait_for_selector("[class*=htx-highlight]", timeout=120_000)
        page.wait_for_timeout(1000)
        found = page.eval_on_selector_all("[class*=htx-highlight]", "all => all.map(each => each.textContent)")
        browser.close()
    check(f"highlighted: {expected}", sorted(found), sorted(expected))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run_dir")
    parser.add_argument("--label_studio", required=True, help="its program")
    parser.add_argument("--chromium", default="", help="a browser to look at Label Studio with")
    arguments = parser.parse_args()
    key, token, password = secrets.token_hex(16), secrets.token_hex(20), secrets.token_hex(8)
    ports = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = folder / "model.log", folder / "studio.log"
        serve = [
            sys.executable, "-m", "app.main", "--mode=serve", f"--run_dir={Path(arguments.run_dir).resolve()}",
            f"--set=serve.port={ports[0]}", f"--set=feedback.url=sqlite:///{folder / 'feedback.sqlite'}",
        ]  # fmt: skip
        start = [
            arguments.label_studio, "start", "--no-browser", "--port", str(ports[1]), "--username", MAIL,
            "--password", password, "--user-token", token, "--log-level", "WARNING",
        ]  # fmt: skip
        # Both run on this machine, which Label Studio takes for an attack unless it is told otherwise.
        variables = {
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder), "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "SSRF_PROTECTION_ENABLED": "false", "ML_BLOCK_LOCAL_IP": "false", "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
        }  # fmt: skip
        model = Client(f"http://127.0.0.1:{ports[0]}", Authorization=f"Bearer {key}")
        studio = Client(f"http://127.0.0.1:{ports[1]}", Authorization=f"Token {token}")
        with (
            running(serve, log=logs[0], APP_API_KEY=key) as one,
            running(start, log=logs[1], **variables) as two,
        ):
            began = time.monotonic()
            wait_for("the model", lambda: model("/readyz"), process=one, log=logs[0])
            print(f"ok  the model answers after {time.monotonic() - began:.0f} s")
            wait_for("Label Studio", lambda: studio("/api/projects/"), process=two, log=logs[1])
            print(f"ok  Label Studio answers after {time.monotonic() - began:.0f} s")
            project, tasks = set_up(studio, model, backend=f"http://any:{key}@127.0.0.1:{ports[0]}")
            compare_predictions(studio, model, project=project, tasks=tasks)
            if arguments.chromium:
                answer = model("/entities", {"texts": [TEXTS[1]]})["answers"][0]
                expected = [each["text"] for each in answer["entities"]]
                place = {"project": project, "task": tasks[1], "password": password}
                compare_highlights(studio.url, arguments.chromium, **place, expected=expected)
            annotate(studio, model, task=tasks[1])


if __name__ == "__main__":
    main()

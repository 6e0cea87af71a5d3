"""Whatever writes says alike that the disk is full, and changes nothing. On a small file system of its own."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from served import ask, correction, fetch, serving

from app.feedback.versions import read_labels

WORDS = "Ada met Bob ."
EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": {"id": 1, "data": {"text": WORDS}}}
LEFT = {"id": 5, "result": [], "updated_at": "2024-05-01T00:00:00Z"}
WRITING = [
    ("POST", "/feedback", {"corrections": [correction(WORDS, ("Bob", "PER"))]}),
    ("DELETE", "/feedback?author=Cleo", None),
    ("POST", "/queue", {"texts": [WORDS]}),
    ("POST", "/promote", {"version": 1}),
    ("POST", "/promote", {"version": 1, "label": "canary"}),
    ("POST", "/rollback", {}),
    ("POST", "/webhook", {**EVENT, "annotation": LEFT}),
    ("POST", "/webhook", {**EVENT, "annotation": {**LEFT, "was_cancelled": True}}),
    ("POST", "/webhook", {"action": "ANNOTATION_DELETED", "project": {"id": 1}, "annotation": {"id": 4}}),
]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small_disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "everything else"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


@pytest.fixture(scope="module")
def site(served_run, small_disk):
    """The URL of a server on a disk that is full since a correction and an annotation came, what fills it, the run."""
    run = small_disk / "run"
    shutil.copytree(served_run, run)
    shutil.copytree(run / "export" / "saved_model" / "1", run / "export" / "saved_model" / "2")
    (run / "export" / "labels.json").write_text(
        '{"stable": 2, "canary": null, "history": [["2024-05-01T00:00:00Z", "stable", 1, 2, "promoted"]]}'
    )
    with serving(run, runtime="tflite") as url:
        filling = fill(small_disk)
        status, answer = ask(url, "/feedback", WRITING[0][2])  # which makes the database
        assert status == 507 and "could not be made: the disk is full" in answer["error"]
        filling.unlink()
        assert ask(url, "/feedback", {"corrections": [correction(WORDS, ("Ada", "PER"), author="Cleo")]})[0] == 201
        assert ask(url, "/webhook", {**EVENT, "annotation": {**LEFT, "id": 4}})[0] == 201
        yield url, fill(small_disk), run


@pytest.mark.parametrize(("method", "path", "body"), WRITING)
def test_all_that_writes_refuses_alike_and_changes_nothing(site, method, path, body):
    url, _, run = site
    before, labels = ask(url, "/feedback")[1]["corrections"], read_labels(run)
    status, headers, content = fetch(url, path, body, method=method)
    assert status == 507 and "Retry-After" not in headers, content
    said = json.loads(content)["error"]
    # Where there is nothing to delete, SQLite first stumbles over what it has still to move from its log.
    cleaning = bool(body and body.get("annotation", {}).get("was_cancelled"))
    expected = "make room, then delete once more" if cleaning else "it is as it was, make room and try again"
    assert "the disk is full" in said and said.endswith(expected)
    assert (ask(url, "/feedback")[1]["corrections"], read_labels(run)) == (before, labels) and len(before) == 2
    assert ask(url, "/queue")[1]["left"] == 0 and not [*run.glob("**/.tmp-*")]


def test_what_was_refused_is_done_when_there_is_room(site):
    url, filling, _ = site
    os.unlink(filling)
    assert ask(url, "/feedback?author=Cleo", method="DELETE") == (200, {"deleted": 1})
    assert ask(url, "/promote", {"version": 2, "label": "stable"})[0] == 200
    assert ask(url, "/feedback", WRITING[0][2])[0] == 201

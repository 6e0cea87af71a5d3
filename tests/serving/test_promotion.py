"""Versions and their labels over HTTP."""

import shutil

from served import ask, correction, serving


def test_versions_come_with_their_labels_and_how_often_people_agreed(url):
    found = ask(url, "/versions")[1]
    assert [(each["version"], each["labels"]) for each in found["versions"]] == [(1, ["stable"])]
    before = found["agreement"]["1"]
    judged = [correction("Ada", ("Ada", "PER"), verdict=verdict) for verdict in ("accepted", "fixed", "accepted")]
    assert ask(url, "/feedback", {"corrections": judged})[0] == 201
    after = ask(url, "/versions")[1]["agreement"]["1"]
    assert (after["accepted"] - before["accepted"], after["judged"] - before["judged"]) == (2, 3)


def test_versions_whose_files_are_gone_are_listed_while_they_answer(served_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(served_run, run)
    with serving(run, runtime="tflite") as url:
        shutil.rmtree(run / "export")
        status, found = ask(url, "/versions")
    assert status == 200 and found["versions"] == [{"version": 1, "labels": ["stable"], "time": ""}]

"""Export room: the TFLite files of each version, so that a server can answer by them whichever version is live.

`export/tflite/*.tflite` are of the run's own model. Beside each version of the SavedModel, `export/tflite/N/` has the
files of its model, what lies beside them, and in `model/` what answers need of the model beyond its network.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from app.config import InputError
from app.evaluation.manifest import MANIFEST, find_version_files, identify_model, is_of_run, read_manifest, versions
from app.run.directory import RunDirectory, atomic
from app.tasks.light import BACKBONE_FILE, HEAD_FILE, MODEL_FILE, VOCABULARY_FILE

_MODEL_FILES = (MODEL_FILE, HEAD_FILE, BACKBONE_FILE, VOCABULARY_FILE, "SHA256SUMS")


def keep_version_files(run: RunDirectory, serving: RunDirectory, version: int) -> bool:
    """Keeps the TFLite files of a run's model for a version of the run that serves. They are links, which take no room.

    Returns:
        whether there are any.
    """
    try:
        manifest = read_manifest(run.tflite)
    except InputError:
        return False
    now = identify_model(run.model)
    names = [
        name
        for name, entry in manifest["files"].items()
        if (run.tflite / name).is_file() and {"model_sums_sha256": entry.get("model_sums_sha256")} == now
    ]
    if not names:
        return False
    final = find_version_files(serving, version)
    with atomic(final) as waiting:
        (waiting / "model").mkdir(parents=True)
        for name in names:
            _link(run.tflite / name, waiting / name)
        for name in manifest.get("companions", ()):
            shutil.copy2(run.tflite / name, waiting / name)
        for name in _MODEL_FILES:
            if (run.model / name).is_file():
                shutil.copy2(run.model / name, waiting / "model" / name)
        run.write_json(waiting / MANIFEST, {**manifest, "files": {name: manifest["files"][name] for name in names}})
        shutil.rmtree(final, ignore_errors=True)
    return True


def keep_newest_version_files(run: RunDirectory) -> None:
    """Keeps the files of a run that was exported, unless its newest version has those of another model."""
    newest = max(versions(run.saved_model), default=0)
    if not newest or not is_of_run(run, newest):
        return
    kept = find_version_files(run, newest) / "model"
    if not kept.is_dir() or identify_model(kept) == identify_model(run.model):
        keep_version_files(run, run, newest)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)

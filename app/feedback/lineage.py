"""Feedback room: which run made a version that is served, and which run serves what an update has made.

The run that serves is the one that was exported first: the versions of all updates of it go to its
`export/saved_model`. Each of these says in `assets.extra/provenance.json` which run it is from, by a path from the run
that serves, so that both can be moved together. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from app.config import InputError, RunError
from app.evaluation.manifest import PROVENANCE_FILE, read_about
from app.feedback.versions import find_versions, read_labels
from app.run.directory import RunDirectory
from app.run.files import json_fault


def read_update(run_dir: RunDirectory) -> dict[str, Any]:
    """`update.json` of a run, empty of one that is no update.

    Raises:
        InputError: the file is malformed.
    """
    return _read(run_dir.update_json)


def read_provenance(version: Path) -> dict[str, Any]:
    """Where a version of a SavedModel comes from; empty of one that --mode=export wrote."""
    return _read(version / PROVENANCE_FILE)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {json_fault(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object")
    return found


def path_from(run_dir: RunDirectory, start: RunDirectory) -> str:
    """The path of a run as another one names it."""
    return os.path.relpath(run_dir.path.resolve(), start.path.resolve())


def run_at(path: str, start: RunDirectory) -> RunDirectory:
    """The run at a path that `path_from` gave."""
    return RunDirectory(os.path.normpath(start.path / path))


def find_serving(run_dir: RunDirectory) -> RunDirectory:
    """The run whose versions are served: that of an update is the one it began from."""
    path = read_update(run_dir).get("serving")
    return run_at(path, run_dir) if path else run_dir


def find_version_of(run_dir: RunDirectory, serving: RunDirectory) -> int:
    """The newest version of a run that serves which has the weights of an update as they are now; 0 = none has."""
    weights = run_dir.read_metrics().get("weights_sha256")
    for version in reversed(find_versions(serving.path)):
        known = read_provenance(serving.saved_model / str(version))
        if known.get("run") == path_from(run_dir, serving) and known.get("weights_sha256") == weights:
            return version
    return 0


def find_live(run_dir: RunDirectory) -> RunDirectory:
    """The run whose weights are live: an update that is named itself, else the one that made the stable version.

    Raises:
        InputError: that run is gone.
    """
    stable = read_labels(run_dir.path).stable
    if read_update(run_dir) or not stable:
        return run_dir
    made_by = read_provenance(run_dir.saved_model / str(stable)).get("run")
    if not made_by:
        return run_dir
    live = run_at(made_by, run_dir)
    if not live.model_sums.is_file():
        raise InputError(
            f"version {stable} of {run_dir}, which is live, was made by {live}, whose model is not there: bring it "
            "back, or roll back with update.roll_back=true"
        )
    return live


def require_live(serving: RunDirectory, run_dir: RunDirectory) -> None:
    """An update that was compared with one model must not be put on trial beside another.

    Raises:
        RunError: what is live is not what was live when the update began.
    """
    known = read_update(run_dir).get("live")
    if known is None or known == describe_live(serving, run_dir):
        return
    raise RunError(
        f"{run_dir} passed against {run_at(known, run_dir)}, which was live when it began, and {name_live(serving)} is "
        "live now: start it again with --overwrite, so that it learns from that and is compared with it"
    )


def describe_live(serving: RunDirectory, run_dir: RunDirectory) -> str | None:
    """The run that is live in a run that serves, as `update.json` of another names it; None if it is gone."""
    try:
        return path_from(find_live(serving), run_dir)
    except InputError:
        return None


def name_live(serving: RunDirectory) -> str:
    """What is live in a run that serves, for messages: the run whose weights these are, or the version."""
    try:
        return str(find_live(serving))
    except InputError:
        return f"version {read_labels(serving.path).stable} of {serving}"


def find_name(run_dir: RunDirectory) -> str:
    """The name under which a run is served, unless a server gives it another one."""
    newest = max(find_versions(run_dir.path), default=0)
    return str((read_about(run_dir.saved_model / str(newest)) or {"model": "ner"})["model"])

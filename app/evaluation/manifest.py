"""Evaluation room: what there is of exports: the numbered folders of `export/saved_model`, and the files that
`model.json` lists. Imports no TensorFlow.
"""

import json
from pathlib import Path
from typing import Any

from app.config import InputError
from app.encoder.sources import read_json
from app.run.directory import RunDirectory, sha256_of_file
from app.run.files import json_fault
from app.tasks.exit_table import find_fault


def next_version(folder: Path) -> int:
    return max(versions(folder), default=0) + 1


def versions(folder: Path) -> list[int]:
    """Numbers of the versions in `export/saved_model`, in order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def newest_version(folder: Path) -> Path:
    """The folder of the highest number; raises InputError if there is none."""
    found = versions(folder)
    if not found:
        raise InputError(f"{folder} holds no SavedModel: make one with --mode=export")
    return folder / str(found[-1])


VECTORS_FILE = "assets.extra/test_vectors.jsonl"  # in a version: rows of `--mode=predict`, by the float model
PROVENANCE_FILE = "assets.extra/provenance.json"  # in a version that --mode=update wrote: the run that it is from
ABOUT_FILE = "assets.extra/about.json"  # in a version: what a server says of the model, see `Task.about`
EXITS_FILE = "assets.extra/exits.json"  # in a version whose texts may leave early: see `app/tasks/exit_table.py`


def read_exits(version: Path) -> dict[str, Any] | None:
    """What thresholds cost the model of a version; None of one without exits, or older than this file.

    Raises:
        InputError: the file is malformed.
    """
    path = version / EXITS_FILE
    if not path.is_file():
        return None
    found = read_json(path)
    if fault := find_fault(found):
        raise InputError(f"{path} is not what --mode=export writes ({fault}): export it again")
    return found


def read_about(version: Path) -> dict[str, Any] | None:
    """What a version of a SavedModel says of itself; None of one that is older than this file, which tags.

    Raises:
        InputError: the file is malformed.
    """
    path = version / ABOUT_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {name: about[name] for name in ("task", "model", "title", "labels", "sample_text")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not what --mode=export writes ({json_fault(error)}): export it again") from error


MANIFEST = "model.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """`model.json` of an export folder.

    Raises:
        InputError: it is missing or malformed.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict) or not isinstance(manifest["labels"], list):
            raise TypeError("files must be a mapping and labels a list")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: make it with --mode=export") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not what --mode=export writes: {json_fault(error)}") from error
    return dict(manifest)


def identify_model(model: Path) -> dict[str, str]:
    """What tells the model in a bundle from any other, for an entry of `model.json`; empty without one."""
    sums = model / "SHA256SUMS"
    return {"model_sums_sha256": sha256_of_file(sums)} if sums.is_file() else {}


def find_export(
    folder: Path, name: str, *, setting: str = "evaluation.tflite_file"
) -> tuple[Path, dict[str, Any]]:
    """The path of `NAME.tflite` and the manifest that lists it.

    Args:
        folder: `export/tflite` of a run.
        name: of the file, without its ending.
        setting: where the name comes from, for messages.

    Raises:
        InputError: the file is not listed or not there.
    """
    manifest = read_manifest(folder)
    path = folder / f"{name}.tflite"
    if path.name not in manifest["files"]:
        there = ", ".join(sorted(each.removesuffix(".tflite") for each in manifest["files"])) or "none"
        raise InputError(f"{setting} must be one of the exports in {folder} ({there}), received {name!r}")
    if not path.is_file():
        raise InputError(f"{path} does not exist: make it with --mode=export")
    return path, manifest


def is_of_run(run_dir: RunDirectory, version: int) -> bool:
    """Whether a version has the weights of the run itself, and not of an update of it."""
    path = run_dir.saved_model / str(version) / PROVENANCE_FILE
    made_by = read_json(path).get("run") if path.is_file() else ""
    return not made_by or (run_dir.path / made_by).resolve() == run_dir.path.resolve()


def find_version_files(run_dir: RunDirectory, version: int) -> Path:
    """The folder of the TFLite files of one version, see `app/export/version_files.py`; it need not be there."""
    return run_dir.tflite / str(version)


def require_exports(run_dir: RunDirectory) -> None:
    if not read_manifest(run_dir.tflite)["files"]:
        raise InputError(f"{run_dir.tflite} lists no files: make them with --mode=export")


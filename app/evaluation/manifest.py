"""Evaluation room: `model.json`, which lists the files of an export. Imports no TensorFlow."""

import json
from pathlib import Path
from typing import Any

from app.config import InputError

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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what --mode=export writes: {error}") from error
    return dict(manifest)


def find_export(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The path of `NAME.tflite` and the manifest that lists it.

    Raises:
        InputError: the file is not listed or not there.
    """
    manifest = read_manifest(folder)
    path = folder / f"{name}.tflite"
    if path.name not in manifest["files"]:
        there = ", ".join(sorted(each.removesuffix(".tflite") for each in manifest["files"])) or "none"
        raise InputError(f"evaluation.tflite_file must be one of the exports in {folder} ({there}), received {name!r}")
    if not path.is_file():
        raise InputError(f"{path} does not exist: make it with --mode=export")
    return path, manifest

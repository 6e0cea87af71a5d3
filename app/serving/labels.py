"""Serving room: which version of a run is stable and which is a canary. Imports nothing heavy.

To be replaced by `app/feedback/versions.py`, which also writes the file.
"""

import json
from collections.abc import Mapping

from app.config import InputError
from app.run.directory import RunDirectory


def read_labels(run_dir: RunDirectory) -> Mapping[str, int]:
    """Labels of `export/labels.json`, {"stable": 3, "canary": 4}; empty without the file.

    Raises:
        InputError: the file is malformed.
    """
    path = run_dir.saved_model.parent / "labels.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        labels = {name: value for name, value in found.items() if name != "history" and value is not None}
        if not all(type(value) is int and value > 0 for value in labels.values()):
            raise TypeError("a label must have the number of a version")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} must hold labels with version numbers, such as {{'stable': 1}}: {error}") from error
    return labels

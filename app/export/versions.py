"""Export room: the numbered folders of `export/saved_model`. Imports no TensorFlow."""

from pathlib import Path

from app.config import InputError


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

"""Files: what it takes that a file is whole, stays where a link put it, and that a weak file system is no end.

Imports no TensorFlow.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from app.config import InputError, RunError
from app.config.paths import MAX_NAME_BYTES, real_names

LOCK = ".lock"  # whose holder writes the folder
TEMPORARY_PREFIX = ".tmp-"
# Of a process, of a deletion, of Beam: in a folder that a link leads to, nothing else is a leftover of this program.
_OWN_TEMPORARY = re.compile(r"\.tmp-(\d+|deleted|[0-9a-f]{32})-")
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}
_UNOPENABLE = _UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
_MOST_REASON = 200  # characters of what a library says
_warned: set[str] = set()


def temporary_beside(final: Path) -> Path:
    """A path in the same folder with the same ending, of a name that is not too long for a file system."""
    start, end = f"{TEMPORARY_PREFIX}{os.getpid()}-", final.name
    while len(os.fsencode(start + end)) > MAX_NAME_BYTES:
        end = end[1:]
    return final.with_name(start + end)


def follow_links(path: str | os.PathLike[str]) -> Path:
    """The path that a link leads to, whether something is there or not; any other path as it is."""
    if not os.path.islink(path):
        return Path(path)
    final = os.path.realpath(path)
    if os.path.islink(final):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return Path(final)


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether this is a device, pipe or socket, which is written to and never replaced by a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def is_written_through(path: str) -> bool:
    """Whether `open_special` opens a path, so that nothing is made beside it."""
    return _descriptor_of(path) is not None or is_special(path)


def open_special(path: str) -> IO[str] | None:
    """A device, pipe or open descriptor (`/dev/stdout`), to write UTF-8 text to; None for a file or a new name."""
    number = _descriptor_of(path)
    if number is not None:
        return open(os.dup(number), "w", encoding="utf-8")  # opened by its name, a file would lose what it holds
    return open(path, "w", encoding="utf-8") if is_special(path) else None


def _descriptor_of(path: str) -> int | None:
    """The number of the open descriptor of this process that a path stands for."""
    for _ in range(40):  # as many links as Linux follows
        folder, name = os.path.split(path)
        if os.path.realpath(folder) == f"/proc/{os.getpid()}/fd" and name.isdecimal():
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def remove(path: Path) -> None:
    """Deletes a file, a folder, or a link itself (never what a link points to)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Deletes a part of a run. A kill leaves no half of it under its own name.

    Links and mount points stay: the folders they lead to are emptied, the files deleted.
    """
    if path.is_symlink() and not path.is_dir():
        with suppress(FileNotFoundError):
            os.unlink(os.path.realpath(path))
    elif path.is_dir() and (path.is_symlink() or _stays(path)):
        for each in sorted(path.iterdir()):
            discard(each)
    elif path.exists():
        doomed = path.with_name(f"{TEMPORARY_PREFIX}deleted-{path.name}")
        remove(doomed)
        os.rename(path, doomed)
        remove(doomed)


def _stays(folder: Path) -> bool:
    """Whether a folder is a mount point or holds links or mount points, at any depth."""
    below = (Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files))
    return os.path.ismount(folder) or any(path.is_symlink() or os.path.ismount(path) for path in below)


def check_links(folder: Path, names: tuple[str, ...] | list[str], *, emptied: bool) -> None:
    """Raises InputError if a link at one of the names leads nowhere or, to be emptied, to more than the run."""
    for path in (folder / name for name in names):
        if not path.is_symlink():
            continue
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir() or (not path.exists() and not path.suffix):
            raise InputError(f"{path} is a link to {target}, which is not there: mount or make it, or delete the link")
        kept = {Path(os.path.realpath(each)) for each in (folder, Path.home(), Path.cwd())}
        if emptied and path.is_dir() and any(each.is_relative_to(target) for each in kept):
            raise InputError(
                f"{path} is a link to {target}, which --overwrite would empty, and which holds more than this run: "
                "delete the link"
            )


def find_leftovers(folder: Path) -> Iterator[Path]:
    """What a killed process left half-written below a folder, links to folders and files followed."""
    seen: set[tuple[int, int]] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        try:
            found = os.stat(at)
        except FileNotFoundError:  # another worker's, just deleted
            continue
        if (found.st_dev, found.st_ino) in seen:  # links may go round in circles
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        if at != os.fspath(folder) and LOCK in names:  # a run in a run, which clears up for itself
            folders.clear()
            continue
        own = Path(os.path.realpath(at)).is_relative_to(os.path.realpath(folder))
        for name in (*folders, *names):
            path = Path(at, name)
            if name.startswith(TEMPORARY_PREFIX) and (own or _OWN_TEMPORARY.match(name)):
                yield path
            elif path.is_symlink() and name in names:
                target = Path(os.path.realpath(path))
                yield from _temporaries_of(target)
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _temporaries_of(final: Path) -> Iterator[Path]:
    for name in os.listdir(final.parent) if final.parent.is_dir() else ():
        found = _OWN_TEMPORARY.match(name)
        if found and name[found.end() :] == final.name:
            yield final.with_name(name)


def grant_usual_access(path: Path) -> None:
    """Gives a file, or a folder and all in it, the access that the umask allows; some libraries give less."""
    umask = _read_umask()
    below = (Path(at, name) for at, folders, names in os.walk(path) for name in (*folders, *names))
    for each in (path, *below):
        mode = os.lstat(each).st_mode
        usual = stat.S_IMODE(mode) | ((0o777 if stat.S_ISDIR(mode) else 0o666) & ~umask)
        if usual != stat.S_IMODE(mode) and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            with suppress(OSError):  # a file system without them
                os.chmod(each, usual)


def _read_umask() -> int:
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o022)  # asking means setting: other threads could see that
    os.umask(umask)
    return umask


def lock(descriptor: int, folder: Path, *, wait: bool = False) -> None:
    """Locks an open file for this process alone. A file system without locks is warned of, once.

    Args:
        descriptor: of the file.
        folder: named in the warning.
        wait: for another process that holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and nobody is to wait for it.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _warn_once(
            "lock",
            f"the file system of {folder} has no file locks ({error.strerror}): nothing keeps a second process from "
            "writing the same folder at the same time",
        )


def flush(path: Path) -> None:
    """Has a file or folder put on the disk. A file system that cannot is warned of, once."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _UNOPENABLE or not path.is_dir():
            raise
        return _warn_of_no_flush(path, error)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED and not (path.is_dir() and error.errno in _UNOPENABLE):
            raise
        _warn_of_no_flush(path, error)
    finally:
        os.close(descriptor)


def _warn_of_no_flush(path: Path, error: OSError) -> None:
    _warn_once(
        "flush",
        f"the file system of {path.parent} does not say when a file is on the disk ({error.strerror}): after a power "
        "failure, files that were complete may be empty or missing",
    )


def _warn_once(kind: str, text: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        print(f"warning: {text}", file=sys.stderr, flush=True)


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """A full disk, however a library words it, becomes an OSError that names the file; so does one without a name."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError | RunError | BrokenPipeError):
            raise
        full = full_disk(error)
        if full:
            raise OSError(full, _FULL[full], os.fspath(path)) from error
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EFBIG) and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def full_disk(error: BaseException) -> int:
    """ENOSPC or EDQUOT if that is what an error of any library is about; else 0."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return int(error.errno)
    return next((number for number, words in _FULL.items() if words in str(error)), 0)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without the name of the node that TensorFlow begins with."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return re.sub(r"^\{\{.*?\}\}\s*", "", text)


def json_fault(error: BaseException) -> str:
    """Why a content is no JSON, or not of the form that is wanted, in one clause without words of Python."""
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "it is empty"
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"character {error.pos + 1}"
        return f"wrong at {at}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    text = first_line(error)
    if isinstance(error, ValueError) and "integer string conversion" in text:
        return "it has a number of too many digits"
    if isinstance(error, ValueError) and ("circular" in text.lower() or "JSON compliant" in text):
        return "it holds a number that JSON does not have (NaN or infinity)"
    return "its values are of another form" if isinstance(error, TypeError | LookupError | AttributeError) else text


def reason_of(error: BaseException) -> str:
    """Why a library could not write, in one short clause with the paths that users know."""
    if full := full_disk(error):
        return "the disk is full" if full == errno.ENOSPC else "the disk quota is used up"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = real_names(first_line(error) or type(error).__name__)
    return text if len(text) <= _MOST_REASON else text[:_MOST_REASON].rpartition(" ")[0] + " ..."

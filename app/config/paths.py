"""Paths: as users write them, and as libraries must get them. Imports no TensorFlow.

Every path that the program takes goes through `expand` once: flags in `app.main`, settings in `app.config.loading`,
which knows them by the metadata `path` of their field. TensorFlow and Beam take many names for patterns, and
TensorFlow takes UTF-8 only: they are given `plain(path)`.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import threading

from app.config import InputError

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095  # Linux: NAME_MAX, and PATH_MAX without the NUL at the end
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", re.ASCII)
_PATTERN_CHARACTERS = re.compile(r"[*?\[\]\\]")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MOST_COMMAS_IN_A_NAME = 8

_links: dict[str, str] = {}  # folder of an unusual name -> a link to it
_links_folder: dict[int, str] = {}  # process -> where its links lie; a fork makes a folder of its own
_linking = threading.Lock()


def expand(path: str, *, name: str, remote: bool = False) -> str:
    """A path as a user wrote it, with `~`, `$NAME` and `${NAME}` replaced.

    A file or folder that exists under the very name stays, and so does a folder at the beginning of the path.

    Args:
        path: as written; empty stays empty.
        name: of the flag or setting, for messages.
        remote: whether `gs://...` and the like are allowed; they stay as they are.

    Raises:
        InputError: a remote path, an environment variable that is not set, or no possible name of a file.
    """
    if _REMOTE.match(path):
        if remote:
            return path
        raise InputError(
            f"{name} must be a path on this machine, received {path!r}: copy the files here or mount that storage; "
            "the program needs the locks and renames of a file system"
        )
    if path and not os.path.lexists(path):
        folder, rest = existing_folder(path)
        rest = _VARIABLE.sub(lambda found: _variable(found, path, name), rest)
        path = os.path.join(folder, rest) if folder else os.path.expanduser(rest)
        if path.startswith("~") and not folder and path == rest:
            raise InputError(f"{name}: there is no home folder {path.partition('/')[0]}, received {path!r}")
    _check_possible(path, name=name)
    return path


def expand_list(text: str, *, name: str) -> str:
    """As `expand`, for files and globs that commas separate in one string."""
    if os.path.lexists(text):
        return text
    return ",".join(expand(part if os.path.lexists(part) else part.strip(), name=name) for part in text.split(","))


def split_list(text: str) -> list[str]:
    """The paths that commas separate in a string; one that exists under a name with commas in it is one.

    So is a glob that begins with a folder of such a name.
    """
    parts, found = text.split(","), []
    while parts:
        count = next(
            (n for n in range(min(len(parts), _MOST_COMMAS_IN_A_NAME + 1), 1, -1) if _existing(",".join(parts[:n]))), 1
        )
        found.append(_existing(",".join(parts[:count])) or parts[0].strip())
        del parts[:count]
    return [part for part in found if part]


def plain(path: str | os.PathLike[str]) -> str:
    """A path to the same place for libraries that would take the name for a pattern, or cannot encode it.

    A usual path is returned as it is. Otherwise a link stands for its unusual beginning until the process ends. What
    the link stands for need not exist, but nothing can make a folder through a link to nowhere.
    """
    path = os.fspath(path)
    if _is_usual(path):
        return path
    parts = path.split("/")
    last = max(number for number, part in enumerate(parts) if not _is_usual(part))
    return os.path.join(_link_to("/".join(parts[: last + 1])), *parts[last + 1 :])


def existing_folder(path: str) -> tuple[str, str]:
    """A path or glob as (its longest beginning that is a folder of that very name, the rest); ("", path) without."""
    parts = path.split("/")
    for count in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:count]) or "/"
        if os.path.isdir(folder):
            return folder, "/".join(parts[count:])
    return "", path


def escape_existing(pattern: str) -> str:
    """A pattern for Python's `glob` that takes a folder at its beginning literally which exists under that name."""
    import glob

    folder, rest = existing_folder(pattern)
    return os.path.join(glob.escape(folder), rest)


def shown(path: str | os.PathLike[str]) -> str:
    """A path as one line of text that every encoding of Unicode can hold: other bytes and controls are escaped."""
    return escape_controls(os.fspath(path)).encode("utf-8", "backslashreplace").decode("utf-8")


def escape_controls(text: str) -> str:
    """The text with line ends and other control characters escaped: one line, harmless in a terminal."""
    return _CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def real_names(text: str) -> str:
    """A library's message with the paths that users know in place of the links of `plain`."""
    for folder, link in reversed(_links.items()):  # link 10 before link 1
        text = text.replace(link, folder)
    return text


def _variable(found: re.Match[str], path: str, name: str) -> str:
    variable = found[1] or found[2]
    if variable in os.environ:
        return os.environ[variable]
    raise InputError(f"{name}: the environment variable {variable} is not set, and there is no {path!r} of that name")


def _check_possible(path: str, *, name: str) -> None:
    if "\0" in path:
        raise InputError(f"{name} must be a path, received {path[:80]!r}: a NUL byte is in no file name")
    size, longest = len(os.fsencode(path)), max(len(os.fsencode(part)) for part in path.split("/"))
    if size > MAX_PATH_BYTES or longest > MAX_NAME_BYTES:
        raise InputError(
            f"{name} must be at most {MAX_PATH_BYTES:,} bytes long, and {MAX_NAME_BYTES} between two slashes; received "
            f"{path[:40]!r}... of {size:,} bytes, {longest:,} between slashes"
        )


def _existing(text: str) -> str:
    """The text, or it without blanks around it, if it is the name of something, or its commas that of a folder."""
    for path in filter(None, (text, text.strip())):
        folder, rest = existing_folder(path)
        if os.path.lexists(path) or ("," in folder and "," not in rest):
            return path
    return ""


def _is_usual(path: str) -> bool:
    """Whether TensorFlow and Beam take a path literally and mean the same file by it as Python does."""
    if _PATTERN_CHARACTERS.search(path):
        return False
    try:
        return path.encode("utf-8") == os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _link_to(path: str) -> str:
    absolute = os.path.join(os.getcwd(), path)  # not abspath: what `..` means depends on links
    with _linking:
        if os.getpid() not in _links_folder:
            _links.clear()
            _links_folder.clear()
            _links_folder[os.getpid()] = folder = _make_links_folder()
            atexit.register(_remove_links, os.getpid(), folder)
        if absolute not in _links:
            link = os.path.join(_links_folder[os.getpid()], str(len(_links)))
            os.symlink(absolute, link)
            _links[absolute] = link
        return _links[absolute]


def _make_links_folder() -> str:
    import tempfile  # late, like glob: `--help` needs neither

    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if _is_usual(parent) and os.access(parent, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix="paths-", dir=parent)
    raise InputError(
        "a path with one of *?[]\\ or a byte that is not UTF-8 in it needs a folder that can be written: set TMPDIR"
    )


def _remove_links(process: int, folder: str) -> None:
    if process == os.getpid():  # a fork must not take them from its parent
        shutil.rmtree(folder, ignore_errors=True)

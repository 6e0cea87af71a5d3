"""What the program is started in, put right before anything else happens: locale, optimization, standard streams,
home, temporary files. Imports nothing heavy.

The streams a process was started without are named in `CLOSED`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from io import TextIOWrapper

from app.config import InputError

CLOSED: set[str] = set()
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_RESTARTED = "APP_RESTARTED"
_MEMORY_FOLDER = "/dev/shm"


def prepare() -> None:
    """Puts everything right that can be; call it once, before any other work of the process."""
    restart_as_needed()
    open_streams()
    name_home()


def restart_as_needed() -> None:
    """Starts the same command again in this process if Python has settings that cannot be changed any more.

    - File names: TensorFlow encodes them as UTF-8, Python as the locale says. A folder with an accent would be two.
    - `-O` and `PYTHONOPTIMIZE`: libraries need their docstrings and assertions.
    """
    encoding = sys.getfilesystemencoding().lower().replace("-", "")
    if (encoding == "utf8" and not sys.flags.optimize) or os.environ.pop(_RESTARTED, ""):
        return
    interpreter = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]  # its options, and `-m app.main`
    kept = [re.sub("^-O+(?=m?$)", "-", option) for option in interpreter]
    environment = {**os.environ, "PYTHONUTF8": "1", _RESTARTED: "1"}
    environment.pop("PYTHONOPTIMIZE", None)
    command = [sys.executable, "-X", "utf8", *(option for option in kept if option != "-"), *sys.argv[1:]]
    os.execve(sys.executable, command, environment)


def open_streams() -> None:
    """Opens `/dev/null` for each standard stream that is closed: else the next file that is opened takes its place."""
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            CLOSED.add(name)
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"  # else PYTHONIOENCODING says so
        # In UTF-8, a path is printed as the bytes that it is.
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def name_home() -> None:
    """A user id without a home (`docker run --user 12345`) gets `/`, as Docker gives it; libraries ask for one."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"


def find_temporary_folder() -> None:
    """Where no folder for temporary files can be written (a read-only root), the memory's is used.

    Raises:
        InputError: that cannot be written either.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        if not os.access(_MEMORY_FOLDER, os.W_OK | os.X_OK):
            raise InputError(
                f"no folder for temporary files can be written, TMPDIR is {os.environ.get('TMPDIR') or 'not set'}: "
                "set TMPDIR to a folder that can"
            ) from error
        os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY_FOLDER

"""What a setting is, and the errors that settings and runs end with."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any


class InputError(Exception):
    """Bad usage, configuration or input: one sentence (what, where, received, allowed). Exit status 2."""


class RunError(Exception):
    """A run that failed (loss not a number, disk full), in one sentence. Exit status 1."""


class LostWorkerError(RunError):
    """Another worker of the run has ended; all of them must be started again. Exit status 138."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes a machine away. Exit status 143."""


# What `path` of a setting may be. `app.config.loading` expands `~` and `$NAME` in each, and refuses remote paths.
PATH_KINDS = {
    "path": "a file or folder, taken literally",
    "globs": "files and globs that commas separate; what exists under the very name is no glob",
    "any": "a file or folder, or a remote place that the library behind the setting reads by itself",
}
# What stands before a name that is no path, or is one after it: that of a library's data set or preset.
HANDLES = ("tfds:", "preset:")
TRAINING_MODES = ("pretrain", "finetune", "distill", "compress", "update", "tune")
TASK_MODES = ("finetune", "distill", "compress", "update", "tune")  # those of them that train for a task


_PASSWORD_IN_QUERY = re.compile(r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*")


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field that explains itself.

    Args:
        default: also fixes the type: str, bool, int, float, or a tuple of str or int, which YAML and `--set` write as
            [a, b] or a,b.
        meaning: one line.
        **limits: any of `choices` (allowed values; of a tuple, for each name in it), `at_least`, `at_most`, `above`,
            `below` (numbers); `path` (what it names in the file system, see PATH_KINDS); `secret` (True: the value, or
            the password in it if it is a URL, is not shown); and `trains`, the training modes in which the setting
            changes the model that is made, where they are not those of its section (see `Config`). A run cannot
            continue with another value of such a setting.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def mask(secret: str) -> str:
    """A secret as it may be shown: *** in place of the password of a URL, or of all of it if it is none."""
    scheme, is_url, rest = secret.partition("://")
    if not is_url:
        return "***" if secret else ""
    account, has_account, place = rest.rpartition("@")
    user, has_password, _ = account.partition(":")
    masked = f"{user}{has_password and ':***'}{has_account}{place}"
    return f"{scheme}://" + _PASSWORD_IN_QUERY.sub(r"\1***", masked)

"""Which version of an exported model is live: labels on versions, roll back, TensorFlow Serving's models.config.

The versions of a run are the folders `RUN/export/saved_model/N`. Their labels are in `RUN/export/labels.json`:

    {"stable": 3, "canary": 4, "history": [[time, label, from, to, why], ...]}

"stable" answers, "canary" is tried beside it. Without the file the newest version is stable, so whoever exports a new
one that is not to go live yet calls `keep_stable` before. A server sees a change when it looks at the file again.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from app.config import InputError
from app.evaluation.manifest import read_about, versions
from app.feedback.correction import utc_time
from app.run.directory import atomic
from app.run.files import json_fault

LABELS = ("stable", "canary")
ROLLED_BACK = "rolled back"  # what the reason of such a change begins with


class Change(NamedTuple):
    """A label that went from one version to another; 0 = it was, or is, on none."""

    time: str
    label: str
    before: int
    after: int
    why: str


@dataclass(frozen=True)
class Labels:
    """The versions that have a label; 0 = none has it."""

    stable: int = 0
    canary: int = 0
    history: tuple[Change, ...] = ()

    def __getitem__(self, label: str) -> int:
        if label not in LABELS:
            raise InputError(f"a label of a version is {' or '.join(LABELS)}, received {label!r}")
        return int(getattr(self, label))

    def has_been(self, version: int) -> bool:
        """Whether a version has, or once had, a label."""
        return bool(self.of(version)) or any(each.after == version for each in self.history)

    def of(self, version: int) -> list[str]:
        """The labels of a version."""
        return [label for label in LABELS if self[label] == version]


def labels_path(run_dir: str | os.PathLike[str]) -> Path:
    return Path(run_dir, "export", "labels.json")


def find_versions(run_dir: str | os.PathLike[str]) -> list[int]:
    """The numbers of the complete versions of a run, in order."""
    folder = Path(run_dir, "export", "saved_model")
    return [number for number in versions(folder) if number and (folder / str(number) / "saved_model.pb").is_file()]


def read_labels(run_dir: str | os.PathLike[str]) -> Labels:
    """The labels as they are now; without a file the newest version is stable.

    Raises:
        InputError: the file is damaged.
    """
    path = labels_path(run_dir)
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        history = tuple(map(_change, content.get("history", [])))
        stable, canary = (_number(content.get(label) or 0) for label in LABELS)
    except FileNotFoundError:
        return Labels(stable=max(find_versions(run_dir), default=0))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path} must be as {{"stable": 3, "canary": 4, "history": []}}, and is not ({json_fault(error)}): correct '
            "it, or delete it to have the newest version stable"
        ) from error
    return Labels(stable, canary, history)


def set_label(
    run_dir: str | os.PathLike[str], label: str, version: int | None, why: str = "", *, instead_of: int | None = None
) -> Labels:
    """Gives a label to a version; a version that becomes stable is no canary any more.

    Args:
        run_dir: the run.
        label: "stable" or "canary".
        version: its number; None or 0 takes the label "canary" away.
        why: for the history.
        instead_of: nothing is changed if another version has the label by now; None = whichever has it.

    Returns:
        The labels as they are now.

    Raises:
        InputError: there is no such label or version.
    """
    with _locked(run_dir):
        if instead_of is not None and (labels := read_labels(run_dir))[label] != instead_of:
            return labels
        return _set_label(run_dir, label, version or 0, why)


def keep_stable(run_dir: str | os.PathLike[str], why: str = "a new version is on trial first") -> Labels:
    """Has the version that is stable now stay so when a newer one is exported."""
    with _locked(run_dir):
        labels = read_labels(run_dir)
        if labels_path(run_dir).exists() or not labels.stable:
            return labels
        return _set_label(run_dir, "stable", labels.stable, why)


def roll_back(run_dir: str | os.PathLike[str], why: str = "", *, instead_of: int | None = None) -> int:
    """Gives "stable" back to the version that had it before, or, if none had, to the one before in number.

    Rolling back again goes further back. Versions that were deleted are passed over.

    Args:
        run_dir: the run.
        why: for the history.
        instead_of: nothing is changed if another version is stable by now, as when two servers decide at once; None =
            whichever is.

    Returns:
        The version that is stable now.

    Raises:
        InputError: there is no version to go back to.
    """
    with _locked(run_dir):
        labels = read_labels(run_dir)
        if instead_of not in (None, labels.stable):
            return labels.stable
        there = find_versions(run_dir)
        earlier = [version for version in _stable_before(labels) if version in there and version != labels.stable]
        lower = [version for version in there if version < labels.stable]
        if not earlier and not lower:
            raise InputError(f"{run_dir} has no version before {labels.stable or 'the first'} to roll back to")
        target = earlier[-1] if earlier else lower[-1]
        if not why.startswith(ROLLED_BACK):
            why = f"{ROLLED_BACK}: {why}" if why else ROLLED_BACK
        return _set_label(run_dir, "stable", target, why).stable


def should_roll_back(
    accepted: int, judged: int, *, bound: float, answers: int, confidence: float = 0.95
) -> tuple[bool, str]:
    """Whether people disagree with a version so often that it must go, and why, in one sentence.

    It must if the agreement (accepted / judged) is below the bound beyond chance: the upper end of its one-sided Wilson
    score interval is (Wilson, 1927). On few answers a low agreement may be bad luck; this interval, unlike the usual
    one, holds for few answers and for agreements near 0 and 1.

    Args:
        accepted: judged answers that people accepted as they were.
        judged: answers that people judged.
        bound: lowest agreement that is allowed, of 0 to 1; 0 = any.
        answers: judged answers that are needed before anything is decided.
        confidence: how sure it must be that the agreement is below the bound; 0.5 = the plain rate decides.
    """
    if judged < max(answers, 1):
        return False, f"{judged} of the {max(answers, 1)} judged answers that are needed"
    highest = wilson_upper(accepted, judged, confidence)
    found = f"people accepted {accepted} of {judged} answers, at most {highest:.1%} with {confidence:.0%} confidence"
    if highest < bound:
        return True, f"{found}; at least {bound:.1%} are required"
    return False, f"{found}; {bound:.1%} are required"


def wilson_upper(hits: int, trials: int, confidence: float) -> float:
    """The upper end of the one-sided Wilson score interval of a rate.

    (p + z²/2n + z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z the quantile of the normal distribution.
    """
    rate, z = hits / trials, NormalDist().inv_cdf(confidence)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return (rate + z * z / (2 * trials) + spread) / (1 + z * z / trials)


def write_models_config(
    run_dir: str | os.PathLike[str], *, name: str = "", base_path: str = "", path: str | os.PathLike[str] = ""
) -> Path:
    """Writes TensorFlow Serving's `--model_config_file`: the labelled versions are loaded, and no others.

    The server must be started with `--allow_version_labels_for_unavailable_models`, since it knows no version yet when
    it reads the labels for the first time, and with `--model_config_file_poll_wait_seconds` to see later changes.

    Args:
        run_dir: the run.
        name: of the model in the paths, such as "ner"; empty = that of the task.
        base_path: folder of the versions as the server sees it; empty = where they are here.
        path: the file; empty = `RUN/export/models.config`.

    Raises:
        InputError: the run has no version.
    """
    labels = read_labels(run_dir)
    chosen = [(label, labels[label]) for label in LABELS if labels[label]]
    if not chosen:
        raise InputError(f"{run_dir} has no version to serve: make one with --mode=export")
    numbers = sorted({version for _, version in chosen})
    name = name or str((read_about(Path(run_dir, "export", "saved_model", str(numbers[-1]))) or {}).get("model", "ner"))
    loaded = "".join(f" versions: {number}" for number in numbers)
    final = Path(path or Path(run_dir, "export", "models.config"))
    folder = base_path or os.path.abspath(Path(run_dir, "export", "saved_model"))
    lines = [
        "model_config_list {",
        "  config {",
        f"    name: {_quoted(name)}",
        f"    base_path: {_quoted(folder)}",
        '    model_platform: "tensorflow"',
        f"    model_version_policy {{ specific {{{loaded} }} }}",
        *(f"    version_labels {{ key: {_quoted(label)} value: {version} }}" for label, version in chosen),
        "  }",
        "}",
    ]
    with atomic(final) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return final


def _set_label(run_dir: str | os.PathLike[str], label: str, version: int, why: str) -> Labels:
    labels, there = read_labels(run_dir), find_versions(run_dir)
    before = labels[label]
    if version not in there and (version or label == "stable"):
        known = ", ".join(map(str, there)) or "none"
        raise InputError(f"{run_dir} has no version {version} for the label {label!r}; its versions are {known}")
    if version == before and labels_path(run_dir).exists():
        return labels
    changes = [Change(utc_time("", "time"), label, before, version, why)]
    changed = replace(labels, stable=version) if label == "stable" else replace(labels, canary=version)
    if label == "stable" and version == labels.canary:
        changes.insert(0, Change(changes[0].time, "canary", version, 0, "it becomes stable"))
        changed = replace(changed, canary=0)
    changed = replace(changed, history=(*labels.history, *changes))
    content: dict[str, Any] = {"stable": changed.stable, "canary": changed.canary or None}
    content["history"] = [list(each) for each in changed.history]
    with atomic(labels_path(run_dir)) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return changed


def _stable_before(labels: Labels) -> list[int]:
    """The versions that were stable before, the last one last; what was rolled back from is not among them."""
    stack: list[int] = []
    for each in labels.history:
        if each.label != "stable":
            continue
        if not stack and each.before:
            stack.append(each.before)
        if each.after in stack:
            del stack[stack.index(each.after) + 1 :]
        elif each.why.startswith(ROLLED_BACK):
            stack = [each.after]
        else:
            stack.append(each.after)
    return stack[:-1]


@contextmanager
def _locked(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps others from changing the labels meanwhile, where the file system has locks."""
    folder = labels_path(run_dir).parent
    if not folder.is_dir():
        raise InputError(f"{run_dir} has no exported model: make one with --mode=export")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _change(item: Any) -> Change:
    if not isinstance(item, list) or len(item) != len(Change._fields):
        raise ValueError("history must be a list of [time, label, from, to, why]")
    time, label, before, after, why = item
    return Change(str(time), str(label), _number(before or 0), _number(after or 0), str(why))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{json.dumps(value)[:60]} is no version")
    return value


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'

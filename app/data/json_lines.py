"""Data room: a line of JSON as the standard has it, which Python's parser takes more freely."""

import json
from typing import Any, NoReturn


def parse_json(line: str) -> Any:
    """The value of a line.

    Raises:
        ValueError: it is not JSON; it has NaN, Infinity or a number that is too large, or an object has a key twice, of
            which Python would keep the last.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        line, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_with_different_keys
    )


def layout_hint(line: str) -> str:
    """What to add to a message about a line that is no object, if it seems to be a part of a longer value."""
    if line.lstrip().startswith("["):
        return "; a JSON array is not read: write each of its objects on a line of its own (jq -c '.[]' FILE)"
    if line.strip() == "{":
        return "; an object must be on one line (jq -c . FILE)"
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if abs(number) == float("inf"):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _with_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:40]!r} is there more than once")
    return found

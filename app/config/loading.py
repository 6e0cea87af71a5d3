"""Configuration from YAML and `--set`, strict, coerced by the types `app.config` declares; and back to YAML.

YAML is read as text only, without implicit types: `3e-5` becomes a float because the field is one, and `NO`
stays text where the field is text. `yaml` is imported late, so that `--help` need not wait for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from app.config import (
    HANDLES,
    MODE_DEFAULTS,
    OF_THE_MODEL,
    TASK_DEFAULTS,
    Config,
    InputError,
    fields_by_key,
    flatten,
    with_values,
)
from app.config.options import mask
from app.config.paths import expand, expand_list, split_list
from app.config.renamed import RENAMED, refuse_old_keys
from app.config.rules import KEYWORDS, impossible_combinations, left_out_samples, settings_of_other_tasks
from app.config.space import read_space
from app.config.tune import Space

_FIELDS = fields_by_key()
_PARTS = [key.split(".") for key in _FIELDS]
_SECTIONS = frozenset(".".join(parts[:depth]) for parts in _PARTS for depth in range(1, len(parts)))
_TOP_SECTIONS = frozenset(parts[0] for parts in _PARTS if len(parts) > 1)
_DEFAULTS = flatten(Config())
_TYPE_NAMES = {
    "str": "text",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "tuple[str, ...]": "a list of texts, such as [a, b]",
    "tuple[int, ...]": "a list of integers, such as [0, 2]",
    "Space": "a mapping, such as {training.batch_size: [4, 8]}",
}
# What a user sets: a YAML file or a mapping of sections; and over that "section.key=value", or a mapping of keys.
Source = str | Mapping[str, Any] | None
Settings = Sequence[str] | Mapping[str, Any]
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Layer(NamedTuple):
    """Settings from one place, as they are written."""

    raw: Mapping[str, Any]
    origin: str
    of: str  # "default", "run" or "user"


def load_config(
    path: Source,
    overrides: Settings = (),
    *,
    mode: str = "",
    defaults: str | None = None,
    starts: Sequence[str] = (),
) -> Config:
    """Builds the configuration: default (of task, of mode) < `defaults` < `base:` of `path` < `path` < `overrides`.

    Args:
        path: YAML file. Its key `base` may name another one, relative to its own folder; a base has no base. Or what
            could stand in one, as a mapping with Python's values.
        overrides: "section.key=value"; the value may itself contain "=". Or a mapping {"section.key": value}.
        mode: whose own defaults hold, see `MODE_DEFAULTS`.
        defaults: YAML file below `path`: the config.yaml of the run to evaluate or compress. Its paths stay as they
            are, and keys of earlier versions are understood.
        starts: config.yaml of the runs that a new run starts or learns from: of their settings, those `OF_THE_MODEL`
            hold for the new run too.

    Raises:
        InputError: naming the key, where it came from, what was received and what is allowed.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    below: dict[str, Any] = {}  # values of the default and the run, before the user's
    chosen: dict[str, str] = {}  # the user's own keys, and where each was set
    for layer in _with_task_defaults([*_run_layers(mode, defaults, starts), *_user_layers(path, overrides)]):
        for key, raw in layer.raw.items():
            value = _coerce(key, raw, origin=layer.origin)
            values[key] = value if layer.of == "run" else _expand_paths(key, value)
            origins[key] = layer.origin
        if layer.of == "user":
            chosen.update(dict.fromkeys(layer.raw, layer.origin))
        else:
            below = dict(values)
    for key, value, reason in list(left_out_samples(values, chosen, below=below)):
        values[key], origins[key] = value, reason
    config = with_values(Config(), values)
    _raise_first(settings_of_other_tasks(config, chosen), config, origins)
    if defaults or starts:
        _check_same_model(values, below, origins)
    _raise_first(impossible_combinations(config), config, origins)
    return config


def _raise_first(broken: Iterable[tuple[tuple[str, ...], str]], config: Config, origins: Mapping[str, str]) -> None:
    """Raises InputError for the first (keys, what must hold) of the rules that are broken."""
    for keys, rule in broken:
        flat = flatten(config)
        received = ", ".join(f"{key}={_as_text(flat[key])} ({origins.get(key, 'default')})" for key in keys)
        raise InputError(f"{rule}; received {received}")


def load_setting(key: str, path: Source, overrides: Settings = ()) -> Any:
    """One setting as a user set it, or its default, whatever the others are."""
    value = _DEFAULTS[key]
    for layer in _user_layers(path, overrides):
        if key in layer.raw:
            value = _expand_paths(key, _coerce(key, layer.raw[key], origin=layer.origin))
    return value


def with_setting(settings: Settings, key: str, value: str) -> Settings:
    """The settings and one more, which wins."""
    return {**settings, key: value} if isinstance(settings, Mapping) else [*settings, f"{key}={value}"]


def to_yaml(config: Config, *, masked: bool = False) -> str:
    """The whole configuration as YAML that `load_config` reads back to an equal one.

    Args:
        config: the configuration.
        masked: show secrets as ***, to be looked at.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML reads U+0085 in single quotes back as a blank; in double quotes it is escaped."""

    def represent(dumper: Dumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)

    Dumper.add_representer(str, represent)
    Dumper.add_representer(Space, Dumper.represent_dict)
    if masked:
        secret = {key for key, known in fields_by_key().items() if known.metadata.get("secret")}
        config = with_values(config, {key: mask(value) for key, value in flatten(config).items() if key in secret})
    content = dataclasses.asdict(config)
    return str(yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, every scalar as the text it is written as.

    Raises:
        InputError: the file is missing, unreadable, not YAML, not a mapping, or names a key twice.
    """
    import yaml

    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_text_loader())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot read the config {path}: {reason}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None or content == "":
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of sections, received {_describe(content)}")
    return content


def _run_layers(mode: str, defaults: str | None, starts: Sequence[str]) -> Iterator[_Layer]:
    """What is below the user's settings, the weakest first.

    Raises:
        InputError: runs to start from differ in a setting of the model.
    """
    yield _Layer(MODE_DEFAULTS.get(mode, {}), f"the default of --mode={mode}", "default")
    if defaults:
        yield _Layer(_run_settings(defaults), defaults, "run")
    first: dict[str, Any] = {}
    for start in starts:
        of_the_model = {key: value for key, value in _run_settings(start).items() if key in OF_THE_MODEL}
        first = first or of_the_model
        for key, value in of_the_model.items():
            if value != first[key]:
                raise InputError(
                    f"{key} must be the same in all runs to start or learn from; it is {first[key]} in {starts[0]} and "
                    f"{value} in {start}"
                )
        yield _Layer(of_the_model, start, "run")


def _run_settings(path: str) -> dict[str, Any]:
    """What a run's config.yaml says, by today's keys; of `OF_THE_MODEL` also what an early version left out."""
    flat = _flat_keys(read_yaml(path), origin=path)
    flat = {RENAMED.get(key, key): value for key, value in flat.items()}
    _require_all_known(flat, origin=path)
    return {key: _as_text(_DEFAULTS[key]) for key in OF_THE_MODEL} | flat


def _user_layers(path: Source, overrides: Settings) -> Iterator[_Layer]:
    """The user's files, or mapping, and settings over them, the weakest first."""
    if isinstance(path, Mapping):
        yield _user_layer(_as_written(path, origin="config"), origin="config")
    elif path:
        content = read_yaml(path)
        base = content.pop("base", "")
        if not isinstance(base, str):
            raise InputError(f"base must be the name of one file, received {_describe(base)} in {path}")
        if base:
            base_path = str(Path(path).parent / expand(base, name=f"base in {path}"))
            base_content = read_yaml(base_path)
            if base_content.pop("base", ""):
                raise InputError(f"{base_path} is the base of {path} and may not have a base itself")
            yield _user_layer(base_content, origin=base_path)
        yield _user_layer(content, origin=path)
    if isinstance(overrides, Mapping):
        yield _user_layer(_as_written(overrides, origin=KEYWORDS), origin=KEYWORDS)
        return
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set takes section.key=value, received {override!r}")
        key = key.strip()
        _require_all_known([key], origin="--set")
        if "secret" in _FIELDS[key].metadata and value and not value.strip():
            raise InputError(f"--set {key}= must hold something other than blanks; nothing at all leaves it unset")
        is_file = "path" in _FIELDS[key].metadata and os.path.lexists(value)  # its name may end in a blank
        yield _Layer({key: value if is_file else value.strip()}, "--set", "user")


def _user_layer(content: Mapping[str, Any], *, origin: str) -> _Layer:
    flat = _flat_keys(content, origin=origin)
    _require_all_known(flat, origin=origin)
    return _Layer(flat, origin, "user")


def _as_written(value: Any, name: str = "", *, origin: str) -> Any:
    """Python's value of a key, or a mapping of such, as YAML is read here: texts, lists and mappings of them.

    Raises:
        InputError: YAML has no such value.
    """
    if isinstance(value, Mapping):
        prefix = f"{name}." if name else ""
        return {str(key): _as_written(inner, f"{prefix}{key}", origin=origin) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(inner, name, origin=origin) for inner in value]
    if isinstance(value, bool | str | Real):
        return _as_text(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise InputError(
        f"{name} must be a text, a number, true or false, a list or a mapping, received {value!r:.80} in {origin}"
    )


def _with_task_defaults(layers: list[_Layer]) -> list[_Layer]:
    """The layers on top of the defaults of the task that the last of them names."""
    task = next((layer.raw["task"] for layer in reversed(layers) if "task" in layer.raw), "")
    if not isinstance(task, str):
        return layers  # which is told when it is read
    return [_Layer(TASK_DEFAULTS.get(task, {}), f"the default of task={task}", "default"), *layers]


def _check_same_model(values: Mapping[str, Any], below: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raises InputError if the user asks for a model of another make than that of the run."""
    for key in OF_THE_MODEL:
        if values[key] != below[key]:
            raise InputError(
                f"{key} must be that of the run, {_as_text(below[key])}; "
                f"received {key}={_as_text(values[key])} ({origins[key]})"
            )


def _flat_keys(content: Mapping[str, Any], prefix: str = "", *, origin: str) -> dict[str, Any]:
    """{"section.key": value} of nested mappings; keys that nobody knows stay as they are."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key not in _SECTIONS:
            flat[key] = value
        elif isinstance(value, dict):
            flat.update(_flat_keys(value, f"{key}.", origin=origin))
        elif value != "":
            raise InputError(f"{key} in {origin} is a section and must be a mapping, received {_describe(value)}")
    return flat


def _require_all_known(keys: Iterable[str], *, origin: str) -> None:
    keys = list(keys)
    refuse_old_keys(keys, origin=origin)
    for key in keys:
        _require_known(key, origin=origin)


def _require_known(key: str, *, origin: str) -> None:
    if key in _FIELDS:
        return
    if key in _SECTIONS:
        raise InputError(f"{key} in {origin} is a section; name one of its keys, such as {_first_key(key)}")
    nearest = nearest_key(key)
    hint = f"; did you mean {nearest}?" if nearest else f"; the sections are {', '.join(sorted(_TOP_SECTIONS))}"
    raise InputError(f"unknown key {key} in {origin}{hint}")


def nearest_key(key: str) -> str:
    """The valid key most like `key`, by its whole name or its last part; empty if none is."""
    by_last_part = {known.rpartition(".")[2]: known for known in reversed(_FIELDS)}
    section, _, last_part = key.rpartition(".")
    by_last_part.update(
        {known.rpartition(".")[2]: known for known in reversed(_FIELDS) if known.startswith(f"{section}.")}
    )
    if last_part in by_last_part:
        return by_last_part[last_part]
    whole = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.75)
    part = difflib.get_close_matches(last_part, by_last_part, n=1, cutoff=0.6)
    return whole[0] if whole else by_last_part[part[0]] if part else ""


def _coerce(key: str, raw: Any, *, origin: str) -> Any:
    known = _FIELDS[key]
    kind = str(known.type)
    if kind == "Space":
        return _read_space(key, raw, origin=origin)
    parts = _parts(raw, paths="path" in known.metadata) if isinstance(raw, str) and kind.startswith("tuple") else raw
    value = _convert(parts, kind)
    if value is None:
        raise InputError(f"{key} must be {_TYPE_NAMES[kind]}, received {_describe(raw)} in {origin}")
    faults = [_fault(each, known.metadata) for each in (value if isinstance(value, tuple) else (value,))]
    fault = next(filter(None, faults), "")
    if fault:
        if key == "task" and "did you mean" not in fault:
            fault += ", or one that --task_module registers"
        fault = f"a list of which each is {fault}" if isinstance(value, tuple) else fault
        raise InputError(f"{key} must be {fault}, received {_describe(raw)} in {origin}")
    return value


def _read_space(key: str, raw: Any, *, origin: str) -> Space:
    """The space of a search, which `--set` writes as YAML in one line."""
    import yaml

    try:
        content = yaml.load(raw, Loader=_text_loader()) if isinstance(raw, str) else raw
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{key} is not valid YAML: {' '.join(str(error).split())}; received {raw!r:.80}") from error
    if content is None or content == "":
        return Space()
    if not isinstance(content, Mapping):
        raise InputError(f"{key} must be {_TYPE_NAMES['Space']}, received {_describe(content)} in {origin}")
    flat = _flat_keys(content, origin=f"{key} in {origin}")
    _require_all_known(flat, origin=f"{key} in {origin}")
    kinds = {name: str(_FIELDS[name].type) for name in flat}
    return read_space(flat, origin=origin, kinds=kinds, coerce=_coerce)


def _expand_paths(key: str, value: Any) -> Any:
    """A setting's value with `~` and `$NAME` in the paths replaced.

    Raises:
        InputError: as `app.config.paths.expand`.
    """
    kind = _FIELDS[key].metadata.get("path")
    if not kind:
        return value
    if isinstance(value, tuple):
        return tuple(_expand_path(key, each) for each in value)
    return expand_list(value, name=key) if kind == "globs" else _expand_path(key, value, remote=kind == "any")


def _expand_path(key: str, value: str, *, remote: bool = False) -> str:
    handle = next((each for each in HANDLES if value.startswith(each)), "")
    return handle + expand(value.removeprefix(handle), name=key, remote=remote or bool(handle))


def _convert(raw: Any, kind: str) -> Any:
    """The value of `raw`, a text or a list of texts, as `kind`; None if it is none."""
    if kind.startswith("tuple"):
        if not isinstance(raw, list):
            return None
        values = tuple(_convert(part, kind.removeprefix("tuple[").removesuffix(", ...]")) for part in raw)
        return None if None in values else values
    if not isinstance(raw, str):
        return None
    if kind == "str":
        return raw
    if kind == "bool":
        return _BOOLEANS.get(raw.lower())
    try:
        number = int(raw) if kind == "int" else float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parts(text: str, *, paths: bool) -> list[str]:
    """A list that is written as text, `[a, b]` or `a, b`; of paths, one that exists under the very name is one."""
    if paths and os.path.lexists(text):
        return [text]
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("[]", "()"):
        inner = inner[1:-1]
    split = split_list(inner) if paths else inner.split(",")
    parts = (part if paths and os.path.lexists(part) else part.strip().strip("\"'") for part in split)
    return [part for part in parts if part]


def _fault(value: Any, limits: Mapping[str, Any]) -> str:
    """What is allowed, if `value` is not; else an empty string."""
    choices = limits.get("choices")
    for name in value if isinstance(value, tuple) else (value,):
        if choices and name not in choices:
            nearest = difflib.get_close_matches(str(name), choices, n=1)
            kind = "a list of any of" if isinstance(value, tuple) else "one of"
            allowed = ", ".join(each or "empty" for each in choices)
            return f"{kind} {allowed}" + (f" (did you mean {nearest[0]}?)" if nearest else "")
    rules = {
        "at_least": ("at least", lambda limit: value >= limit),
        "above": ("above", lambda limit: value > limit),
        "at_most": ("at most", lambda limit: value <= limit),
        "below": ("below", lambda limit: value < limit),
    }
    given = [
        (words, limits[name], holds(limits[name])) for name, (words, holds) in rules.items() if name in limits
    ]
    if all(holds for _, _, holds in given):
        return ""
    return " and ".join(f"{words} {limit}" for words, limit, _ in given)


def _as_text(value: Any) -> str:
    """A value as YAML writes it in one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_key(section: str) -> str:
    return next(key for key in _FIELDS if key.startswith(f"{section}."))


def _describe(raw: Any) -> str:
    if isinstance(raw, dict):
        return "a mapping"
    if isinstance(raw, list):
        return f"the list [{', '.join(map(_describe, raw))}]"
    shown = raw if len(raw) <= 80 else raw[:77] + "..."
    return repr(shown)


def _text_loader() -> Any:
    import yaml

    class TextLoader(yaml.BaseLoader):
        """Scalars stay text; a key given twice is an error instead of the last one winning."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                name = str(key_node.value)
                if name in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {name} appears twice", problem_mark=key_node.start_mark
                    )
                seen.add(name)
            return super().construct_mapping(node, deep=deep)

    return TextLoader

"""Serving room: which runs are served, under which names, and which of their versions. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import InputError, ServeConfig
from app.encoder.sources import read_json
from app.evaluation.manifest import (
    MANIFEST,
    find_export,
    find_version_files,
    identify_model,
    is_of_run,
    newest_version,
    read_about,
    read_manifest,
    versions,
)
from app.feedback.versions import LABELS, read_labels
from app.run.directory import RunDirectory
from app.run.request import split_served

LIGHT = ("tagging", "classification")  # tasks that a TFLite file answers without TensorFlow, see `LIGHT_TASKS`
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Source:
    """What computes a version.

    Attributes:
        version: its number.
        runtime: "saved_model" or "tflite".
        path: of the version, or of the file.
        content: changes with it.
    """

    version: int
    runtime: str
    path: Path
    content: str


@dataclass(frozen=True)
class Plan:
    """What a run offers.

    Attributes:
        sources: by version.
        labels: of versions that are among them; `stable` always is.
    """

    sources: Mapping[int, Source]
    labels: Mapping[str, int]

    @property
    def stable(self) -> Source:
        return self.sources[self.labels["stable"]]


def find_runs(config: ServeConfig, run_dir: RunDirectory) -> list[tuple[str, RunDirectory]]:
    """Runs with the names they are given; "" where the model's own is to be taken.

    Raises:
        InputError: a run is not there, or names are wrong.
    """
    if not config.runs:
        return [("", run_dir)]
    found = []
    for entry in config.runs:
        name, path = split_served(entry)
        run = RunDirectory(path)
        run.require_run("serve.runs")
        found.append((name, run))
    return found


def name_runs(found: Sequence[tuple[str, RunDirectory]], config: ServeConfig) -> dict[str, RunDirectory]:
    """Runs by the name in their paths: that given, else that of the model.

    Raises:
        InputError: two have one name.
    """
    named: dict[str, RunDirectory] = {}
    for given, run in found:
        name = given or str(describe_run(run, config)["model"])
        if not _NAME.fullmatch(name):
            raise InputError(f"serve.runs: a name must be made of letters, digits and ._-, received {name!r}")
        if name in named:
            raise InputError(
                f"serve.runs: {named[name]} and {run} are both called {name}: give them names of their own, such as "
                f"serve.runs={name}={named[name]},{name}2={run}"
            )
        named[name] = run
    return named


def describe_run(run_dir: RunDirectory, config: ServeConfig) -> dict[str, Any]:
    """What a run's stable version says of itself, see `Task.about`."""
    source = plan_versions(run_dir, config).stable
    return describe_source(source, run_dir)


def describe_source(source: Source, run_dir: RunDirectory) -> dict[str, Any]:
    """What a version says of itself.

    Raises:
        InputError: its files are malformed.
    """
    path = source.path if source.runtime == "saved_model" else run_dir.saved_model / str(source.version)
    about = read_about(path)
    if about is None:
        about = _about_bundle(run_dir)
    return about


def _about_bundle(run_dir: RunDirectory) -> dict[str, Any]:
    from app.tasks.light import LIGHT_TASKS, find_light_task, read_model_facts

    known = read_model_facts(run_dir.model)
    if known.task not in LIGHT_TASKS:
        raise InputError(f"{run_dir.saved_model} holds no SavedModel: make one with --mode=export")
    return find_light_task(known.task).about(known.labels)


def plan_versions(run_dir: RunDirectory, config: ServeConfig) -> Plan:
    """Which versions are to be served, by what.

    Without labels that is the newest; with them, each that has one. TFLite files answer if the stable version has some.

    Raises:
        InputError: there is nothing to serve, or not by `serve.runtime`.
    """
    there, known = versions(run_dir.saved_model), read_labels(run_dir.path)
    newest = there[-1] if there else 1
    labels = {label: known[label] for label in LABELS if known[label]}
    labels.setdefault("stable", newest)
    files: dict[int, Source] = {}
    if config.runtime != "saved_model":
        for version in sorted(set(labels.values())):
            try:
                found = _find_files(run_dir, version, config, newest=newest)
            except InputError:
                if version == labels["stable"]:
                    raise
                found = None  # a canary is left out, as one without files
            if found:
                files[version] = found
    if labels["stable"] not in files:
        if config.runtime == "tflite":
            raise InputError(
                f"serve.runtime=tflite: {run_dir.tflite} has files of version {newest}, and version {labels['stable']} "
                "is stable: set serve.runtime=saved_model"
            )
        files = {}
        newest_version(run_dir.saved_model)  # says what is missing
    sources: dict[int, Source] = {}
    for version in sorted(set(labels.values())):
        if version in files:
            sources[version] = files[version]
        elif version in there and config.runtime != "tflite":
            sources[version] = _saved_model(run_dir, version)
    if labels["stable"] not in sources:
        raise InputError(f"{run_dir.saved_model} has no version {labels['stable']}, which is labelled stable")
    return Plan(sources, {name: version for name, version in labels.items() if version in sources})


def check_named_file(run_dir: RunDirectory, config: ServeConfig) -> None:
    """Raises InputError if `serve.tflite_file` is set to what a run with TFLite files has not, of no version."""
    if config.runtime != "auto" or config.tflite_file == ServeConfig.tflite_file:
        return
    folders = [run_dir.tflite, *(find_version_files(run_dir, version) for version in versions(run_dir.saved_model))]
    folders = [folder for folder in folders if (folder / MANIFEST).is_file()]
    name = f"{config.tflite_file}.tflite"
    if folders and not any(name in read_manifest(folder)["files"] for folder in folders):
        find_export(folders[0], config.tflite_file, setting="serve.tflite_file")  # says which there are


def _saved_model(run_dir: RunDirectory, version: int) -> Source:
    path = run_dir.saved_model / str(version)
    graph = path / "saved_model.pb"
    try:
        # The weights too: of a version that is copied in, the graph may be there long before them.
        found = [each.stat() for each in (graph, *sorted((path / "variables").glob("*")))]
    except OSError as error:
        raise InputError(
            f"{path} is no SavedModel that can be read, export it again: saved_model.pb is missing"
        ) from error
    return Source(version, "saved_model", path, " ".join(f"{each.st_mtime_ns} {each.st_size}" for each in found))


def _find_files(run_dir: RunDirectory, version: int, config: ServeConfig, *, newest: int) -> Source | None:
    """The TFLite file of a version: that kept for it, else that of the run's own model, if the newest version is."""
    folder = find_version_files(run_dir, version)
    if (folder / MANIFEST).is_file():
        found = _find_file(folder, folder / "model", config)
    elif version == newest and is_of_run(run_dir, version):
        found = _find_file(run_dir.tflite, run_dir.model, config)
    else:
        return None
    return Source(version, "tflite", *found) if found else None


def _find_file(folder: Path, model: Path, config: ServeConfig) -> tuple[Path, str] | None:
    """The TFLite file in a folder and its sum; None where `auto` has to do without."""
    try:
        path, manifest = find_export(folder, config.tflite_file, setting="serve.tflite_file")
    except InputError:
        if config.runtime == "tflite":
            raise
        return None
    entry = manifest["files"][path.name]
    now = identify_model(model).get("model_sums_sha256", "")
    if entry.get("model_sums_sha256", now) != now:  # the run has learnt since, and was not exported to this file
        if config.runtime == "tflite":
            raise InputError(f"{path} is of an earlier model than that in {model}: run --mode=export again")
        return None
    task = read_json(model / "tagger.json").get("task", "tagging")
    if task in LIGHT:
        return path, str(entry.get("sha256", ""))
    if config.runtime == "tflite":
        raise InputError(
            f"serve.runtime=tflite answers for the tasks {' and '.join(LIGHT)}, {model} is of task={task}: set "
            "serve.runtime=saved_model"
        )
    return None


def model_of(source: Source, run_dir: RunDirectory) -> Path | None:
    """What answers need of a version's model beyond its network: kept for it, else that of the run if it is the same.

    Of a version whose model is nowhere in the run, None; a TFLite file is never without.
    """
    kept = find_version_files(run_dir, source.version) / "model"
    if kept.is_dir():
        return kept
    return run_dir.model if is_of_run(run_dir, source.version) else None

"""Feedback room: an update that passed becomes the next version of the run that serves, and goes on trial as canary."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from app.config import InputError, RunError
from app.evaluation.gate import Refused
from app.evaluation.manifest import PROVENANCE_FILE, read_manifest
from app.export.exporters import Exporting, Scoring, export_tflite, make_writer, write_saved_model
from app.export.tflite import EARLY, WRITERS
from app.export.version_files import keep_newest_version_files, keep_version_files
from app.feedback.lineage import find_name, find_version_of, path_from, read_update, require_live
from app.feedback.preparing import Update, now_as_text
from app.feedback.versions import keep_stable, read_labels, set_label, write_models_config
from app.run.directory import RunDirectory
from app.run.screen import heartbeat, say
from app.tasks.exit_table import read_table


def put_on_trial(found: Update, live: Scoring, update: Scoring) -> None:
    """Writes the update as the next version of the run that serves and puts it on trial.

    A version that a killed process has written and given no label gets it now.
    """
    serving, run_dir = found.serving, found.run_dir
    known = read_update(run_dir).get("version")
    if known and (serving.saved_model / str(known)).is_dir():
        say(f"{run_dir} is version {known} of {serving} already")
        return
    with serving.locked():
        version = find_version_of(run_dir, serving)
        if not (version and read_labels(serving.path).has_been(version)):
            require_live(serving, run_dir)
            version = _write_and_label(found, live, update, written=version)
        write_models_config(serving.path, name=find_name(serving))
    run_dir.write_json(run_dir.update_json, {**read_update(run_dir), "version": version})
    labels = read_labels(serving.path)
    if labels.canary != version:
        say(f"{run_dir} is version {version} of {serving} already")
        return
    now = f"version {version} of {serving} is on trial as canary, version {labels.stable} is live"
    say(f"{now}; to have the new one go live:")
    say(f"python -m app.main --mode=update --run_dir={serving} --set update.promote=stable")


def _write_and_label(found: Update, live: Scoring, update: Scoring, *, written: int) -> int:
    """The number of the version that the update is now, which is labelled canary.

    What is live is exported first if nothing is there yet, so that there is something to go back to; and it is named
    before the new version appears, since without a label the newest version is live.

    Args:
        found: what was trained.
        live: the model that is live, with its scores.
        update: the same of the update.
        written: the number of the version if its folder is there already; 0 = it is not.

    Raises:
        RunError: the export is worse than the model by more than is allowed.
    """
    serving, run_dir, version = found.serving, found.run_dir, written
    try:
        if not version:
            if not read_labels(serving.path).stable:
                keep_version_files(found.start, serving, _write_version(found, live, found.start))
            keep_stable(serving.path)
            keep_newest_version_files(serving)  # the version that is the newest until now
            version = _write_version(found, update, run_dir)
        _write_files(found, update, version)
    except Refused as error:
        raise RunError(str(error)) from error
    set_label(serving.path, "canary", version, f"{run_dir.path.resolve().name} passed as an update")
    return version


def _write_files(found: Update, job: Scoring, version: int) -> None:
    """Writes the TFLite files that the run that serves has, of the update; one that is refused is left out."""
    serving, run_dir, config = found.serving, found.run_dir, found.config
    try:
        names = [Path(name).stem for name in read_manifest(serving.tflite)["files"]]
    except InputError:
        return
    facts, exits = job.model.facts, job.model.config.exit_layers
    known = [name for name in WRITERS if name not in EARLY or read_table(facts, exits)]
    names = [name for name in names if name in known]
    if not names:
        return
    writer = make_writer(config, job.model, job.encoder, run_dir)
    shared = {field.name: getattr(job, field.name) for field in dataclasses.fields(Scoring)}
    exporting = Exporting(**shared, run_dir=run_dir, writer=writer)
    for name in names:
        try:
            with heartbeat(f"{name}: converting and scoring"):
                export_tflite(name, exporting)
        except Refused as error:
            say(str(error))
    keep_version_files(run_dir, serving, version)


def _write_version(found: Update, job: Scoring, run: RunDirectory) -> int:
    """Writes the model of a run as the next version of the run that serves, and returns its number."""
    provenance = {
        "run": path_from(run, found.serving),
        "weights_sha256": run.read_metrics().get("weights_sha256", ""),
        "made_from": path_from(found.start, found.serving) if run is found.run_dir else "",
        "corrections": len(found.selection.learnt) if run is found.run_dir else 0,
        "time": now_as_text(),
    }
    with heartbeat("saved_model: converting and scoring"):
        path, _ = write_saved_model(
            job, found.serving.saved_model, note=lambda part: run.write_json(part / PROVENANCE_FILE, provenance)
        )
    return int(path.name)

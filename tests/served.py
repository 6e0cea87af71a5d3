"""Runs of small models with their exports, and servers of them, for tests of the serving room."""

import json
import shutil
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import toy

from app.config import Config, DataConfig, ExportConfig, PredictConfig, ServeConfig
from app.evaluation.runtimes import build_predictor
from app.export.metadata import write_companions
from app.export.saved_model import save_as_saved_model
from app.export.tflite import TFLiteWriter
from app.run.directory import RunDirectory, sha256_of_file
from app.serving.listening import listening
from app.serving.models import ServedModel
from app.serving.server import ModelServer
from app.tasks.bundle import save_model
from app.text.shapes import NUM_SHAPES

CONFIG = Config(data=DataConfig(max_length=toy.LENGTH, overlap_tokens=8))


def make_run(
    folder: Path,
    model: Any,
    encoder: Any,
    *,
    saved_model: Path | None = None,
    file: str = "float32",
    light: bool = False,
) -> Path:
    """A run directory with the bundle of a model, a SavedModel (unless it is `light`) and a TFLite file."""
    run = RunDirectory(folder)
    save_model(model, run.model, shape_count=NUM_SHAPES, card="")
    run.write_config(CONFIG)
    if saved_model is None and not light:
        save_as_saved_model(model, encoder, PredictConfig(), run.saved_model)
    elif saved_model is not None:
        shutil.copytree(saved_model, run.saved_model / "1")
    boundaries = (encoder.pieces.start_id, encoder.pieces.end_id)
    writer = TFLiteWriter(model, ExportConfig(), boundary_ids=boundaries, representative=lambda: [])
    path = run.tflite / f"{file}.tflite"
    run.write_bytes(path, writer.write(file))
    entry = {"sha256": sha256_of_file(path)}
    write_companions(model, run, path.name, entry, max_length=toy.LENGTH, vectors=[])
    return folder


def make_server(*runs: Path, names: tuple[str, ...] = (), key: str = "", **settings: Any) -> ModelServer:
    """A server of runs in this process, silent unless the settings say otherwise; not yet loaded."""
    config = ServeConfig(
        **{"access_log": False, "tflite_file": "float32", "threads": 2, "reload_seconds": 0, **settings}
    )
    told: list[str] = []
    models = [
        ServedModel(name, RunDirectory(run), config=CONFIG, settings=config, threads=config.threads, say=told.append)
        for name, run in zip(names or ("ner",), runs, strict=True)
    ]
    server = ModelServer(config, models, api_key=key)
    server.told = told  # type: ignore[attr-defined]
    return server


@contextmanager
def serving(*runs: Path, **settings: Any) -> Any:
    """The URL of such a server, ready."""
    with listening(make_server(*runs, **settings)) as url:
        yield url


def ask(url: str, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer; the body is JSON unless it is bytes."""
    status, _, content = fetch(url, path, body, method=method, **headers)
    return status, json.loads(content)


def fetch(
    url: str, path: str, body: Any = None, *, method: str | None = None, **headers: str
) -> tuple[int, Any, bytes]:
    """Status, headers and content of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def correction(text: str, *entities: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A correction as clients send it; its entities are given by their words and their label."""
    places = [(text.index(words), text.index(words) + len(words), label) for words, label in entities]
    spans = [{"start": start, "end": end, "label": label} for start, end, label in places]
    return {"text": text, "answer": {"entities": spans}, **more}


def predictor_of(model: Any, encoder: Any) -> Any:
    return build_predictor(model, encoder, batch_size=8)

"""Serving room: exported models behind HTTP, Starlette under uvicorn.

    GET  /                                   the page
    GET  /about                              the models: tasks, names in the paths, labels, versions
    POST /entities, /classify, /answers      texts to the rows of --mode=predict
    ...  /v1/models/NAME...                  TensorFlow Serving's REST API: status, metadata, :predict
    GET  /healthz, /readyz, /metrics         for whoever runs it
    GET  /openapi.json                       all of this for machines

Other modules add routes of their own, see `ROUTES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.config import FeedbackConfig, InputError, ServeConfig, UpdateConfig
from app.serving.errors import RequestError
from app.serving.hosts import read_hosts
from app.serving.http import Gate, JsonResponse, log, read_body, refuse, refuse_unknown
from app.serving.metrics import Metrics
from app.serving.models import ServedModel, Version
from app.serving.openapi import OPENAPI
from app.serving.page import HEADERS, PAGE
from app.serving.predict_json import (
    describe_metadata,
    describe_status,
    parse_json,
    parse_predict,
    parse_texts,
    shown,
    write_answer,
)
from app.serving.stores import Stores

LARGE_BODY = 2**16  # bytes; larger ones are parsed beside the loop
LEAST_PACKED = 1024  # bytes of an answer that is worth packing
TASKS = {"/entities": "tagging", "/classify": "classification"}  # what a path is for; others take any model


class ModelServer:
    """What the routes share: the models, the settings, the counts. A request has it as `request.app.state.server`.

    Args:
        config: section `serve`.
        models: by their names; loaded by `load`.
        api_key: that requests must bring; empty = none.
        feedback: section `feedback`: where corrections go.
        update: section `update`: when a version is taken back because people agree with it too seldom.
        on_ready: called when all models are loaded.
    """

    def __init__(
        self,
        config: ServeConfig,
        models: Sequence[ServedModel],
        *,
        api_key: str = "",
        feedback: FeedbackConfig | None = None,
        update: UpdateConfig | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.models = config, {model.name: model for model in models}
        self.api_key, self.on_ready = api_key, on_ready
        self.stores = Stores(feedback or FeedbackConfig())
        self.update = update or UpdateConfig()
        self.metrics = Metrics(lambda: sum(model.waiting for model in models))
        for model in models:
            model.observe = self.metrics.batches.observe
            model.observe_layers = self.metrics.count_layers
        self.failure: BaseException | None = None
        self.stop: Callable[[], None] = lambda: None
        self._refreshing = threading.Lock()

    @property
    def ready(self) -> bool:
        return all(model.ready for model in self.models.values())

    def load(self) -> None:
        """Raises InputError if a model cannot be loaded."""
        for model in self.models.values():
            model.load()

    def refresh(self) -> None:
        """Looks for new versions and labels now."""
        with self._refreshing:
            for model in self.models.values():
                if model.ready:
                    model.refresh()

    def close(self) -> None:
        for model in self.models.values():
            model.close()
        self.stores.close()

    def find(self, name: str) -> ServedModel:
        """A model by its name; raises RequestError 404."""
        if name not in self.models:
            raise RequestError(404, f"there is no model {name[:60]!r}, the models are {', '.join(self.models)}")
        return self.models[name]

    def choose(self, name: Any, version: Any, *, path: str = "") -> Version:
        """The version that a body asks for: `model` by name, else the first one of the path's task; `version` by number
        or label.

        Raises:
            RequestError: there is none.
        """
        if name is None:
            model = self._first(path)
        elif isinstance(name, str):
            model = self.find(name)
        else:
            raise RequestError(400, f'"model" must be a name, received {shown(name)}')
        if version is None or isinstance(version, str):
            found = model.find(label=version)
        elif type(version) is int:
            found = model.find(version)
        else:
            raise RequestError(400, f'"version" must be a number or a label, received {shown(version)}')
        task = TASKS.get(path)
        if task and found.about["task"] != task:
            other = next((each for each, kind in TASKS.items() if kind == found.about["task"]), "/answers")
            raise RequestError(400, f"the model {model.name} is for {found.about['task']}: ask {other}")
        return found

    def _first(self, path: str) -> ServedModel:
        models = list(self.models.values())
        task = TASKS.get(path)
        fitting = [each for each in models if task is None or not each.ready or each.stable.about["task"] == task]
        return (fitting or models)[0]

    async def answer(self, version: Version, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Rows as --mode=predict writes them.

        Raises:
            RequestError: too many wait, or it takes too long.
        """
        rows: list[dict[str, Any]] = await version.batcher.ask(texts=texts, as_rows=True, seconds=self.seconds)
        return rows

    @property
    def seconds(self) -> float:
        """That a request may take."""
        return self.config.deadline_ms / 1000

    def describe(self) -> dict[str, Any]:
        """The body of /about."""
        listed = []
        for model in self.models.values():
            about = dict(model.stable.about)
            about["name"] = about.pop("model")
            labels = model.labels
            listed.append(
                {
                    **about,
                    "versions": model.versions,
                    "stable": labels.get("stable"),
                    "canary": labels.get("canary"),
                    "runtime": model.stable.source.runtime,
                }
            )
        first = next(iter(self.models.values()))
        return {**first.stable.about, "models": listed}


def server_of(request: Request) -> ModelServer:
    server: ModelServer = request.app.state.server
    return server


async def read_json(request: Request) -> Any:
    """The body of a request as a JSON value; raises RequestError."""
    body = await read_body(request, server_of(request).config.max_body_bytes)
    return await asyncio.to_thread(parse_json, body) if len(body) > LARGE_BODY else parse_json(body)


async def read_object(request: Request, *, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The body as an object with these fields and no other; raises RequestError."""
    found = await read_json(request)
    allowed = (*required, *optional)
    if not isinstance(found, dict):
        raise RequestError(400, f"{_must_be(required, optional)}, received {shown(found)}")
    for name in required:
        if name not in found:
            raise RequestError(400, f'"{name}" is missing: {_must_be(required, optional)}')
    for name in found:
        if name not in allowed:
            raise RequestError(400, f"there is no field {shown(name)}, the fields are {', '.join(allowed)}")
    return found


def _must_be(required: Sequence[str], optional: Sequence[str]) -> str:
    more = f" ({', '.join(optional)} may be left out)" if optional else ""
    return f"the request must be an object with {', '.join(required)}{more}"


# What is asked.


async def show_page(request: Request) -> Response:
    return HTMLResponse(PAGE, headers=HEADERS)


async def show_about(request: Request) -> Response:
    return JsonResponse(server_of(request).describe())


async def show_openapi(request: Request) -> Response:
    return JsonResponse(OPENAPI)


async def show_health(request: Request) -> Response:
    return JsonResponse({"status": "ok"})


async def show_readiness(request: Request) -> Response:
    ready = server_of(request).ready
    return JsonResponse({"status": "ready" if ready else "loading"}, status_code=200 if ready else 503)


async def show_metrics(request: Request) -> Response:
    return PlainTextResponse(server_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def answer_texts(request: Request) -> Response:
    server = server_of(request)
    found = await read_object(request, required=("texts",), optional=("model", "version"))
    texts = parse_texts(found["texts"], where='"texts"')
    version = server.choose(found.get("model"), found.get("version"), path=request.url.path)
    note(request, version, texts)
    answers = await server.answer(version, texts)
    return JsonResponse({"model": version.about["model"], "version": version.number, "answers": answers})


def note(request: Request, version: Version, texts: Sequence[str]) -> None:
    """For the log."""
    request.scope["noted"].update(model=version.about["model"], version=version.number, texts=texts)


# TensorFlow Serving's REST API.


def find_version(request: Request) -> Version:
    """The version that a path asks for."""
    model = server_of(request).find(request.path_params["name"])
    number = request.path_params.get("version")
    if number is None:
        return model.find(label=request.path_params.get("label"))
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise RequestError(400, f"a version must be a number, received {number[:60]!r}")
    return model.find(int(number))


async def show_status(request: Request) -> Response:
    if request.url.path.endswith((":predict", ":classify", ":regress")):
        raise RequestError(405, f"{request.url.path[:200]} takes POST, not GET", {"Allow": "POST"})
    model = server_of(request).find(request.path_params["name"])
    if "version" in request.path_params or "label" in request.path_params:
        return JsonResponse(describe_status([find_version(request).number]))
    model.find()
    return JsonResponse(describe_status(model.versions))


async def show_metadata(request: Request) -> Response:
    version = find_version(request)
    return JsonResponse(describe_metadata(version.about["model"], version.number, version.engine.signatures))


async def predict(request: Request) -> Response:
    server, version = server_of(request), find_version(request)
    body = await read_body(request, server.config.max_body_bytes)

    def parse() -> Any:
        return parse_predict(body, version.engine.signatures, limits=version.limits)

    asked = await asyncio.to_thread(parse) if len(body) > LARGE_BODY else parse()
    note(request, version, asked.texts)
    if asked.arrays:
        found = await version.batcher.ask(arrays=asked.arrays, seconds=server.seconds)
    else:
        found = await version.batcher.ask(texts=asked.texts, seconds=server.seconds)
    return JsonResponse(write_answer(found, by_row=asked.by_row))


async def refuse_verb(request: Request) -> Response:
    server_of(request).find(request.path_params["name"])
    raise RequestError(400, "the signatures of this model are for :predict, none is for :classify or :regress")


_MODEL = "/v1/models/{name}"
_PLACES = (_MODEL, f"{_MODEL}/versions/{{version}}", f"{_MODEL}/labels/{{label}}")
# Other modules append to this list before the server is made.
ROUTES: list[Route] = [
    Route("/", show_page),
    Route("/about", show_about),
    Route("/entities", answer_texts, methods=["POST"]),
    Route("/classify", answer_texts, methods=["POST"]),
    Route("/answers", answer_texts, methods=["POST"]),
    Route("/healthz", show_health),
    Route("/readyz", show_readiness),
    Route("/metrics", show_metrics),
    Route("/openapi.json", show_openapi),
    *(Route(f"{place}:predict", predict, methods=["POST"]) for place in _PLACES),
    *(Route(f"{place}:{verb}", refuse_verb, methods=["POST"]) for place in _PLACES for verb in ("classify", "regress")),
    *(Route(f"{place}/metadata", show_metadata) for place in _PLACES),
    *(Route(place, show_status) for place in _PLACES),
]


async def _refuse_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    taken = (error.headers or {}).get("Allow", "other methods")
    said = f"there is no {path}" if error.status_code == 404 else f"{path} takes {taken}, not {request.method}"
    return JsonResponse({"error": said}, status_code=error.status_code, headers=error.headers)


async def _refuse_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return refuse(error)


async def _refuse_input(request: Request, error: Exception) -> Response:
    return JsonResponse({"error": str(error)}, status_code=400)


async def _note_gone(request: Request, error: Exception) -> Response:
    """Nobody is there to read it: a status for the log and the counts, which is no fault of the server."""
    return Response(status_code=499)


async def _refuse_fault(request: Request, error: Exception) -> Response:
    return refuse_unknown()


def build_app(server: ModelServer, routes: Sequence[Route] | None = None) -> Gate:
    """The server as an ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(server))
        try:
            yield
        finally:
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
            await asyncio.to_thread(server.close)

    app = Starlette(
        routes=list(ROUTES if routes is None else routes),
        exception_handlers={
            HTTPException: _refuse_path,
            RequestError: _refuse_request,
            InputError: _refuse_input,
            ClientDisconnect: _note_gone,
            Exception: _refuse_fault,
        },
        lifespan=lifespan,
    )
    app.state.server = server
    app.router.redirect_slashes = False
    packed = GZipMiddleware(app, minimum_size=LEAST_PACKED, compresslevel=5)
    config = server.config
    return Gate(
        packed,
        api_key=server.api_key,
        hosts=read_hosts(config, has_key=bool(server.api_key)),
        metrics=server.metrics,
        access_log=config.access_log,
        show_texts=config.log_texts,
    )


async def _load(server: ModelServer) -> None:
    """Loads the models beside the loop, then looks for new versions now and then."""
    try:
        await asyncio.to_thread(server.load)
    except Exception as error:
        server.failure = error
        server.stop()
        return
    server.on_ready()
    while server.config.reload_seconds:
        await asyncio.sleep(server.config.reload_seconds)
        try:
            await asyncio.to_thread(server.refresh)
        except Exception as error:  # the next look may be luckier
            log({"event": "reload", "error": f"{type(error).__name__}: {error}"})


def find_key(config: ServeConfig) -> str:
    """The key of a server: the setting, else the environment.

    Raises:
        InputError: no client could send it.
    """
    key = config.api_key or os.environ.get("APP_API_KEY", "")
    name = "serve.api_key" if config.api_key else "APP_API_KEY"
    if key and (not key.strip() or any(ord(letter) < 32 or ord(letter) == 127 for letter in key)):
        raise InputError(f"{name} must hold something other than blanks, and no line break or other control character")
    if key != key.strip():
        raise InputError(f"{name} must not begin or end with a blank, which gets lost on the way")
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        raise InputError(f"{name} must be UTF-8 text")
    return key

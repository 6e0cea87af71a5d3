"""Serving room: what the routes that read and change what is stored are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.config import RunError
from app.feedback.database import FullDiskError
from app.run.files import full_disk, reason_of
from app.serving.errors import RequestError
from app.serving.http import Handler
from app.serving.models import ServedModel
from app.serving.openapi import describe_route
from app.serving.predict_json import shown
from app.serving.server import ROUTES, ModelServer

MOST_LISTED = 200
TEXT: dict[str, Any] = {"type": "string"}
NAME: dict[str, Any] = {"type": ["string", "null"]}
_Result = TypeVar("_Result")


async def in_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Runs what waits for a disk beside the loop.

    Raises:
        RequestError: 507 if the disk is full, which asking again does not mend; 503 if a database fails otherwise.
    """
    try:
        return await run_in_threadpool(work, *arguments)
    except FullDiskError as error:
        raise RequestError(507, str(error)) from error
    except RunError as error:
        raise RequestError(503, str(error), {"Retry-After": "1"}) from error
    except OSError as error:
        if not full_disk(error):
            raise
        said = f"{error.filename or 'a file'} could not be written: {reason_of(error)}"
        raise RequestError(507, f"{said}; it is as it was, make room and try again") from error


def from_here(handler: Handler) -> Handler:
    """Refuses what a page of another site makes a browser send: it must not write into the store."""

    async def checked(request: Request) -> Response:
        site, origin = request.headers.get("sec-fetch-site", ""), request.headers.get("origin", "")
        # "null" is a frame without an origin of its own, which any site can make.
        other = bool(origin) and origin.partition("://")[2] != request.headers.get("host", "")
        if site not in ("same-origin", "none") if site else other:
            raise RequestError(403, "a page of another site must not change what is stored here")
        return await handler(request)

    return checked


def find_model(server: ModelServer, name: Any) -> ServedModel:
    """A model by its name; without one the first. Raises RequestError."""
    if name in (None, ""):
        return next(iter(server.models.values()))
    if not isinstance(name, str):
        raise RequestError(400, f'"model" must be a name, received {shown(name)}')
    return server.find(name)


def read_number(request: Request, name: str, default: int, *, most: int) -> int:
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdecimal() and len(given) < 12 and int(given) <= most):
        raise RequestError(400, f"{name} must be a number from 0 to {most}, received {shown(given)}")
    return int(given)


def describe_text(meaning: str, *, empty: bool = True) -> dict[str, Any]:
    """A parameter of a query that is a text."""
    return {"description": meaning, "schema": {"type": "string", **({} if empty else {"minLength": 1})}}


def describe_count(meaning: str, *, most: int) -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": "integer", "minimum": 0, "maximum": most}}


def add_route(path: str, handler: Handler, summary: str, *, method: str = "GET", **description: Any) -> None:
    """A route with its description, see `describe_route`."""
    ROUTES.append(Route(path, handler, methods=[method]))
    describe_route(path, summary, method=method, **description)
